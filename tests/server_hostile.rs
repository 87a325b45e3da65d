// SPDX-License-Identifier: MPL-2.0
//! Lying, forging, repeating, oversized, malformed and slow requests.

mod common;

use common::*;
use gstcamvault::protocol::signature::content_digest;
use gstcamvault::protocol::*;
use std::io::{Read as _, Write as _};
use std::time::Duration;

#[tokio::test]
async fn a_request_counts_once_and_only_as_it_was_signed() {
    let vault = vault().await;
    let (a, b) = (vault.owner().await, vault.owner().await);
    let lookup = || encode(&Lookup { chunks: vec![] });
    let prepare = || a.prepare(&a.base, "POST", "/v1/lookup", lookup(), None);
    let code = |answer: Answer<_>| answer.unwrap_err().code;

    let request = prepare();
    assert!(a.send(&a.base, &request).await.is_ok());
    assert_eq!(code(a.send(&a.base, &request).await), Code::Replay);

    let mut request = prepare();
    request.path = "/v1/register".into();
    assert_eq!(code(a.send(&a.base, &request).await), Code::Signature);
    let mut request = prepare();
    request.query = "a=b".into();
    assert_eq!(code(a.send(&a.base, &request).await), Code::Signature);
    // Another body, with the old digest and with its own.
    let mut request = prepare();
    request.body = encode(&Lookup {
        chunks: vec![sealed(b"x").wanted()],
    });
    assert_eq!(code(a.send(&a.base, &request).await), Code::Signature);
    let mut request = prepare();
    request.body = vec![0xa0];
    request.headers[0].1 = content_digest(&request.body);
    assert_eq!(code(a.send(&a.base, &request).await), Code::Signature);
    // Another's signature.
    let mut request = prepare();
    request.headers[2] = b
        .prepare(&b.base, "POST", "/v1/lookup", lookup(), None)
        .headers
        .remove(2);
    assert_eq!(code(a.send(&a.base, &request).await), Code::Signature);
    let mut request = prepare();
    request.headers.truncate(1);
    assert_eq!(code(a.send(&a.base, &request).await), Code::Signature);
    let mut request = prepare();
    let twice = request.headers[1].clone();
    request.headers.push(twice);
    assert_eq!(code(a.send(&a.base, &request).await), Code::Signature);
    // Another server.
    let request = a.prepare("http://elsewhere:1", "POST", "/v1/lookup", lookup(), None);
    assert_eq!(code(a.send(&a.base, &request).await), Code::Signature);

    let mut late = Client::new(&a.base);
    for skew in [-400, 400] {
        late.skew = skew;
        let refused = late.enroll(None).await.unwrap_err();
        assert_eq!(refused.code, Code::Clock);
        assert!(refused.time_ms.unwrap().abs_diff(now_s() * 1000) < 5000);
    }
    let stranger = Client::new(&a.base);
    assert_eq!(
        stranger.lookup(vec![]).await.unwrap_err().code,
        Code::NotEnrolled
    );
}

#[tokio::test]
async fn nothing_sent_before_a_restart_counts_after_it() {
    let mut vault = vault().await;
    let a = vault.owner().await;
    let path = "/v1/lookup";
    let request = a.prepare(
        &a.base,
        "POST",
        path,
        encode(&Lookup { chunks: vec![] }),
        None,
    );
    assert!(a.send(&a.base, &request).await.is_ok());
    let address = vault.server.address();
    vault.server.shutdown().await;
    let mut config = config(vault.dir.path());
    config.listen = address;
    vault.server = gstcamvault::server::Server::start(config).await.unwrap();
    let refused = a.send(&a.base, &request).await.unwrap_err();
    assert_eq!(refused.code, Code::Clock);
    assert!(a.lookup(vec![]).await.is_ok());
}

