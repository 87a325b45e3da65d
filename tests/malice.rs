// SPDX-License-Identifier: MPL-2.0
//! Clouds that register keys that are none. (Parties that lie in a sealed stream are in
//! `src/sealed/stream/malice.rs`.)

#[path = "common/serve.rs"]
mod serve;

use gstcamvault::client::ttp::CloudProof;
use gstcamvault::client::{Error, Ttp};
use gstcamvault::homomorphic::packed::{CertifiedKey, SecretKey};
use gstcamvault::identity::Identity;
use gstcamvault::protocol::{Code, decode, encode};
use gstcamvault::server::{Config, Role, Server};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use std::sync::Arc;

/// A certified key, to change.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
struct Open {
    #[n(0)]
    version: u32,
    #[n(1)]
    modulus: ByteVec,
    #[n(2)]
    fourth_roots: ByteVec,
    #[n(3)]
    choices: ByteVec,
    #[n(4)]
    roots: ByteVec,
}

/// n times 3/4 or so, divisible by 3, of the same length.
fn divisible(modulus: &[u8]) -> Vec<u8> {
    let remainder = modulus
        .iter()
        .fold(0u32, |r, b| (r * 256 + u32::from(*b)) % 3);
    let mut out = modulus.to_vec();
    // Odd before and after: 2 or 4 off.
    let off = [0, 4, 2][remainder as usize];
    let last = out.last_mut().unwrap();
    *last = match last.checked_sub(off) {
        Some(less) => less,
        // Three more than that is as good, and does not borrow.
        None => *last + 6 - off,
    };
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_without_a_proof_or_with_a_small_factor_are_not_registered() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.listen.set_port(0);
    config.roles = vec![Role::Ttp];
    let server = Server::start(config).await.unwrap();
    let identity = Identity::generate().unwrap();
    let cloud = Ttp::connect(&server.url(), Arc::new(identity)).unwrap();
    let secret = Arc::new(SecretKey::generate(2048).unwrap());
    let proven = cloud.prove(secret.clone()).await.unwrap();
    let good = &proven.key;
    let open: Open = decode(&good.to_bytes()).unwrap();
    assert_eq!(encode(&open), good.to_bytes());
    let changed = |change: &dyn Fn(&mut Open)| {
        let mut open = open.clone();
        change(&mut open);
        encode(&open)
    };
    let other = SecretKey::generate(2048).unwrap();
    let cases: [(&str, Vec<u8>); 6] = [
        (
            "no proof",
            changed(&|o| {
                o.fourth_roots = Vec::new().into();
                o.choices = Vec::new().into();
                o.roots = Vec::new().into();
            }),
        ),
        (
            "a proof of zeros",
            changed(&|o| {
                o.fourth_roots.fill(0);
                o.roots.fill(0);
            }),
        ),
        (
            "another modulus",
            changed(&|o| o.modulus = other.public().modulus().into()),
        ),
        (
            "divisible by 3",
            changed(&|o| o.modulus = divisible(&o.modulus).into()),
        ),
        (
            "one root of 136 changed",
            changed(&|o| o.fourth_roots[777] ^= 1),
        ),
        (
            "proven for another",
            CertifiedKey::prove(&secret, &[7; 32]).unwrap().to_bytes(),
        ),
    ];
    for (name, bytes) in cases {
        let key = CertifiedKey::from_bytes(&bytes).unwrap();
        let proof = CloudProof {
            key,
            factors: proven.factors.clone(),
        };
        match cloud.register(Some(&proof), None).await {
            Err(Error::Refused {
                code: Code::Malformed,
                message,
                ..
            }) => {
                println!("{name}: {message}");
                let small = message.contains("small factor");
                assert_eq!(small, name == "divisible by 3", "{message}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    // The proof that there are no small factors, of another key and for another party.
    let of_other = cloud.prove(Arc::new(other)).await.unwrap();
    let stranger = Arc::new(Identity::generate().unwrap());
    let stranger = Ttp::connect(&server.url(), stranger).unwrap();
    let for_other = stranger.prove(secret).await.unwrap();
    for factors in [of_other.factors, for_other.factors] {
        let key = proven.key.clone();
        let proof = CloudProof { key, factors };
        let refused = cloud.register(Some(&proof), None).await;
        let malformed = matches!(
            &refused,
            Err(Error::Refused {
                code: Code::Malformed,
                ..
            })
        );
        assert!(malformed, "{refused:?}");
    }
    cloud.register(Some(&proven), None).await.unwrap();
    server.shutdown().await;
}
