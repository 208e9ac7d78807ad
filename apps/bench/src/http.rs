//! Just enough HTTP for admin ports.

use anyhow::Context;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// GETs a path of an admin port: the body of a 200.
///
/// # Errors
/// Nobody answers, or otherwise.
pub(crate) fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let answer = exchange(address, path).with_context(|| format!("{address}{path} does not answer"))?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{address}{path}: not HTTP"))?;
    anyhow::ensure!(head.split(' ').nth(1) == Some("200"), "{address}{path}: {head}");
    Ok(body.to_owned())
}

fn exchange(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