#[tokio::test]
async fn garbage_under_a_right_record_is_refused() {
    let vault = vault().await;
    let a = vault.owner().await;
    let mut chunk = sealed(&bytes("honest", 3000));
    let token = a.lookup(vec![chunk.wanted()]).await.unwrap().put_token;
    chunk.c1[7] ^= 1;
    let refused = a
        .put(&token, std::slice::from_ref(&chunk))
        .await
        .unwrap_err();
    assert_eq!(refused.code, Code::Malformed);
    assert_eq!(
        std::fs::read_dir(vault.dir.path().join("tmp"))
            .unwrap()
            .count(),
        0
    );
    // Named by its own hash it is stored, under a record that is otherwise right.
    chunk.record.d1 = *blake3::hash(&chunk.c1).as_bytes();
    assert_eq!(
        a.upload(std::slice::from_ref(&chunk)).await.unwrap(),
        [Outcome::Added]
    );
    // The next owner notices, refuses it and adds its own; the liar's stays as it was.
    let b = vault.owner().await;
    let reference = b.store(&chunk.chunk).await.unwrap();
    assert_ne!(*reference.d1, chunk.record.d1);
    assert!(b.fetches(&chunk.chunk, &reference).await);
    // Later ones join the right one.
    let c = vault.owner().await;
    assert_eq!(c.store(&chunk.chunk).await.unwrap(), reference);
    assert_eq!(c.stats().await.variants, 2);
}

#[tokio::test]
async fn a_liar_cannot_replace_a_good_variant() {
    let vault = vault().await;
    let (a, liar) = (vault.owner().await, vault.owner().await);
    let chunk = bytes("good", 3000);
    let good = a.store(&chunk).await.unwrap();
    let upload = |seal: Sealed, refused: Vec<B32>| {
        let liar = &liar;
        async move {
            let token = liar.lookup(vec![seal.wanted()]).await.unwrap().put_token;
            let receipt = liar
                .put(&token, std::slice::from_ref(&seal))
                .await
                .unwrap()
                .remove(0);
            let mut registration = seal.registration(Some(receipt));
            registration.refused = refused;
            liar.register(vec![registration]).await.unwrap().remove(0)
        }
    };
    let mut lie = sealed(&chunk);
    lie.record.c3 = [0; 32];
    assert!(matches!(upload(lie.clone(), vec![]).await, Outcome::Unseen(v) if v[0].d1 == good.d1));
    assert_eq!(upload(lie.clone(), vec![good.d1]).await, Outcome::Added);
    // Only one of its own per chunk.
    let another = sealed(&chunk);
    let mut all = vec![good.d1, lie.record.d1.into()];
    assert_eq!(
        upload(another.clone(), all.clone()).await,
        Outcome::SecondVariant
    );
    all.pop();
    assert!(matches!(upload(another, all).await, Outcome::Unseen(_)));
    assert!(a.fetches(&chunk, &good).await);
    assert_eq!(vault.owner().await.store(&chunk).await.unwrap(), good);
    // The name of another's blob does not take it over, whatever the rest says.
    let mut steal = join(
        &chunk,
        &liar
            .lookup(vec![sealed(&chunk).wanted()])
            .await
            .unwrap()
            .chunks[0]
            .variants[0],
    );
    steal.c3 = [1; 32].into();
    assert_eq!(liar.register(vec![steal]).await.unwrap(), [Outcome::NoBlob]);
    assert!(!liar.fetches(&chunk, &good).await);
}

#[tokio::test]
async fn a_tag_alone_gets_nobody_in_and_a_full_tag_keeps_nobody_out() {
    let vault = vault().await;
    let chunk = bytes("popular", 2000);
    let tag = sealed(&chunk).tag;
    for i in 0..20 {
        let other = vault.owner().await;
        let mut fake = sealed(&bytes(&format!("fake {i}"), 2000));
        fake.tag = tag;
        let token = other.lookup(vec![fake.wanted()]).await.unwrap().put_token;
        let receipt = other
            .put(&token, std::slice::from_ref(&fake))
            .await
            .unwrap()
            .remove(0);
        let mut registration = fake.registration(Some(receipt));
        let outcome = loop {
            match other
                .register(vec![registration.clone()])
                .await
                .unwrap()
                .remove(0)
            {
                Outcome::Unseen(more) => registration.refused.extend(more.iter().map(|v| v.d1)),
                outcome => break outcome,
            }
        };
        assert_eq!(outcome, Outcome::Added);
    }
    let a = vault.owner().await;
    let mine = a.record("cam", &[&chunk]).await.unwrap();
    assert!(a.fetches(&chunk, &mine[0]).await);
    // It finds its own again.
    assert_eq!(a.store(&chunk).await.unwrap(), mine[0]);
    assert_eq!(a.stats().await.variants, 21);
    // Without the chunk there is no C3.
    let found = a.lookup(vec![sealed(&chunk).wanted()]).await.unwrap();
    assert_eq!(found.chunks[0].variants.len(), MAX_VARIANTS);
    let thief = vault.owner().await;
    for c3 in [[0; 32], *found.chunks[0].variants[0].c3_check] {
        let mut guess = join(&chunk, &found.chunks[0].variants[0]);
        guess.c3 = c3.into();
        assert_eq!(
            thief.register(vec![guess]).await.unwrap(),
            [Outcome::NoBlob]
        );
    }
}

