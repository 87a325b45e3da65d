// SPDX-License-Identifier: MPL-2.0
//! What the metadata and the storage role vouch for to each other, carried by clients: put
//! tokens, receipts, capabilities; and the authentication of internal requests. All are keyed
//! BLAKE3 under keys derived from the link secret.

use crate::store::{Allowance, Hash, Mark, RECEIPT_MS};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Header of an internal request: `created.nonce.mac`.
pub const INTERNAL_HEADER: &str = "camvault-internal";
/// Life of a put token.
const TOKEN_S: u64 = 15 * 60;
/// Life of a capability.
pub const CAPABILITY_S: u64 = 10 * 60;

/// The keys that the two roles share.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Link {
    put: [u8; 32],
    stored: [u8; 32],
    get: [u8; 32],
    internal: [u8; 32],
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link(..)")
    }
}

fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// What a put token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutGrant {
    id: [u8; 8],
    expires: u64,
    max_bytes: u64,
}

impl PutGrant {
    /// As an allowance of all servers together, and its name.
    pub fn allowance(&self) -> (Mark, Allowance) {
        let mut mark = *b"puttoken\0\0\0\0\0\0\0\0";
        mark[8..].copy_from_slice(&self.id);
        let allowance = Allowance {
            burst: self.max_bytes,
            per_s: 0,
            until: (self.expires + 1) * 1000,
        };
        (mark, allowance)
    }
}

