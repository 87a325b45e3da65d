// SPDX-License-Identifier: MPL-2.0
use super::*;
use crate::store::{Directory, Room, conformance, copy_blobs};

#[path = "../../../tests/common/s3.rs"]
mod service;

use service::Service;

fn settings() -> AmazonS3Builder {
    service::VARIABLES
        .iter()
        .fold(AmazonS3Builder::new(), |builder, (name, value)| {
            let key = name.to_ascii_lowercase().parse().unwrap();
            builder.with_config(key, *value)
        })
}

fn bucket(text: &str, endpoint: String) -> Bucket {
    Bucket {
        endpoint: Some(endpoint),
        ..text.parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let service = Service::start();
    for prefix in ["", "some/where"] {
        let at = bucket(&format!("s3://vault/{prefix}"), service.url());
        let store = S3::open_as(settings(), at).await.unwrap();
        let harm = |d1: &Hash| {
            let (status, _) = service.request("PUT", &service.blob(prefix, d1), b"garbage");
            assert_eq!(status, 200);
        };
        conformance::blobs(&store, harm).await;
        let dir = tempfile::tempdir().unwrap();
        let back = Directory::open(dir.path(), Room::new(dir.path(), 0)).unwrap();
        let copied = copy_blobs(&store, &back).await.unwrap();
        assert_eq!((copied.blobs, copied.damaged), (19, vec![]));
        let copied = copy_blobs(&back, &store).await.unwrap();
        assert_eq!((copied.blobs, copied.there), (0, 19));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_go_and_what_is_foreign_stays() {
    let service = Service::start();
    let at = bucket("s3://vault/p", service.url());
    let store = S3::open_as(settings(), at).await.unwrap();
    for path in ["/vault/p/probe/00", "/vault/p/00/foreign", "/vault/other"] {
        assert_eq!(service.request("PUT", path, b"x").0, 200);
    }
    assert_eq!(store.clean(3_600_000).await.unwrap(), 0);
    assert_eq!(store.clean(0).await.unwrap(), 1);
    assert_eq!(store.list(0).await.unwrap(), []);
    for (path, status) in [("/vault/p/00/foreign", 200), ("/vault/other", 200)] {
        assert_eq!(service.request("GET", path, b"").0, status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_goes_away_is_no_missing_blob() {
    let service = Service::start();
    let at = bucket("s3://vault", service.url());
    let store = S3::open_as(settings(), at).await.unwrap();
    assert_eq!(store.get(&[1; 32]).await.unwrap(), None);
    assert_eq!(service.request("DELETE", "/vault", b"").0, 204);
    for said in [
        store.get(&[1; 32]).await.unwrap_err().to_string(),
        store.check(&[[1; 32]]).await.unwrap_err().to_string(),
        store.ready().await.unwrap_err().to_string(),
        store.delete(&[[1; 32]]).await.unwrap_err().to_string(),
        store
            .put(vec![conformance::blob(b"x")])
            .await
            .unwrap_err()
            .to_string(),
    ] {
        assert_eq!(
            said,
            "s3://vault: there is no bucket vault: make it, or correct --blobs"
        );
    }
}

#[tokio::test]
async fn what_is_wrong_at_the_start_is_said_without_secrets() {
    let service = Service::start();
    let refuses = async |text: &str, endpoint: String, settings: AmazonS3Builder| {
        let opened = S3::open_as(settings, bucket(text, endpoint)).await;
        let said = opened.unwrap_err().to_string();
        assert!(!said.contains("a secret of the tests"), "{said}");
        said
    };
    let said = refuses("s3://nowhere", service.url(), settings()).await;
    assert!(said.contains("there is no bucket nowhere"), "{said}");
    let said = refuses("s3://vault", "127.0.0.1:9".into(), settings()).await;
    assert!(said.contains("is no http:// or https:// URL"), "{said}");
    let nobody = "http://127.0.0.1:9".to_owned();
    let said = refuses("s3://vault", nobody.clone(), settings()).await;
    assert!(
        said.contains("cannot be reached (Connection refused"),
        "{said}"
    );
    let without = AmazonS3Builder::new().with_config(AmazonS3ConfigKey::MetadataEndpoint, &nobody);
    let said = refuses("s3://vault", service.url(), without).await;
    assert!(said.contains("set AWS_ACCESS_KEY_ID"), "{said}");
}

/// Answers of services, each to the request that opens a bucket.
#[tokio::test]
async fn refusals_are_explained() {
    for (status, code, wanted) in [
        (403, "SignatureDoesNotMatch", "check AWS_ACCESS_KEY_ID"),
        (403, "InvalidAccessKeyId", "check AWS_ACCESS_KEY_ID"),
        (403, "RequestTimeTooSkewed", "more than 15 minutes"),
        (403, "AccessDenied", "need s3:ListBucket"),
        (400, "AuthorizationHeaderMalformed", "set AWS_REGION"),
        (403, "QuotaExceeded", "no room left"),
        (400, "SomethingElse", "(SomethingElse)"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let body =
            format!("<Error><Code>{code}</Code><StringToSign>the token</StringToSign></Error>");
        let answer = move || async move {
            let status = axum::http::StatusCode::from_u16(status).unwrap();
            (status, body)
        };
        let service = axum::Router::new().fallback(answer);
        let serving = tokio::spawn(async move { axum::serve(listener, service).await });
        let opened = S3::open_as(settings(), bucket("s3://vault", endpoint)).await;
        let said = opened.unwrap_err().to_string();
        assert!(said.contains(wanted) && !said.contains("token"), "{said}");
        serving.abort();
    }
}

#[test]
fn names() {
    for (text, prefix) in [("s3://b", ""), ("s3://b/", ""), ("s3://b/x/y/", "x/y")] {
        let bucket: Bucket = text.parse().unwrap();
        assert_eq!((&bucket.name[..], &bucket.prefix[..]), ("b", prefix));
    }
    for text in [
        "s3:b",
        "s3://",
        "s3:///x",
        "s3://b/x//y",
        "s3://b/..",
        "s3://b?x",
        "http://b",
    ] {
        assert!(text.parse::<Bucket>().is_err(), "{text}");
    }
}
