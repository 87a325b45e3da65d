// SPDX-License-Identifier: MPL-2.0
//! Asking again: after which pauses, and for how long. (Recorders, whose footage comes all the
//! time, have a [link](super::recorder) instead, which never ends.)

use super::Error;
use std::time::Duration;
use tokio::time::Instant;

/// How long a request is made again for somebody who waits for the answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// First pause before another try.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause if somebody waits, unless the server asks for a longer one, …
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// … and if nobody does.
const LONGEST_PAUSE_UNWATCHED: Duration = Duration::from_secs(30);

/// Makes a request again, after growing pauses, while it fails for a reason that `may_pass`, until
/// `patience` is used up. Dropping the future ends it at once.
pub(super) async fn patiently<T, F: Future<Output = Result<T, Error>>>(
    patience: Duration,
    may_pass: impl Fn(&Error) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Error> {
    let began = Instant::now();
    let longest = (patience / 10).clamp(LONGEST_PAUSE, LONGEST_PAUSE_UNWATCHED);
    let mut pause = FIRST_PAUSE;
    let mut tries = 1u32;
    loop {
        let error = match attempt().await {
            Err(error) if may_pass(&error) => error,
            done => return done,
        };
        let wait = error.retry_after() + jitter(pause);
        let spent = began.elapsed();
        if spent + wait > patience {
            return Err(given_up(error, tries, spent));
        }
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(longest);
        tries += 1;
    }
}

/// Makes a request again while the server is too busy for it, for somebody who waits.
pub(super) async fn while_busy<T, F: Future<Output = Result<T, Error>>>(
    attempt: impl FnMut() -> F,
) -> Result<T, Error> {
    patiently(PATIENCE, Error::is_busy, attempt).await
}

/// Makes a request again, without end, while it fails for a reason that may pass: for what nobody
/// waits for and must arrive.
pub(crate) async fn until_it_arrives<T, F: Future<Output = Result<T, Error>>>(
    attempt: impl FnMut() -> F,
) -> Result<T, Error> {
    patiently(Duration::MAX, Error::is_transient, attempt).await
}

/// Between half and the whole of a pause, so that those who failed together do not come back
/// together.
pub(super) fn jitter(pause: Duration) -> Duration {
    let mut random = [0u8; 2];
    // Without random numbers there is no jitter.
    let _ = getrandom::fill(&mut random);
    pause.mul_f64(0.5 + f64::from(u16::from_be_bytes(random)) / 131_072.0)
}

/// The refusal, with what was done about it.
fn given_up(mut error: Error, tries: u32, spent: Duration) -> Error {
    if let Error::Refused { message, .. } = &mut error {
        let times = if tries == 1 {
            "once"
        } else {
            &format!("{tries} times")
        };
        message.push_str(&format!(
            " (asked {times} in {} s: try again later)",
            spent.as_secs()
        ));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::gateway::Gateway;
    use crate::client::vault::Operator;
    use crate::client::{Ttp, Vault};
    use crate::identity::Identity;
    use crate::protocol::{Code, Jobs, Problem, encode};
    use axum::Router;
    use axum::http::{StatusCode, header};
    use axum::response::{IntoResponse as _, Response};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A server that is busy `times` times before it gives its answer.
    struct Busy {
        url: String,
        asked: Arc<AtomicUsize>,
    }

    impl Busy {
        async fn start(
            times: usize,
            retry_after: &'static str,
            then: (StatusCode, Vec<u8>),
        ) -> Self {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let asked = Arc::new(AtomicUsize::new(0));
            let count = asked.clone();
            let answer = move || -> Response {
                match count.fetch_add(1, Ordering::Relaxed) < times {
                    true => {
                        let status = StatusCode::SERVICE_UNAVAILABLE;
                        let body = problem(Code::Busy, "too many requests at once");
                        (status, [(header::RETRY_AFTER, retry_after)], body).into_response()
                    }
                    false => then.clone().into_response(),
                }
            };
            let app = Router::new().fallback(async move || answer());
            tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
            Self { url, asked }
        }

        fn vault(&self) -> Vault {
            let identity = Arc::new(Identity::generate().unwrap());
            Vault::connect(&self.url, identity).unwrap()
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    fn problem(code: Code, message: &str) -> Vec<u8> {
        encode(&Problem {
            code,
            message: message.into(),
            time_ms: None,
        })
    }

    fn done() -> (StatusCode, Vec<u8>) {
        (StatusCode::NO_CONTENT, Vec::new())
    }

    #[tokio::test]
    async fn a_busy_server_is_asked_again_when_it_says() {
        let server = Busy::start(2, "1", done()).await;
        let began = Instant::now();
        server.vault().hold(&[1; 16], true).await.unwrap();
        assert_eq!(server.asked(), 3);
        assert!(began.elapsed() >= Duration::from_secs(2));

        let jobs = Jobs {
            jobs: vec![],
            time_ms: 7,
        };
        let server = Busy::start(2, "0", (StatusCode::OK, encode(&jobs))).await;
        let operator = Operator::connect(&server.url, None).unwrap();
        assert_eq!(operator.jobs().await.unwrap().time_ms, 7);
        assert_eq!(server.asked(), 3);
    }

    #[tokio::test]
    async fn a_third_party_and_a_gateway_may_be_busy_too() {
        let identity = || Arc::new(Identity::generate().unwrap());
        let server = Busy::start(2, "0", done()).await;
        let ttp = Ttp::connect(&server.url, identity()).unwrap();
        ttp.register(None, None).await.unwrap();
        assert_eq!(server.asked(), 3);
        let server = Busy::start(2, "0", done()).await;
        let gateway = Gateway::connect(&server.url, identity()).unwrap();
        gateway.forget(&[1; 32]).await.unwrap();
        assert_eq!(server.asked(), 3);
    }

    #[tokio::test]
    async fn what_must_arrive_is_sent_until_it_does_or_is_refused() {
        let away = || Error::Network {
            vault: "it".into(),
            reason: "connection refused".into(),
        };
        let mut tries = 0u32;
        let arrived = until_it_arrives(|| {
            tries += 1;
            std::future::ready(if tries < 4 { Err(away()) } else { Ok(tries) })
        });
        assert_eq!(arrived.await.unwrap(), 4);
        let refused = until_it_arrives(|| std::future::ready(Err::<(), _>(Error::Cancelled)));
        assert!(matches!(refused.await, Err(Error::Cancelled)));
    }

    #[tokio::test]
    async fn it_is_not_waited_for_without_end() {
        let server = Busy::start(usize::MAX, "60", done()).await;
        let began = Instant::now();
        let error = server.vault().hold(&[1; 16], true).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(5));
        assert!(error.is_busy());
        let words = error.to_string();
        assert!(
            words.contains("too many requests at once (asked once"),
            "{words}"
        );

        let began = Instant::now();
        let mut tries = 0u32;
        let refused = patiently(Duration::from_secs(1), Error::is_busy, || {
            tries += 1;
            std::future::ready(Err::<(), _>(Error::Refused {
                vault: "it".into(),
                what: "GET /".into(),
                code: Code::Busy,
                message: "busy".into(),
                retry_after: None,
            }))
        });
        let words = refused.await.unwrap_err().to_string();
        assert!(began.elapsed() <= Duration::from_secs(1));
        assert!((3..=6).contains(&tries), "{tries}");
        assert!(words.contains(&format!("asked {tries} times")), "{words}");
    }

    #[tokio::test]
    async fn a_deletion_that_a_busy_server_has_done_is_done() {
        let gone = || {
            (
                StatusCode::NOT_FOUND,
                problem(Code::NotFound, "no such recording"),
            )
        };
        let server = Busy::start(1, "0", gone()).await;
        server.vault().forget(&[1; 16]).await.unwrap();
        assert_eq!(server.asked(), 2);
        let server = Busy::start(0, "0", gone()).await;
        let refused = server.vault().forget(&[1; 16]).await.unwrap_err();
        assert!(matches!(
            refused,
            Error::Refused {
                code: Code::NotFound,
                ..
            }
        ));
    }

    #[tokio::test]
    async fn who_has_a_way_of_asking_again_is_told_at_once() {
        let server = Busy::start(usize::MAX, "1", done()).await;
        let error = server.vault().lookup(vec![]).await.unwrap_err();
        assert!(error.is_busy());
        assert_eq!(error.retry_after(), Duration::from_secs(1));
        assert_eq!(server.asked(), 1);
    }
}
