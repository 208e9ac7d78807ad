//! Just enough HTTP for admin ports.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// GETs a path of an admin port: status code and body.
pub(crate) fn get(address: &str, path: &str) -> Result<(u16, String), String> {
    let failed = |error: std::io::Error| format!("{address}{path}: {error}");
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
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
pub(crate) fn json(address: &str, path: &str) -> Result<serde_json::Value, String> {
    let (code, body) = get(address, path)?;
    if code != 200 {
        return Err(format!("{address}{path}: {code} {body}"));
    }
    serde_json::from_str(&body).map_err(|error| format!("{address}{path}: {error}: {body}"))
}