#[tokio::test]
async fn another_blob_is_not_destroyed_through_a_second_tag() {
    let vault = vault().await;
    let (a, mallory) = (vault.owner().await, vault.owner().await);
    let mut chunk = sealed(&bytes("victim", 2000));
    assert_eq!(
        a.upload(std::slice::from_ref(&chunk)).await.unwrap(),
        [Outcome::Added]
    );
    let reference = chunk.reference();
    // The same bytes under a tag of its own, forgotten again.
    chunk.tag = [5; 32];
    assert_eq!(
        mallory.upload(std::slice::from_ref(&chunk)).await.unwrap(),
        [Outcome::Added]
    );
    let commit = commit_of(vec![chunk.reference()], "m");
    assert_eq!(
        mallory.commit("m", 0, &commit).await.unwrap(),
        Committed::Done
    );
    mallory.forget("m").await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(a.fetches(&chunk.chunk, &reference).await);
}

#[tokio::test]
async fn tokens_receipts_and_capabilities_are_personal_and_end() {
    let vault = vault().await;
    let (a, b) = (vault.owner().await, vault.owner().await);
    let chunk = bytes("secret", 2000);
    let refs = a.record("cam", &[&chunk]).await.unwrap();
    let opened = a.open(refs.clone()).await.unwrap();
    let ask = |expires| GetBlobs {
        expires,
        blobs: vec![GetBlob {
            d1: refs[0].d1,
            capability: opened.chunks[0].as_ref().unwrap().capability,
        }],
    };
    assert!(a.get(&ask(opened.expires)).await.unwrap()[0].is_some());
    assert_eq!(
        b.get(&ask(opened.expires)).await.unwrap_err().code,
        Code::Capability
    );
    for expires in [opened.expires + 1, now_s() - 1] {
        assert_eq!(
            a.get(&ask(expires)).await.unwrap_err().code,
            Code::Capability
        );
    }
    let mut other = sealed(&bytes("other", 100));
    let token = a.lookup(vec![other.wanted()]).await.unwrap().put_token;
    let refused = b
        .put(&token, std::slice::from_ref(&other))
        .await
        .unwrap_err();
    assert_eq!(refused.code, Code::Capability);
    let big = sealed(&bytes("big", 300_000));
    assert_eq!(
        a.put(&token, &[big]).await.unwrap_err().code,
        Code::Capability
    );
    let receipt = a
        .put(&token, std::slice::from_ref(&other))
        .await
        .unwrap()
        .remove(0);
    // A receipt for another blob, or none.
    let wrong = sealed(&bytes("wrong", 100));
    let tries = [
        wrong.registration(Some(receipt.clone())),
        wrong.registration(None),
    ];
    for registration in tries {
        assert_eq!(
            a.register(vec![registration]).await.unwrap(),
            [Outcome::NoBlob]
        );
    }
    other.chunk.push(0);
    let longer = other.registration(Some(receipt));
    assert_eq!(a.register(vec![longer]).await.unwrap(), [Outcome::NoBlob]);
}

