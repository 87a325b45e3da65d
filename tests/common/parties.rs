// SPDX-License-Identifier: MPL-2.0
//! Owner, cloud and third party with keys in files and a contract between them.
#![allow(dead_code)]

use gstcamvault::client::Ttp;
use gstcamvault::client::ttp::Agreed;
use gstcamvault::homomorphic::packed::{SecretKey, write_secret_key};
use gstcamvault::identity::Identity;
use gstcamvault::protocol::{Contract, Party, Signed};
use gstcamvault::server::Gateway;
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;
use std::sync::Arc;

pub struct Parties {
    pub dir: tempfile::TempDir,
    pub url: String,
    pub owner: Ttp,
    pub agreed: Agreed,
}

impl Parties {
    /// Registers at the third party at `url` and makes a contract with tickets of `ticket_ms`.
    /// Keys have 2048 bits.
    pub async fn at(url: &str, ticket_ms: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (owner, cloud) = (party(&dir, "owner.id", url), party(&dir, "cloud.id", url));
        let secret = Arc::new(SecretKey::generate(2048).unwrap());
        write_secret_key(&dir.path().join("cloud.paillier"), &secret).unwrap();
        let proof = cloud.prove(secret).await.unwrap();
        cloud.register(Some(&proof), None).await.unwrap();
        let cloud = cloud.identity().clone();
        let sign = async |signed: Signed| signed.sign::<Contract>(&cloud);
        let party = (cloud.public().into(), 0);
        Self::agree(dir, url, owner, party, ticket_ms, sign).await
    }

    /// … with a gateway.
    pub async fn with(url: &str, gateway: &dyn Gateway, ticket_ms: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let owner = party(&dir, "owner.id", url);
        let caller = owner.identity().public().sign;
        let sign = async |signed: Signed| gateway.contract(caller, signed).await.unwrap();
        let info = gateway.info();
        let cloud = (info.identity, info.pixels);
        Self::agree(dir, url, owner, cloud, ticket_ms, sign).await
    }

    async fn agree(
        dir: tempfile::TempDir,
        url: &str,
        owner: Ttp,
        (cloud, pixels): (Party, u64),
        ticket_ms: u64,
        sign: impl AsyncFnOnce(Signed) -> Signed,
    ) -> Self {
        owner.register(None, None).await.unwrap();
        let (bytes, _) = owner.cloud_key(&cloud.sign).await.unwrap();
        let info = owner.info().await.unwrap();
        let contract = Contract {
            ticket_ms,
            created_ms: 1_700_000_000_000,
            audit: info.audit,
            pixels,
            ..Contract::new(
                owner.identity().public(),
                cloud,
                info.identity,
                Sha256::digest(&bytes).into(),
                [7; 32],
            )
        };
        let signed = Signed::new(&contract).sign::<Contract>(owner.identity());
        let agreed = owner.contract(sign(signed).await).await.unwrap();
        let text = agreed.signed.to_text::<Contract>();
        std::fs::write(dir.path().join("camera.contract"), text).unwrap();
        Self {
            dir,
            url: url.to_owned(),
            owner,
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

fn party(dir: &tempfile::TempDir, name: &str, url: &str) -> Ttp {
    let identity = Identity::generate().unwrap();
    identity.save_new(&dir.path().join(name)).unwrap();
    Ttp::connect(url, Arc::new(identity)).unwrap()
}
