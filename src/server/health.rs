// SPDX-License-Identifier: MPL-2.0
//! How the server is, for balancers, operators and Prometheus.

use super::app::App;
use super::config::Role;
use super::refusal::Refusal;
use super::upkeep::SCRUB;
use crate::protocol::{Code, Stats, VERSION};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{Html, IntoResponse};
use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Longest wait for an engine.
const WAIT: Duration = Duration::from_secs(5);

/// How an engine of a role is.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The role.
    pub role: &'static str,
    /// What does its work.
    pub engine: &'static str,
    /// Why it does not.
    pub trouble: Option<String>,
    took: Duration,
}

impl Finding {
    async fn of<E: Display>(
        role: Role,
        engine: &'static str,
        work: impl Future<Output = Result<(), E>>,
    ) -> Self {
        let began = Instant::now();
        let trouble = match tokio::time::timeout(WAIT, work).await {
            Ok(done) => done.err().map(|e| e.to_string()),
            Err(_) => Some(format!("does not answer within {} s", WAIT.as_secs())),
        };
        Self {
            role: role.name(),
            engine,
            trouble,
            took: began.elapsed(),
        }
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = self.trouble.as_deref().unwrap_or("ok");
        let ms = self.took.as_millis();
        write!(f, "{} {}: {how} ({ms} ms)", self.role, self.engine)
    }
}

/// How every engine is, and the totals, if this process has them.
type Found = (Vec<Finding>, Option<Stats>);

/// The last examination, and when it began. One is made at a time, however many ask: anybody may.
#[derive(Debug, Default)]
pub struct Last(Mutex<Option<(Instant, Found)>>);

/// Asks every engine; who came before somebody else's question was put shares the answer.
async fn examine(app: &App) -> Found {
    let came = Instant::now();
    let mut last = app.examined.0.lock().await;
    if let Some((began, found)) = &*last
        && *began >= came
    {
        return found.clone();
    }
    let began = Instant::now();
    let found = ask(app).await;
    *last = Some((began, found.clone()));
    found
}

async fn ask(app: &App) -> Found {
    let mut stats = None;
    let metadata = async {
        let Some(role) = &app.metadata else {
            return Vec::new();
        };
        let store = async {
            stats = Some(role.store.stats().await?);
            Ok::<_, crate::store::Error>(())
        };
        let store = Finding::of(Role::Metadata, role.engine, store);
        let upkeep = Finding::of(Role::Metadata, "blobs", role.upkeep.ready());
        <[_; 2]>::from(tokio::join!(store, upkeep)).into()
    };
    let storage = async {
        match &app.storage {
            None => Vec::new(),
            Some(role) => {
                vec![Finding::of(Role::Storage, role.engine, role.store.ready()).await]
            }
        }
    };
    let ttp = async {
        let Some(role) = &app.ttp else {
            return Vec::new();
        };
        // It reads what other processes have added, so that the next search has little to read.
        let registry = async { role.registry.registered().await.map(|_| ()) };
        vec![Finding::of(Role::Ttp, "registry", registry).await]
    };
    let gateway = async {
        let Some(gateway) = &app.config.gateway else {
            return Vec::new();
        };
        let vault = Finding::of(Role::Gateway, "vault", gateway.vault());
        let ttp = Finding::of(Role::Gateway, "third party", gateway.third_party());
        <[_; 2]>::from(tokio::join!(vault, ttp)).into()
    };
    let (metadata, storage, ttp, gateway) = tokio::join!(metadata, storage, ttp, gateway);
    let findings = [metadata, storage, ttp, gateway].concat();
    (findings, stats)
}

fn answer(good: bool, text: String) -> (StatusCode, String) {
    match good {
        true => (StatusCode::OK, text),
        false => (StatusCode::SERVICE_UNAVAILABLE, text),
    }
}

fn lines<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> String {
    findings.into_iter().map(|f| format!("{f}\n")).collect()
}

/// `GET /livez`: this process answers.
pub async fn live() -> &'static str {
    "ok\n"
}

