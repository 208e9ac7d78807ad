//! SMaRtClients that come and go behind one name while clients work: nobody notices, and each that is there works.
//!
//! `LOCKSTEP_SCALE=16` sets how many there are at most.

use super::binary::lockstep;
use super::disk::can_mount;
use super::ports::free_port;
use super::up::{Process, Up, signal};
use super::wait;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The name that stands for all SMaRtClients.
const NAME: &str = "smart-clients.test";
const CLIENTS: u64 = 16;

/// A part that was started by hand. It is ended with its handle.
struct Part {
    child: Child,
    process: Process,
}

impl Part {
    fn start(mut command: Command, admin: String, log: &Path) -> Self {
        let log = std::fs::File::create(log).expect("the directory can be written");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("an open file")).stderr(log);
        let child = command.spawn().expect("it starts");
        let (role, pid) = ("by hand".to_owned(), child.id().into());
        let part = Self { child, process: Process { role, id: 0, pid, admin, app: None, quic: None } };
        wait::until("ready", || part.process.ready());
        part
    }

    fn end(&mut self, how: &str) -> ExitStatus {
        signal(how, self.process.pid);
        self.child.wait().expect("it was not waited for")
    }

    /// How many requests it brought to a good end.
    fn worked(&self) -> u64 {
        self.process.status().expect("it runs")["requests"]["ok"].as_u64().expect("a number")
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The servers of `up`, with SMaRtClients and an ingress of our own, which finds those by name.
struct Bench {
    up: Up,
    directory: PathBuf,
    /// The port of every SMaRtClient, and of its admin side.
    port: u16,
}

impl Bench {
    fn new() -> Self {
        let up = Up::start(&["--smart-clients", "1"]);
        let directory = up.data_dir().join("scaling");
        std::fs::create_dir(&directory).expect("the data directory can be written");
        Self { up, directory, port: free_port() }
    }

    /// A part's command line, with a certificate of its own.
    fn command(&self, mut command: Command, role: &str, id: usize, admin: &str) -> Command {
        let pki = self.up.data_dir().join("pki");
        if !pki.join(role).join(id.to_string()).exists() {
            let mut issue = Command::new(lockstep());
            issue.args(["certs", "issue", role, &id.to_string(), "--dir"]).arg(&pki).stdout(Stdio::null());
            assert!(issue.status().expect("lockstep runs").success());
        }
        command.args([role, "--cluster", "local", "--id", &id.to_string(), "--admin", admin, "--pki"]).arg(pki);
        command
    }

    fn smart_client(&self, number: usize) -> Part {
        let (quic, admin) = (self.quic(number), self.quic(number));
        let servers: Vec<String> = self.up.role("sidecar").into_iter().filter_map(|sidecar| sidecar.quic).collect();
        let mut command = self.command(Command::new(lockstep()), "smart-client", 100 + number, &admin);
        command.args(["--quic", &quic, "--servers", &servers.join(",")]);
        Part::start(command, admin, &self.directory.join(format!("smart-client-{number}.log")))
    }

    /// Each has an address of its own, as in a cluster of machines, and the same port.
    fn quic(&self, number: usize) -> String {
        format!("127.0.1.{}:{}", 1 + number, self.port)
    }

    /// Whom the name stands for from now on.
    fn name(&self, numbers: impl Iterator<Item = usize>) {
        let lines: String = numbers.map(|number| format!("127.0.1.{} {NAME}\n", 1 + number)).collect();
        // In place: it is mounted elsewhere.
        std::fs::write(self.hosts(), format!("127.0.0.1 localhost\n{lines}")).expect("the directory can be written");
    }

    fn hosts(&self) -> PathBuf {
        self.directory.join("hosts")
    }

    /// The ingress, for which `hosts` is the file of names. Returns it and where clients connect.
    fn ingress(&self) -> (Part, String) {
        let (listen, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(self.hosts());
        command.arg(lockstep());
        let mut command = self.command(command, "ingress", 100, &admin);
        command.args(["--smart-clients", &format!("{NAME}:{}", self.port), "--listen", &listen, "--protocol", "line"]);
        (Part::start(command, admin, &self.directory.join("ingress.log")), listen)
    }
}

/// Waits until the ingress keeps links to so many, all of which are up.
fn knows(ingress: &Part, smart_clients: usize) {
    wait::until("linked to those that are there", || {
        let status = ingress.process.status()?;
        let peers = status["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let all_up = peers.iter().all(|peer| peer["up"] == Value::Bool(true));
        if all_up && peers.len() == smart_clients { Ok(()) } else { Err(status.to_string()) }
    });
}

/// Clients that each write and read a key of their own, and stop at the first surprise.
struct Clients {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Clients {
    fn start(address: &str) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..CLIENTS).map(|number| {
            let (address, stop, done) = (address.to_owned(), stop.clone(), done.clone());
            std::thread::spawn(move || work(&address, number, &stop, &done))
        });
        Self { threads: threads.collect(), stop, done }
    }

    /// Waits until they got on by a good deal.
    fn progress(&self, when: &str) {
        let from = self.done.load(Ordering::Relaxed);
        wait::until(&format!("going on {when}"), || {
            let done = self.done.load(Ordering::Relaxed);
            let ended = self.threads.iter().any(JoinHandle::is_finished);
            if done >= from + 20 * CLIENTS || ended { Ok(()) } else { Err(format!("{done} requests")) }
        });
        assert!(!self.threads.iter().any(JoinHandle::is_finished), "a client stopped {when}");
    }

    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let faults: Vec<_> = self.threads.into_iter().filter_map(|thread| thread.join().unwrap().err()).collect();
        assert!(faults.is_empty(), "{faults:#?}");
        self.done.load(Ordering::Relaxed)
    }
}

fn work(address: &str, number: u64, stop: &AtomicBool, done: &AtomicU64) -> Result<(), String> {
    let text = |error: std::io::Error| format!("client {number}: {error}");
    let stream = TcpStream::connect(address).map_err(text)?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(text)?;
    stream.set_nodelay(true).map_err(text)?;
    let mut writer = stream.try_clone().map_err(text)?;
    let mut reader = BufReader::new(stream);
    for value in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (request, expected) = match value % 2 {
            0 => (format!("PUT client-{number} {value}\n"), "OK".to_owned()),
            _ => (format!("GET client-{number}\n"), format!("VALUE {}", value - 1)),
        };
        writer.write_all(request.as_bytes()).map_err(text)?;
        let mut reply = String::new();
        reader.read_line(&mut reply).map_err(text)?;
        if reply.trim_end() != expected {
            return Err(format!("client {number}: expected {expected} and got {reply:?}"));
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[test]
fn smart_clients_come_and_go_by_name_under_load_without_an_error() {
    if !can_mount("smart_clients_come_and_go_by_name_under_load_without_an_error") {
        return;
    }
    let most: usize = std::env::var("LOCKSTEP_SCALE").map_or(6, |text| text.parse().expect("a number"));
    let bench = Bench::new();
    let mut parts: Vec<Part> = (0..2).map(|number| bench.smart_client(number)).collect();
    bench.name(0..2);
    let (ingress, address) = bench.ingress();
    knows(&ingress, 2);
    let clients = Clients::start(&address);
    clients.progress("with two");

    parts.extend((2..most).map(|number| bench.smart_client(number)));
    bench.name(0..most);
    knows(&ingress, most);
    wait::until("all at work", || {
        let idle: Vec<_> = (0..most).filter(|number| parts[*number].worked() == 0).collect();
        if idle.is_empty() { Ok(()) } else { Err(format!("{idle:?} had no request")) }
    });
    clients.progress("with all");

    // The last two stay. Those that leave are asked to, but for one, which vanishes.
    bench.name(most - 2..most);
    let staying = parts.split_off(most - 2);
    for (number, part) in parts.iter_mut().enumerate() {
        if number == 1 {
            part.end("KILL");
        } else {
            assert!(part.end("TERM").success(), "SMaRtClient {number} did not end well");
        }
        clients.progress("while they leave");
    }
    knows(&ingress, 2);
    let before: Vec<u64> = staying.iter().map(Part::worked).collect();
    clients.progress("with the last two");
    wait::until("both at work", || {
        let now: Vec<u64> = staying.iter().map(Part::worked).collect();
        if now.iter().zip(&before).all(|(now, before)| now > before) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    let done = clients.finish();
    let status = ingress.process.status().expect("it runs");
    assert_eq!((&status["requests"]["unknown"], &status["requests"]["refused"]), (&Value::from(0), &Value::from(0)));
    println!("2, {most}, 2 SMaRtClients: {done} requests, {} of them sent once more", status["resends"]);
}
