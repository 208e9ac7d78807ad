//! A cluster around the server that misbehaves when it is told to, and clients that notice everything.

use super::binary;
use super::hashmap::netcat;
use super::up::Up;
use super::wait;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Starts it.
pub(crate) fn start(more: &[&str]) -> Up {
    let more = [&["--app-timeout", "1s", "--deadline", "30s"], more].concat();
    start_by(Command::new(binary::lockstep()), &more)
}

/// The same, with another build of the program and other time-outs.
pub(crate) fn start_by(program: Command, more: &[&str]) -> Up {
    let mut arguments = vec!["--protocol", "line"];
    arguments.extend(["--snapshot-dump-request", "DUMP", "--snapshot-load-request", "LOAD"]);
    arguments.extend(["--app-empty-request", "SIZE", "--app-empty-reply", "0"]);
    arguments.extend(more);
    arguments.extend(["--", env!("CARGO_BIN_EXE_misbehave"), "{port}", "{dir}"]);
    Up::start_by(program, &arguments)
}

/// Has one replica's copy misbehave at its next `INC`.
pub(crate) fn tell(up: &Up, id: u64, how: &str) {
    let dir = up.data_dir().join(format!("app-{id}"));
    std::fs::write(dir.join("misbehave.new"), how).expect("the application's directory");
    std::fs::rename(dir.join("misbehave.new"), dir.join("misbehave")).expect("the application's directory");
}

/// One request of the native client: exit code, reply, what it says on stderr.
pub(crate) fn call(up: &Up, request: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary::lockstep());
    command.args(["call", "--deadline", "30s", "--data-dir"]).arg(up.data_dir()).arg(request);
    let output = command.stdin(Stdio::null()).output().expect("lockstep runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Waits until every replica's own copy has the same counters, and returns them.
pub(crate) fn dump(up: &Up) -> String {
    wait::until("the same on all replicas", || {
        let mut dumps = Vec::new();
        for sidecar in up.role("sidecar") {
            let (_, address) = sidecar.app.ok_or("a sidecar has no application")?;
            dumps.push(netcat(&address, "DUMP\n").map_err(|error| format!("{address}: {error}"))?);
        }
        if dumps.iter().all(|dump| !dump.is_empty() && *dump == dumps[0]) {
            Ok(dumps.remove(0))
        } else {
            Err(format!("{dumps:?}"))
        }
    })
}

/// Clients that each count up a counter of their own, and stop at the first surprise.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    counts: Vec<Arc<AtomicU64>>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Clients {
    pub(crate) fn start(up: &Up, clients: usize) -> Self {
        let mut all = Self { stop: Arc::default(), counts: Vec::new(), threads: Vec::new() };
        for number in 0..clients {
            let count = Arc::new(AtomicU64::new(0));
            all.counts.push(count.clone());
            let (address, stop) = (up.listen().to_owned(), all.stop.clone());
            all.threads.push(std::thread::spawn(move || {
                let run = || count_up(&address, &format!("client:{number}"), &count, &stop);
                run().map_err(|error| format!("client {number}: {error}"))
            }));
        }
        all
    }

    /// Waits until every client got on by a few requests.
    pub(crate) fn progress(&self, when: &str) {
        for (number, count) in self.counts.iter().enumerate() {
            let from = count.load(Ordering::Relaxed);
            wait::until(&format!("going on {when}"), || {
                let now = count.load(Ordering::Relaxed);
                let ended = self.threads[number].is_finished();
                if now >= from + 20 || ended { Ok(()) } else { Err(format!("client {number} is at {now}")) }
            });
        }
    }

    /// Ends the clients; each must have been happy, and every replica must agree with what it was told.
    pub(crate) fn finish(self, up: &Up) {
        self.stop.store(true, Ordering::Relaxed);
        let faults: Vec<_> = self.threads.into_iter().filter_map(|client| client.join().unwrap().err()).collect();
        assert!(faults.is_empty(), "{faults:#?}");
        let dump = dump(up);
        for (number, count) in self.counts.iter().enumerate() {
            let expected = format!("client:{number}={}", count.load(Ordering::Relaxed));
            assert!(dump.trim_end().split(',').any(|pair| pair == expected), "{expected} in {dump}");
        }
    }
}

fn count_up(address: &str, key: &str, count: &AtomicU64, stop: &AtomicBool) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let stream = TcpStream::connect(address).map_err(text)?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(text)?;
    stream.set_nodelay(true).map_err(text)?;
    let mut writer = stream.try_clone().map_err(text)?;
    let mut reader = BufReader::new(stream);
    while !stop.load(Ordering::Relaxed) {
        let expected = count.load(Ordering::Relaxed) + 1;
        writer.write_all(format!("INC {key}\n").as_bytes()).map_err(text)?;
        let mut reply = String::new();
        reader.read_line(&mut reply).map_err(text)?;
        if reply.trim_end() != expected.to_string() {
            return Err(format!("expected {expected} and got {reply:?}"));
        }
        count.store(expected, Ordering::Relaxed);
    }
    Ok(())
}