/// `GET /healthz`: 200 if the engines of this process answer and there is room, else 503 and why;
/// with `?verbose` a line for each engine. A server that stops says 503 from the first moment.
/// The parties of a gateway are elsewhere: while they are away, the other roles still work.
pub async fn health(State(app): State<Arc<App>>, uri: Uri) -> (StatusCode, String) {
    if app.stopping() {
        return answer(false, "stopping\n".into());
    }
    let (findings, _) = examine(&app).await;
    let bad: Vec<_> = findings
        .iter()
        .filter(|f| f.trouble.is_some() && f.role != Role::Gateway.name())
        .collect();
    let good = bad.is_empty();
    let text = match (uri.query() == Some("verbose"), good) {
        (true, _) => lines(&findings),
        (false, true) => "ok\n".into(),
        (false, false) => lines(bad),
    };
    answer(good, text)
}

/// `GET /healthz/{role}`: of one role alone, a line for each engine.
pub async fn of_role(
    State(app): State<Arc<App>>,
    Path(role): Path<String>,
) -> Result<(StatusCode, String), Refusal> {
    let none = || Refusal::not_found("role in this process");
    let role: Role = role.parse().map_err(|_| none())?;
    if !app.config.has(role) {
        return Err(none());
    }
    if app.stopping() {
        return Ok(answer(false, "stopping\n".into()));
    }
    let (mut findings, _) = examine(&app).await;
    findings.retain(|f| f.role == role.name());
    let good = findings.iter().all(|f| f.trouble.is_none());
    Ok(answer(good, lines(&findings)))
}

/// `GET /metrics`. It answers also while an engine does not: `camvault_ready` says so.
pub async fn metrics(State(app): State<Arc<App>>) -> Result<impl IntoResponse + use<>, Refusal> {
    let (findings, stats) = examine(&app).await;
    app.metrics.found(&findings);
    if let (Some(role), Some(_)) = (&app.metadata, &stats)
        && let Ok(scrub) = role.jobs.find(SCRUB).await
    {
        app.metrics.scrubbed(&scrub);
    }
    let activity = app
        .config
        .gateway
        .as_ref()
        .map(|gateway| gateway.activity());
    let text = app.metrics.text(stats.as_ref(), &app.limits(), activity);
    let text = text.map_err(|_| Refusal::new(Code::Internal, "the numbers cannot be written"))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], text))
}

/// `GET /status`: the same for people.
pub async fn status(State(app): State<Arc<App>>) -> Html<String> {
    let (findings, stats) = examine(&app).await;
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>camvault</title>\
         <style>body{{font-family:sans-serif;margin:2em}}td,th{{text-align:left;padding:.2em 1em}}</style>\
         <h1>camvault {}</h1><p>protocol {VERSION}, up {} s{}</p>\
         <h2>Engines</h2><table><tr><th>role<th>engine<th>state<th>ms",
        env!("CARGO_PKG_VERSION"),
        app.began.elapsed().as_secs(),
        if app.stopping() { ", stopping" } else { "" },
    );
    // Writing to a string does not fail.
    for finding in &findings {
        let how = escaped(finding.trouble.as_deref().unwrap_or("ok"));
        let (role, engine, ms) = (finding.role, finding.engine, finding.took.as_millis());
        let _ = write!(page, "<tr><td>{role}<td>{engine}<td>{how}<td>{ms}");
    }
    page.push_str("</table><h2>Limits</h2><table><tr><th>of<th>in use<th>at most");
    for limit in app.limits() {
        let (kind, in_use, limit) = (limit.kind, limit.in_use, limit.limit);
        let _ = write!(page, "<tr><td>{kind}<td>{in_use}<td>{limit}");
    }
    page.push_str("</table>");
    if let Some(s) = stats {
        page.push_str("<h2>Stored</h2><table>");
        let ratio = s.bytes_logical as f64 / s.bytes_stored.max(1) as f64;
        let _ = write!(page, "<tr><td>ratio<td>{ratio:.2}");
        for (what, value) in [
            ("bytes of footage", s.bytes_logical),
            ("bytes of blobs", s.bytes_stored),
            ("bytes of manifests", s.bytes_manifests),
            ("chunks", s.chunks),
            ("blobs", s.blobs),
            ("recordings", s.recordings),
            ("segments", s.segments),
            ("owners", s.owners),
        ] {
            let _ = write!(page, "<tr><td>{what}<td>{value}");
        }
        page.push_str("</table>");
    }
    page.push_str("</html>\n");
    Html(page)
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;")
}
