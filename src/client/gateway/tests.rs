// SPDX-License-Identifier: MPL-2.0
use super::*;
use crate::protocol::{ChromaKind, Mode, Video, write_blob_frame};
use axum::Router;
use axum::extract::Request;
use std::sync::Mutex;

/// Answers every request with the bytes that it holds, and keeps method and path.
#[derive(Default)]
struct Fake {
    answer: Mutex<Vec<u8>>,
    asked: Mutex<Vec<String>>,
}

impl Fake {
    fn serve() -> (Arc<Self>, Gateway) {
        let (fake, runtime) = (Arc::new(Self::default()), crate::client::runtime().unwrap());
        let bind = tokio::net::TcpListener::bind("127.0.0.1:0");
        let listener = runtime.block_on(bind).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let here = fake.clone();
        let app = Router::new().fallback(move |request: Request| {
            let line = format!("{} {}", request.method(), request.uri());
            here.asked.lock().unwrap().push(line);
            let answer = here.answer.lock().unwrap().clone();
            async move { answer }
        });
        runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let identity = Arc::new(Identity::from_secret([1; 32]).unwrap());
        (fake, Gateway::connect(&url, identity).unwrap())
    }

    fn says(&self, answer: Vec<u8>) -> &Self {
        *self.answer.lock().unwrap() = answer;
        self
    }
}

fn wait<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    crate::client::runtime().unwrap().block_on(future)
}

fn parts(parts: &[Vec<u8>]) -> Vec<u8> {
    let framed = |part: &Vec<u8>| [&write_blob_frame(Some(part.len() as u32))[..], part].concat();
    parts.iter().flat_map(framed).collect()
}

fn contract() -> Contract {
    let [owner, cloud, ttp] = [1, 2, 3].map(|n| Identity::from_secret([n; 32]).unwrap());
    Contract::new(
        owner.public(),
        cloud.public(),
        ttp.public(),
        [0; 32],
        [0; 32],
    )
}

fn signed(contract: &Contract, by: &[u8]) -> Signed {
    by.iter().fold(Signed::new(contract), |signed, &n| {
        signed.sign::<Contract>(&Identity::from_secret([n; 32]).unwrap())
    })
}

#[test]
fn a_contract_comes_back_the_same_and_signed() {
    let (fake, gateway) = Fake::serve();
    let owned = signed(&contract(), &[1]);
    let answer = |contract: Signed| encode(&GatewayContract { contract });
    fake.says(answer(signed(&contract(), &[1, 2])));
    assert!(wait(gateway.contract(owned.clone())).is_ok());
    let other = Contract {
        step: 96,
        ..contract()
    };
    for wrong in [
        answer(owned.clone()),
        answer(signed(&contract(), &[1, 3])),
        answer(signed(&other, &[1, 2])),
        vec![0xff; 100],
    ] {
        fake.says(wrong);
        wait(gateway.contract(owned.clone())).unwrap_err();
    }
}

#[test]
fn archives_have_names_that_can_stand_in_a_path() {
    let (fake, gateway) = Fake::serve();
    let archive = |name: &str, started_ms| Archive {
        name: name.into(),
        started_ms,
        live: false,
    };
    let archives = vec![archive("b", 2), archive("a-1_.mkv", 1)];
    fake.says(encode(&Archives { archives }));
    let found = wait(gateway.archives(&[5; 32])).unwrap();
    let names: Vec<&str> = found.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ["a-1_.mkv", "b"]);
    for name in ["", "../a", ".a", "a b", "a/b", "ä", &"a".repeat(129)] {
        let archives = vec![archive(name, 1)];
        fake.says(encode(&Archives { archives }));
        wait(gateway.archives(&[5; 32])).unwrap_err();
        let asked = wait(gateway.remainders(&[5; 32], name));
        assert!(matches!(asked, Err(Error::NoArchive(_))), "{name}");
    }
    fake.says(Vec::new());
    wait(gateway.forget(&[5; 32])).unwrap();
    let id = "05".repeat(32);
    let last = fake.asked.lock().unwrap().pop();
    assert_eq!(last, Some(format!("DELETE /v1/gateway/contracts/{id}")));
}

