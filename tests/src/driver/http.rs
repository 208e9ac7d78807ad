//! Just enough HTTP for admin ports.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// GETs a path of an admin port: status code and body.
///
/// # Errors
/// In words: nobody answers, or not in HTTP.
pub fn get(address: &str, path: &str) -> Result<(u16, String), String> {
    get_within(address, path, PATIENCE)
}

/// The same with a patience of one's own, for a process that may stand still.
///
/// # Errors
/// In words: nobody answers in time, or not in HTTP.
pub fn get_within(address: &str, path: &str, patience: Duration) -> Result<(u16, String), String> {
    let failed = |error: std::io::Error| format!("{address}{path}: {error}");
    let to: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let mut stream = TcpStream::connect_timeout(&to, patience).map_err(failed)?;
    stream.set_read_timeout(Some(patience)).map_err(failed)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").map_err(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(failed)?;
    let answer = String::from_utf8_lossy(&answer);
    let malformed = || format!("{address}{path}: not HTTP: {answer}");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let code = head.split_ascii_whitespace().nth(1).and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
    Ok((code, body.to_owned()))
}

/// GETs a JSON document.
///
/// # Errors
/// In words: nobody answers, not with 200, or not in JSON.
pub fn json(address: &str, path: &str) -> Result<serde_json::Value, String> {
    json_within(address, path, PATIENCE)
}

/// The same with a patience of one's own.
///
/// # Errors
/// As [`json`].
pub fn json_within(address: &str, path: &str, patience: Duration) -> Result<serde_json::Value, String> {
    let (code, body) = get_within(address, path, patience)?;
    if code != 200 {
        return Err(format!("{address}{path}: {code} {body}"));
    }
    serde_json::from_str(&body).map_err(|error| format!("{address}{path}: {error}: {body}"))
}