#[tokio::test]
async fn too_much_is_refused_before_it_is_read() {
    let vault = vault_with(|config| {
        config.limits = Limits {
            blob_bytes: 10_000,
            batch_bytes: 20_000,
            batch_items: 4,
            body_bytes: 30_000,
        };
        config.quota = Some(25_000);
    })
    .await;
    let a = vault.owner().await;
    let code = |answer: Answer<()>| answer.unwrap_err().code;
    let token = a.lookup(vec![]).await.unwrap().put_token;
    let many: Vec<_> = (0..5).map(|i| sealed(&bytes(&i.to_string(), 10))).collect();
    assert_eq!(code(a.put(&token, &many).await.map(drop)), Code::TooLarge);
    let three: Vec<_> = (0..3)
        .map(|i| sealed(&bytes(&i.to_string(), 9000)))
        .collect();
    assert_eq!(code(a.put(&token, &three).await.map(drop)), Code::TooLarge);
    let big = sealed(&bytes("big", 10_001));
    assert_eq!(
        code(a.put(&token, std::slice::from_ref(&big)).await.map(drop)),
        Code::TooLarge
    );
    assert_eq!(
        code(a.lookup(vec![big.wanted()]).await.map(drop)),
        Code::TooLarge
    );
    let wanted = many.iter().map(Sealed::wanted).collect();
    assert_eq!(code(a.lookup(wanted).await.map(drop)), Code::TooLarge);
    assert_eq!(
        code(a.raw("POST", "/v1/lookup", vec![0; 40_000]).await.map(drop)),
        Code::TooLarge
    );
    assert_eq!(
        code(a.raw("POST", "/v1/lookup", vec![0xff; 9]).await.map(drop)),
        Code::Malformed
    );
    assert_eq!(
        code(a.raw("GET", "/v1/recordings/xyz", vec![]).await.map(drop)),
        Code::Malformed
    );
    assert_eq!(
        code(a.raw("GET", "/v1/nothing", vec![]).await.map(drop)),
        Code::NotFound
    );

    a.record("cam", &[&bytes("a", 9000), &bytes("b", 9000)])
        .await
        .unwrap();
    assert_eq!(
        code(a.store(&bytes("c", 9000)).await.map(drop)),
        Code::Quota
    );
    a.forget("cam").await.unwrap();
    a.store(&bytes("c", 9000)).await.unwrap();
}

#[tokio::test]
async fn slow_requests_are_broken_off() {
    let vault = vault_with(|config| {
        config.pace.grace = Duration::from_millis(300);
        config.header_timeout = Duration::from_millis(500);
    })
    .await;
    let a = vault.owner().await;
    let out = a.prepare(&a.base, "POST", "/v1/lookup", vec![0; 1000], None);
    let mut request = format!(
        "POST /v1/lookup HTTP/1.1\r\nhost: {}\r\n",
        a.authority(&a.base)
    );
    for (name, value) in &out.headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += "content-length: 1000\r\n\r\n";
    let address = vault.server.address();
    let slow = move |start: String| {
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        socket.write_all(start.as_bytes()).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut answer = vec![];
        socket.read_to_end(&mut answer).unwrap();
        answer
    };
    let answer = tokio::task::spawn_blocking(move || slow(request))
        .await
        .unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 408"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let answer = tokio::task::spawn_blocking(move || slow("GET / HT".into()))
        .await
        .unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 2"));
}

#[tokio::test]
async fn a_busy_server_says_so() {
    let vault = vault_with(|config| {
        config.max_requests = 0;
    })
    .await;
    let mut a = Client::new(&vault.server.url());
    assert_eq!(a.enroll(None).await.unwrap_err().code, Code::Busy);
    let health = a
        .http
        .get(format!("{}/healthz", a.base))
        .send()
        .await
        .unwrap();
    assert!(health.status().is_success());
    let metrics = a
        .http
        .get(format!("{}/metrics", a.base))
        .send()
        .await
        .unwrap();
    let text = metrics.text().await.unwrap();
    assert!(text.contains(
        "camvault_requests_total{method=\"POST\",route=\"/v1/enroll\",status=\"503\"} 1"
    ));
}

#[tokio::test]
async fn off_loopback_enrolment_needs_the_token() {
    let vault = vault_with(|config| config.listen = "0.0.0.0:0".parse().unwrap()).await;
    let base = format!("http://127.0.0.1:{}", vault.server.address().port());
    let mut a = Client::new(&base);
    assert_eq!(a.enroll(None).await.unwrap_err().code, Code::NotEnrolled);
    assert_eq!(
        a.enroll(Some("guess".into())).await.unwrap_err().code,
        Code::NotEnrolled
    );
    let token = std::fs::read_to_string(vault.dir.path().join("secrets/enroll.token")).unwrap();
    assert_eq!(a.enroll(Some(token)).await.unwrap(), 0);
    assert_eq!(a.enroll(None).await.unwrap(), 0);
    let me: Enrolled = a.fetch("/v1/me").await.unwrap();
    assert_eq!(me.leaf, 0);
}
