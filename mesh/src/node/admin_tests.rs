//! The admin port, over a real socket.

use super::*;
use serde_json::json;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[derive(Default)]
struct Part {
    caught_up: AtomicBool,
    drained: AtomicBool,
}

impl Admin for Part {
    fn ready(&self) -> Vec<(&'static str, bool)> {
        vec![("leader", true), ("caught-up", self.caught_up.load(Ordering::SeqCst))]
    }
    fn started(&self) -> bool {
        true
    }
    fn app_live(&self) -> bool {
        false
    }
    fn status(&self) -> serde_json::Value {
        json!({ "kind": "part" })
    }
    fn config(&self) -> serde_json::Value {
        json!({ "id": 1 })
    }
    fn drain(&self, wait: Duration) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async move {
            self.drained.store(true, Ordering::SeqCst);
            wait == Duration::from_millis(300)
        })
    }
}

async fn server() -> (AdminServer, Arc<Part>) {
    let part = Arc::new(Part::default());
    let address = "127.0.0.1:0".parse().expect("an address");
    let registry = Arc::new(crate::node::registry());
    let server = AdminServer::bind(address, registry, Arc::clone(&part) as Arc<dyn Admin>)
        .await
        .expect("loopback has a free port");
    (server, part)
}

/// Status and body of the answer to `request`.
async fn ask(server: &AdminServer, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.local_addr()).await.expect("the server listens");
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the server answers in UTF-8");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}

async fn get(server: &AdminServer, path: &str) -> (u16, String) {
    ask(server, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await
}

#[tokio::test]
async fn a_part_is_ready_when_every_check_holds() {
    let (server, part) = server().await;
    assert_eq!(get(&server, "/readyz").await, (503, "failed: caught-up\n".into()));
    let verbose = "[+]leader ok\n[-]caught-up failed\nfailed: caught-up\n";
    assert_eq!(get(&server, "/readyz?verbose").await, (503, verbose.into()));
    part.caught_up.store(true, Ordering::SeqCst);
    assert_eq!(get(&server, "/readyz").await, (200, "ok\n".into()));
}

#[tokio::test]
async fn probes_and_documents_are_where_outside_tools_look_for_them() {
    let (server, _part) = server().await;
    assert_eq!(get(&server, "/livez").await.0, 200);
    assert_eq!(get(&server, "/startupz").await.0, 200);
    assert_eq!(get(&server, "/app/livez").await.0, 503);
    assert!(get(&server, "/status").await.1.contains(r#""kind":"part""#));
    assert_eq!(get(&server, "/config").await.1.trim(), r#"{"id":1}"#);
    assert!(get(&server, "/version").await.1.contains("\"commit\""));
    assert_eq!(ask(&server, "POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await.0, 200);
    assert_eq!(get(&server, "/secrets").await.0, 404);
    assert_eq!(ask(&server, "DELETE /status HTTP/1.1\r\nHost: a\r\n\r\n").await.0, 405);
}

#[tokio::test]
async fn a_scrape_has_both_names_of_the_process_and_one_end() {
    let (server, _part) = server().await;
    let (status, text) = get(&server, "/metrics").await;
    assert_eq!(status, 200);
    assert!(
        text.contains("\nprocess_cpu_seconds_total ") && text.contains("lockstep_process_cpu_seconds_total "),
        "{text}"
    );
    assert_eq!(text.matches("# EOF").count(), 1, "{text}");
}

#[tokio::test]
async fn a_drain_waits_as_long_as_it_is_told() {
    let (server, part) = server().await;
    assert_eq!(get(&server, "/drain?wait=300ms").await.0, 200);
    assert!(part.drained.load(Ordering::SeqCst));
    assert_eq!(get(&server, "/drain").await.0, 503);
    assert_eq!(get(&server, "/drain?wait=long").await.0, 400);
}

#[tokio::test]
async fn a_bad_or_endless_log_filter_is_refused() {
    let (server, _part) = server().await;
    let put =
        |body: String| format!("PUT /log-level HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(ask(&server, &put("mesh=loud".to_owned())).await.0, 400);
    assert_eq!(ask(&server, &put("a".repeat(5000))).await.0, 413);
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    let (server, _part) = server().await;
    let head = format!("GET /livez HTTP/1.1\r\nX: {}", "a".repeat(2 * HEAD_BYTES_MAX));
    let mut stream = TcpStream::connect(server.local_addr()).await.expect("the server listens");
    // The server may close before it has read all of it.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn it_stops_listening_when_dropped() {
    let (server, _part) = server().await;
    let address = server.local_addr();
    drop(server);
    let gone = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the port is closed");
}

#[tokio::test]
async fn every_path_answers_get_head_and_post_in_its_kind_and_none_is_cached() {
    let (server, part) = server().await;
    part.caught_up.store(true, Ordering::SeqCst);
    let paths = [
        ("/startupz", 200, "text/plain"),
        ("/livez", 200, "text/plain"),
        ("/readyz", 200, "text/plain"),
        ("/metrics", 200, "application/openmetrics-text"),
        ("/status", 200, "application/json"),
        ("/version", 200, "application/json"),
        ("/config", 200, "application/json"),
        ("/app/livez", 503, "text/plain"),
        ("/log-level", 200, "text/plain"),
        ("/drain?wait=300ms", 200, "text/plain"),
    ];
    for (path, code, kind) in paths {
        for method in ["GET", "HEAD", "POST"] {
            // A POST there sets the level.
            if (method, path) == ("POST", "/log-level") {
                continue;
            }
            let mut stream = TcpStream::connect(server.local_addr()).await.expect("the server listens");
            let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("the server reads");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("the server answers in UTF-8");
            assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{method} {path}: {answer}");
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(
                head.contains(&format!("content-type: {kind}")) && head.contains("cache-control: no-store"),
                "{answer}"
            );
            assert_eq!(body.is_empty(), method == "HEAD", "{method} {path}: {answer}");
        }
    }
}

#[tokio::test]
async fn verbose_gives_a_line_for_each_check() {
    let (server, _part) = server().await;
    assert_eq!(get(&server, "/startupz?verbose").await, (200, "[+]started ok\nok\n".into()));
    assert_eq!(get(&server, "/livez?verbose").await, (200, "[+]event-loop ok\nok\n".into()));
    assert_eq!(get(&server, "/app/livez?verbose").await, (503, "[-]app failed\nfailed: app\n".into()));
}

#[tokio::test]
async fn the_status_has_this_machines_time() {
    let (server, _part) = server().await;
    let status: serde_json::Value = serde_json::from_str(&get(&server, "/status").await.1).expect("JSON");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let theirs = status["unix_ms"].as_u64().expect("a number");
    assert!(now.as_millis().abs_diff(theirs.into()) < 60_000, "{status}");
}
