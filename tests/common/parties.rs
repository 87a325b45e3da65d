// SPDX-License-Identifier: MPL-2.0
//! Owner, cloud and third party with keys in files and a contract between them.
#![allow(dead_code)]

use gstcamvault::client::Ttp;
use gstcamvault::client::ttp::Agreed;
use gstcamvault::homomorphic::packed::{CertifiedKey, SecretKey, write_secret_key};
use gstcamvault::identity::Identity;
use gstcamvault::protocol::{Contract, Signed};
use gstcamvault::watermark::Settings;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub struct Parties {
    pub dir: tempfile::TempDir,
    pub url: String,
    pub owner: Ttp,
    pub cloud: Ttp,
    pub secret: SecretKey,
    pub agreed: Agreed,
}

impl Parties {
    /// Registers at the third party at `url` and makes a contract with tickets of `ticket_ms`.
    /// Keys have 2048 bits.
    pub async fn at(url: &str, ticket_ms: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let party = |name: &str| {
            let identity = Identity::generate().unwrap();
            identity.save_new(&dir.path().join(name)).unwrap();
            Ttp::connect(url, Arc::new(identity)).unwrap()
        };
        let (owner, cloud) = (party("owner.id"), party("cloud.id"));
        let secret = SecretKey::generate(2048).unwrap();
        write_secret_key(&dir.path().join("cloud.paillier"), &secret).unwrap();
        let sign = cloud.identity().public().sign;
        let proof = CertifiedKey::prove(&secret, &sign).unwrap();
        owner.register(None, None).await.unwrap();
        cloud.register(Some(&proof), None).await.unwrap();
        let (bytes, _) = owner.cloud_key(&sign).await.unwrap();
        let contract = Contract {
            version: 1,
            owner: owner.identity().public().into(),
            cloud: cloud.identity().public().into(),
            ttp: owner.info().await.unwrap().identity,
            cloud_key: <[u8; 32]>::from(Sha256::digest(&bytes)).into(),
            base_seed: [7; 32].into(),
            step: 100,
            classes: Settings::default().classes_text(),
            density: 0,
            threshold: 30,
            ticket_ms,
            created_ms: 1_700_000_000_000,
            name: Vec::new().into(),
        };
        let signed = Signed::new(&contract)
            .sign::<Contract>(owner.identity())
            .sign::<Contract>(cloud.identity());
        let agreed = owner.contract(signed).await.unwrap();
        let text = agreed.signed.to_text::<Contract>();
        std::fs::write(dir.path().join("camera.contract"), text).unwrap();
        Self {
            dir,
            url: url.to_owned(),
            owner,
            cloud,
            secret,
            agreed,
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `dmqimmark` of the owner.
    pub fn mark(&self) -> String {
        let [contract, identity] = ["camera.contract", "owner.id"].map(|name| self.file(name));
        let (contract, identity) = (contract.display(), identity.display());
        let url = &self.url;
        format!("dmqimmark ttp={url} contract={contract} identity={identity}")
    }

    /// `dmqimopen` of the cloud.
    pub fn open(&self) -> String {
        let files = ["cloud.paillier", "cloud.id", "camera.contract"].map(|name| self.file(name));
        let [key, identity, contract] = files.each_ref().map(|file| file.display());
        format!("dmqimopen key-file={key} identity={identity} contracts={contract}")
    }
}

/// A third party on a free port of 127.0.0.1.
pub async fn third_party(data: &Path) -> gstcamvault::server::Server {
    use gstcamvault::server::{Config, Role, Server};
    let mut config = Config::new(data);
    config.listen.set_port(0);
    config.roles = vec![Role::Ttp];
    Server::start(config).await.unwrap()
}
