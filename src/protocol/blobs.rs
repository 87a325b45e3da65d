// SPDX-License-Identifier: MPL-2.0
//! Many blobs in one body: a list in a header when they go up, length frames when they come down.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Names and lengths of the blobs in an upload's body, which is their concatenation.
/// Packed as `d1 (32) ‖ length (4, big-endian)` for each, in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobList(pub Vec<([u8; 32], u32)>);

impl BlobList {
    /// The header's value.
    pub fn encode(&self) -> String {
        let packed: Vec<u8> = self
            .0
            .iter()
            .flat_map(|(d1, len)| d1.iter().copied().chain(len.to_be_bytes()))
            .collect();
        BASE64.encode(packed)
    }

    /// Reads a header's value; `None` if it is not a list.
    pub fn decode(header: &[u8]) -> Option<Self> {
        let packed = BASE64.decode(header).ok()?;
        let (items, rest) = packed.as_chunks::<36>();
        let item = |item: &[u8; 36]| {
            let (d1, len) = item.split_first_chunk::<32>()?;
            Some((*d1, u32::from_be_bytes(len.try_into().ok()?)))
        };
        rest.is_empty()
            .then(|| items.iter().map(item).collect::<Option<_>>().map(Self))?
    }

    /// Bytes of the whole body.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, len)| u64::from(*len)).sum()
    }
}

/// Length that stands for "this server has no such blob".
const MISSING: u32 = u32::MAX;

/// The frame header of one blob in a download: its length, big-endian; `None`: not there.
pub fn write_blob_frame(len: Option<u32>) -> [u8; 4] {
    len.unwrap_or(MISSING).to_be_bytes()
}

/// Takes one frame off the front of a download: `Some(None)` is a missing blob, `None` means that
/// the body ends too early.
pub fn read_blob_frame(body: &mut bytes::Bytes) -> Option<Option<bytes::Bytes>> {
    let header: [u8; 4] = body.get(..4)?.try_into().ok()?;
    match u32::from_be_bytes(header) {
        MISSING => {
            bytes::Buf::advance(body, 4);
            Some(None)
        }
        len => {
            let end = 4usize.checked_add(len as usize)?;
            if body.len() < end {
                return None;
            }
            Some(Some(body.split_to(end).slice(4..)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lists_read_back(list in proptest::collection::vec((any::<[u8; 32]>(), any::<u32>()), 0..20)) {
            let list = BlobList(list);
            prop_assert_eq!(BlobList::decode(list.encode().as_bytes()), Some(list));
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes: Vec<u8>) {
            BlobList::decode(&bytes);
            let mut body = bytes::Bytes::from(bytes);
            while read_blob_frame(&mut body).is_some() {}
        }
    }
}