#[test]
fn remainders_come_one_by_one_and_never_longer_than_they_may_be() {
    let (fake, gateway) = Fake::serve();
    let remainder = |n: u64| StoredRemainder {
        pts: n,
        remainder: vec![n as u8; 10_000 * n as usize].into(),
    };
    let all: Vec<Vec<u8>> = (0..20).map(|n| encode(&remainder(n))).collect();
    fake.says(parts(&all));
    let mut stream = wait(gateway.remainders(&[5; 32], "a")).unwrap();
    for n in 0..20 {
        let next = wait(stream.next()).unwrap().unwrap();
        assert_eq!((next.pts, next.remainder.len()), (n, 10_000 * n as usize));
    }
    assert!(wait(stream.next()).unwrap().is_none());
    let asked = fake.asked.lock().unwrap().pop().unwrap();
    assert!(asked.starts_with("GET ") && asked.ends_with("/archives/a"));
    let mut cut = parts(&all[1..2]);
    cut.pop();
    for wrong in [
        cut,
        vec![0, 0],
        write_blob_frame(None).to_vec(),
        write_blob_frame(Some(MAX_REMAINDER_BYTES + 1)).to_vec(),
        parts(&[vec![0xff; 9]]),
    ] {
        fake.says(wrong);
        let mut stream = wait(gateway.remainders(&[5; 32], "a")).unwrap();
        assert!(matches!(wait(stream.next()), Err(Error::Answer { .. })));
    }
}

#[test]
fn retrieved_frames_are_those_that_were_asked_for() {
    let (fake, gateway) = Fake::serve();
    let agreed = Agreed::check(signed(&contract(), &[1, 2, 3])).unwrap();
    let owner = Identity::from_secret([1; 32]).unwrap();
    let key = AeadKey::new([6; 32]);
    let head = |contract: [u8; 32], sealed: &[u8]| {
        encode(&RetrievedHead {
            key: owner.public().seal(RETRIEVED_INFO, sealed).unwrap().into(),
            video: Video {
                width: 8,
                height: 8,
                chroma: ChromaKind::None,
                rate: (25, 1),
            },
            mode: Mode::Oblivious,
            contract: contract.into(),
        })
    };
    let frame = |number: u64, pts: u64| {
        let frame = RetrievedFrame {
            pts,
            rest: vec![1].into(),
            sums: vec![2; 4].into(),
        };
        key.seal(&number.to_be_bytes(), &encode(&frame)).unwrap()
    };
    let good = head(agreed.id, key.expose());
    let request = GatewayRetrieval {
        masks: vec![1, 2, 3].into(),
        pts: vec![40, 80],
    };
    let ask = || -> Result<Vec<u64>, Error> {
        let mut frames = wait(gateway.retrieve(&agreed, "a", &request))?;
        assert_eq!(frames.head().video.width, 8);
        let mut times = Vec::new();
        while let Some(frame) = wait(frames.next())? {
            times.push(frame.pts);
        }
        Ok(times)
    };
    fake.says(parts(&[good.clone(), frame(0, 40), frame(1, 80)]));
    assert_eq!(ask().unwrap(), [40, 80]);
    let mut changed = frame(0, 40);
    changed[20] ^= 1;
    for wrong in [
        vec![],
        vec![head([0; 32], key.expose())],
        vec![head(agreed.id, &[6; 31]), frame(0, 40), frame(1, 80)],
        vec![head(agreed.id, &[7; 32]), frame(0, 40), frame(1, 80)],
        vec![good.clone(), frame(0, 40)],
        vec![good.clone(), frame(0, 40), frame(1, 80), frame(2, 120)],
        vec![good.clone(), frame(1, 80), frame(0, 40)],
        vec![good.clone(), frame(0, 41), frame(1, 80)],
        vec![good.clone(), changed, frame(1, 80)],
    ] {
        fake.says(parts(&wrong));
        ask().unwrap_err();
    }
}
