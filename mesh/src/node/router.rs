//! What the admin HTTP server answers: which path, which method, which body. Answers at once, all but `/drain`.

use super::{Admin, Registry, human, logging, metrics, version};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// How long `/drain` waits without `?wait=`.
const DRAIN_WAIT: Duration = Duration::from_secs(20);
/// The longest wait that `/drain` takes.
pub(super) const DRAIN_WAIT_MAX: Duration = Duration::from_secs(600);
/// `/drain`s that may wait at one time, so that they never take all connections.
const DRAINS_MAX: usize = 4;
/// Time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Answer = Response<Full<Bytes>>;

/// What all connections share.
pub(super) struct Shared {
    registry: Arc<Registry>,
    process: Registry,
    admin: Arc<dyn Admin>,
    drains: Semaphore,
}

impl Shared {
    pub(super) fn new(registry: Arc<Registry>, admin: Arc<dyn Admin>) -> Self {
        Self { registry, process: metrics::process_registry(), admin, drains: Semaphore::new(DRAINS_MAX) }
    }
}

/// The answer to one request.
pub(super) async fn answer(shared: &Shared, request: Request<Incoming>) -> Answer {
    let path = request.uri().path();
    let method = request.method();
    if path == "/log-level" && (method == Method::PUT || method == Method::POST) {
        return set_log_level(request).await;
    }
    if !known(path) {
        return plain(StatusCode::NOT_FOUND, "there is no such path\n");
    }
    if method != Method::GET && method != Method::HEAD && method != Method::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "use GET or POST\n");
    }
    let query = request.uri().query().unwrap_or_default();
    if path == "/drain" {
        return drain(shared, query).await;
    }
    immediate(shared, path, query)
}

fn known(path: &str) -> bool {
    const PATHS: [&str; 10] = [
        "/startupz",
        "/livez",
        "/readyz",
        "/metrics",
        "/status",
        "/version",
        "/config",
        "/app/livez",
        "/drain",
        "/log-level",
    ];
    PATHS.contains(&path)
}

fn immediate(shared: &Shared, path: &str, query: &str) -> Answer {
    let verbose = query.split('&').any(|pair| pair.split('=').next() == Some("verbose"));
    match path {
        "/startupz" => checks(&[("started", shared.admin.started())], verbose),
        // That this line runs is the proof: the event loop turns.
        "/livez" => checks(&[("event-loop", true)], verbose),
        "/readyz" => checks(&shared.admin.ready(), verbose),
        "/app/livez" => checks(&[("app", shared.admin.app_live())], verbose),
        "/metrics" => scrape(shared),
        "/status" => json(&with_clock(shared.admin.status())),
        "/config" => json(&shared.admin.config()),
        "/version" => {
            let version = version();
            json(&serde_json::json!({ "version": version.number, "commit": version.commit }))
        }
        "/log-level" => plain(StatusCode::OK, format!("{}\n", logging::filter().unwrap_or_default())),
        _ => plain(StatusCode::NOT_FOUND, "there is no such path\n"),
    }
}

/// The status with this machine's time in it: whoever asks several machines sees whose clock is wrong.
fn with_clock(mut status: serde_json::Value) -> serde_json::Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if let serde_json::Value::Object(fields) = &mut status {
        fields.insert("unix_ms".to_owned(), u64::try_from(now.as_millis()).unwrap_or(u64::MAX).into());
    }
    status
}

fn checks(checks: &[(&'static str, bool)], verbose: bool) -> Answer {
    let failed: Vec<&str> = checks.iter().filter(|(_, holds)| !holds).map(|(name, _)| *name).collect();
    let status = if failed.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verdict = if failed.is_empty() { "ok\n".to_owned() } else { format!("failed: {}\n", failed.join(", ")) };
    if !verbose {
        return plain(status, verdict);
    }
    let lines = checks
        .iter()
        .map(|(name, holds)| if *holds { format!("[+]{name} ok\n") } else { format!("[-]{name} failed\n") });
    plain(status, lines.chain([verdict]).collect::<String>())
}

fn scrape(shared: &Shared) -> Answer {
    use prometheus_client::encoding::text::{encode_eof, encode_registry};
    let mut text = String::new();
    let encoded = encode_registry(&mut text, &shared.registry)
        .and_then(|()| encode_registry(&mut text, &shared.process))
        .and_then(|()| encode_eof(&mut text));
    match encoded {
        Ok(()) => respond(StatusCode::OK, METRICS, text),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n"),
    }
}

async fn drain(shared: &Shared, query: &str) -> Answer {
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("wait="));
    let wait = match asked.map(human::parse_duration).unwrap_or(Ok(DRAIN_WAIT)) {
        Ok(wait) => wait.min(DRAIN_WAIT_MAX),
        Err(error) => return plain(StatusCode::BAD_REQUEST, format!("wait: {error}\n")),
    };
    let Ok(_permit) = shared.drains.try_acquire() else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "enough others wait for the drain already\n");
    };
    // The part's own time-out is trusted only so far.
    match tokio::time::timeout(wait + Duration::from_secs(5), shared.admin.drain(wait)).await {
        Ok(true) => plain(StatusCode::OK, "drained\n"),
        Ok(false) | Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "not drained within the time\n"),
    }
}

async fn set_log_level(request: Request<Incoming>) -> Answer {
    let body = Limited::new(request.into_body(), logging::FILTER_BYTES_MAX).collect();
    let bytes = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long or broken\n"),
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the body did not come\n"),
    };
    let Ok(filter) = std::str::from_utf8(&bytes) else {
        return plain(StatusCode::BAD_REQUEST, "the body is a log filter in UTF-8, such as debug\n");
    };
    match logging::set_filter(filter) {
        Ok(()) => {
            tracing::info!(filter = filter.trim(), "log filter changed");
            plain(StatusCode::OK, "ok\n")
        }
        Err(error) => plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

fn json(value: &serde_json::Value) -> Answer {
    respond(StatusCode::OK, JSON, format!("{value}\n"))
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    respond(status, TEXT, text)
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
