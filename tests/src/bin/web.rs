//! A small web server of keys and values, for tests of the protocol `http`: `web PORT`. It keeps connections, and answers
//! requests that come pipelined on one.
//!
//! | request | reply |
//! | --- | --- |
//! | `PUT /key` | 201; the body is the value |
//! | `GET /key` | 200 and the value in chunks, or 404 |
//! | `HEAD /key` | likewise, without the value |
//! | `DELETE /key` | 204, or 404 |
//! | `POST /key` | 200 and the counter, one higher; closes the connection, and says so |
//! | `GET /dump`, `PUT /load` | 200 and everything, a line `key=value` each; 204 |
//! | `POST /reset`, `GET /size` | 204; 200 and the number of keys |
//! | `GET /hang` | none, ever; and none to anybody after it |

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

type Values = BTreeMap<String, String>;

fn main() -> ExitCode {
    let Some(port) = std::env::args().nth(1) else {
        eprintln!("usage: web PORT");
        return ExitCode::from(2);
    };
    let listener = match TcpListener::bind(format!("127.0.0.1:{port}")) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("web: cannot listen on port {port}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let values: &Mutex<Values> = Box::leak(Box::default());
    for stream in listener.incoming().flatten() {
        // An error is the client's: it went away.
        std::thread::spawn(move || serve(stream, values));
    }
    ExitCode::SUCCESS
}

fn serve(stream: TcpStream, values: &Mutex<Values>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (length, closes) = fields(&mut reader)?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        let mut values = values.lock().unwrap_or_else(PoisonError::into_inner);
        if path == "/hang" {
            // With the lock held.
            loop {
                std::thread::park();
            }
        }
        let reply = answer(&mut values, method, path, body);
        drop(values);
        writer.write_all(reply.as_bytes())?;
        if closes || method == "POST" {
            return Ok(());
        }
    }
}

/// What the fields say: the body's length, and whether the client wants the connection closed.
fn fields(reader: &mut impl BufRead) -> io::Result<(usize, bool)> {
    let (mut length, mut closes) = (0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return Ok((length, closes));
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().map_err(io::Error::other)?;
        }
        closes |= line == "connection: close";
    }
}

fn answer(values: &mut Values, method: &str, path: &str, body: String) -> String {
    let sized = |status: &str, text: &str| format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    let empty = "HTTP/1.1 204 No Content\r\n\r\n".to_owned();
    let missing = sized("404 Not Found", if method == "HEAD" { "" } else { "no such key\n" });
    match (method, path) {
        ("GET", "/dump") => {
            let dump: String = values.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
            sized("200 OK", &dump)
        }
        ("GET", "/size") => sized("200 OK", &format!("{}\n", values.len())),
        ("PUT", "/load") => {
            let pairs = body.lines().filter_map(|line| line.split_once('='));
            values.extend(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
            empty
        }
        ("POST", "/reset") => {
            values.clear();
            empty
        }
        ("PUT", _) => {
            values.insert(path.to_owned(), body);
            sized("201 Created", "")
        }
        ("POST", _) => {
            let count = values.get(path).and_then(|count| count.parse::<u64>().ok()).unwrap_or(0) + 1;
            values.insert(path.to_owned(), count.to_string());
            format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{count}",
                count.to_string().len()
            )
        }
        ("DELETE", _) => values.remove(path).map_or(missing, |_| empty),
        (_, _) => match values.get(path) {
            Some(value) if method == "HEAD" => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", value.len()),
            Some(value) => {
                let chunk = if value.is_empty() { String::new() } else { format!("{:x}\r\n{value}\r\n", value.len()) };
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n")
            }
            None => missing,
        },
    }
}