impl Link {
    /// Derives the keys from the link secret.
    pub fn new(secret: &[u8; 32]) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(b"camvault link v1"), secret);
        let derive = |info: &[u8]| {
            let mut key = [0; 32];
            // 32 bytes are always below HKDF's limit of 255 × 32.
            if hkdf.expand(info, &mut key).is_err() {
                unreachable!("HKDF gives 32 bytes");
            }
            key
        };
        Self {
            put: derive(b"put"),
            stored: derive(b"stored"),
            get: derive(b"get"),
            internal: derive(b"internal"),
        }
    }

    /// Allows the holder of a signing key to upload about `bytes` bytes.
    pub fn put_token(&self, holder: &Hash, bytes: u64, now_s: u64) -> Option<Vec<u8>> {
        let mut id = [0; 8];
        getrandom::fill(&mut id).ok()?;
        let expires = (now_s + TOKEN_S).to_be_bytes();
        // Twice: an answer may get lost and the upload be sent again.
        let max = bytes
            .saturating_mul(2)
            .saturating_add(1 << 16)
            .to_be_bytes();
        let clear = [id.as_slice(), holder, &expires, &max].concat();
        let mac = mac(&self.put, &[&clear]);
        Some([clear.as_slice(), &mac].concat())
    }

    /// Checks a put token against the one who shows it.
    pub fn check_put(&self, token: &[u8], holder: &Hash, now_s: u64) -> Option<PutGrant> {
        let (clear, sent) = token.split_last_chunk::<32>()?;
        let right = mac(&self.put, &[clear]).ct_eq(sent);
        let (id, rest) = clear.split_first_chunk::<8>()?;
        let (named, rest) = rest.split_first_chunk::<32>()?;
        let (expires, max) = rest.split_first_chunk::<8>()?;
        let expires = u64::from_be_bytes(*expires);
        let fine = bool::from(right) && named == holder && now_s <= expires;
        fine.then_some(PutGrant {
            id: *id,
            expires,
            max_bytes: u64::from_be_bytes(max.try_into().ok()?),
        })
    }

    fn receipt_mac(&self, d1: &Hash, len: u32, expires: &[u8; 8]) -> [u8; 32] {
        mac(&self.stored, &[d1, &len.to_be_bytes(), expires])
    }

    /// Says that a blob of `len` bytes has been stored; `since_ms` is before it was.
    pub fn receipt(&self, d1: &Hash, len: u32, since_ms: u64) -> Vec<u8> {
        let expires = (since_ms + RECEIPT_MS).to_be_bytes();
        [expires.as_slice(), &self.receipt_mac(d1, len, &expires)].concat()
    }

    /// Checks a receipt.
    pub fn check_receipt(&self, receipt: &[u8], d1: &Hash, len: u32, now_ms: u64) -> bool {
        let Some((expires, sent)) = receipt.split_first_chunk::<8>() else {
            return false;
        };
        let right = self.receipt_mac(d1, len, expires).ct_eq(sent);
        bool::from(right) && now_ms <= u64::from_be_bytes(*expires)
    }

    /// Lets the holder of a signing key fetch a blob until `expires` (Unix seconds).
    pub fn capability(&self, d1: &Hash, holder: &Hash, expires: u64) -> [u8; 16] {
        let mac = mac(&self.get, &[d1, holder, &expires.to_be_bytes()]);
        std::array::from_fn(|i| mac[i])
    }

    /// Checks a capability.
    pub fn check_capability(
        &self,
        capability: &[u8; 16],
        d1: &Hash,
        holder: &Hash,
        expires: u64,
        now_s: u64,
    ) -> bool {
        let right = self.capability(d1, holder, expires).ct_eq(capability);
        bool::from(right) && now_s <= expires
    }

    fn internal_mac(&self, created: u64, nonce: &str, body: &[u8]) -> [u8; 32] {
        let hash = blake3::hash(body);
        mac(
            &self.internal,
            &[&created.to_be_bytes(), hash.as_bytes(), nonce.as_bytes()],
        )
    }

    /// Value of [`INTERNAL_HEADER`] for a body.
    pub fn seal_internal(&self, body: &[u8], created: u64) -> Option<String> {
        let nonce = crate::protocol::signature::nonce()?;
        let mac = BASE64URL.encode(self.internal_mac(created, &nonce, body));
        Some(format!("{created}.{nonce}.{mac}"))
    }

    /// Checks the value of [`INTERNAL_HEADER`]: when it was made, and its nonce.
    pub fn check_internal<'a>(&self, header: &'a str, body: &[u8]) -> Option<(u64, &'a str)> {
        let mut parts = header.split('.');
        let (created, nonce, sent) = (parts.next()?, parts.next()?, parts.next()?);
        let created = created.parse().ok()?;
        let right = self.internal_mac(created, nonce, body);
        bool::from(right.ct_eq(&BASE64URL.decode(sent).ok()?)).then_some((created, nonce))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D1: Hash = [1; 32];
    const ME: Hash = [2; 32];

    #[test]
    fn each_counts_for_its_purpose_alone() {
        let link = Link::new(&[7; 32]);
        let token = link.put_token(&ME, 1000, 50).unwrap();
        assert!(link.check_put(&token, &ME, 50 + TOKEN_S).is_some());
        assert!(link.check_put(&token, &ME, 51 + TOKEN_S).is_none());
        assert!(link.check_put(&token, &D1, 50).is_none());
        for i in 0..token.len() {
            let mut changed = token.clone();
            changed[i] ^= 1;
            assert!(link.check_put(&changed, &ME, 50).is_none());
        }
        let receipt = link.receipt(&D1, 9, 50);
        assert!(link.check_receipt(&receipt, &D1, 9, 60));
        assert!(!link.check_receipt(&receipt, &D1, 8, 60));
        assert!(!link.check_receipt(&receipt, &ME, 9, 60));
        assert!(!link.check_receipt(&receipt, &D1, 9, 51 + RECEIPT_MS));
        let capability = link.capability(&D1, &ME, 100);
        assert!(link.check_capability(&capability, &D1, &ME, 100, 100));
        assert!(!link.check_capability(&capability, &D1, &ME, 100, 101));
        assert!(!link.check_capability(&capability, &D1, &ME, 101, 100));
        assert!(!link.check_capability(&capability, &D1, &D1, 100, 100));
        let header = link.seal_internal(b"body", 5).unwrap();
        assert_eq!(link.check_internal(&header, b"body").unwrap().0, 5);
        assert!(link.check_internal(&header, b"else").is_none());
        let other = Link::new(&[8; 32]);
        assert!(other.check_put(&token, &ME, 50).is_none());
        assert!(other.check_internal(&header, b"body").is_none());
    }
}
