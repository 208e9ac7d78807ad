//! A member that comes back at another address is found again by everybody, and nobody else is restarted for it.

use super::hashmap::netcat;
use super::ports::free_port;
use super::up::{Process, Up, lives, signal};
use super::wait;
use super::{binary, up};
use lockstep_tests::driver::http;
use std::process::{Child, Command, Stdio};

/// A part that the test started itself, with the command line that `up` gave it or another one.
pub(crate) struct Part(pub(crate) Child);

impl Part {
    pub(crate) fn start(line: &[String]) -> Self {
        let mut command = Command::new(binary::lockstep());
        command.args(line).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // A sidecar ends its application, too.
        let _ = up::try_signal("TERM", self.0.id().into());
        let _ = self.0.wait();
    }
}

/// The arguments that a part runs with; it ends when the test does, and not `up`.
pub(crate) fn line(part: &Process) -> Vec<String> {
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", part.pid)).unwrap();
    let words = line.split_terminator('\0').skip(1).filter(|word| !word.starts_with("--parent-pid="));
    words.map(str::to_owned).collect()
}

/// The same with another QUIC port, and a word for the others of where that is.
fn elsewhere(line: &[String]) -> (Vec<String>, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let mut moved = vec![line[0].clone(), format!("--advertise={address}")];
    let quic = |word: &String| if word.starts_with("--quic=") { format!("--quic={address}") } else { word.clone() };
    moved.extend(line[1..].iter().map(quic));
    (moved, address)
}

/// Ends a part of `up` in an orderly way.
fn end(part: &Process) {
    signal("TERM", part.pid);
    wait::until("ended", || if lives(part.pid) { Err(format!("{part:?}")) } else { Ok(()) });
}

fn ready(part: &Process) {
    wait::until("ready", || part.ready());
}

/// Asks until it is answered like this.
fn answered(up: &Up, request: &str, reply: &str) {
    wait::until("answered", || match netcat(up.listen(), request) {
        Ok(said) if said == reply => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn a_member_that_moved_is_found_again_by_servers_and_smart_clients() {
    let up = Up::start(&["--no-restart"]);
    answered(&up, "PUT a 1\n", "OK\n");
    let sidecars = up.role("sidecar");
    let lines: Vec<Vec<String>> = sidecars.iter().map(line).collect();

    // The last one moves; then the first one goes, so that nothing is ordered or answered without the one that moved.
    end(&sidecars[2]);
    let (moved, address) = elsewhere(&lines[2]);
    let _moved = Part::start(&moved);
    ready(&sidecars[2]);
    end(&sidecars[0]);
    answered(&up, "PUT b 2\n", "OK\n");
    for smart_client in up.role("smart-client") {
        // The other one may have answered.
        wait::until("found", || {
            let status = smart_client.status()?;
            let peers = status["peers"].as_array().unwrap();
            let found = peers.iter().any(|peer| peer["remote"] == address.as_str() && peer["up"] == true);
            if found { Ok(()) } else { Err(status.to_string()) }
        });
    }

    // A server and a SMaRtClient that know nothing but the old addresses.
    let _back = Part::start(&lines[0]);
    ready(&sidecars[0]);
    end(&sidecars[1]);
    answered(&up, "GET b\n", "VALUE 2\n");
    let smart_clients = up.role("smart-client");
    let line = line(&smart_clients[0]);
    smart_clients.iter().for_each(end);
    let _asks = Part::start(&line);
    answered(&up, "PUT c 3\n", "OK\n");
    let status = http::json(&smart_clients[0].admin, "/status").unwrap();
    assert!(status["peers"].to_string().contains(&address), "{status:#}");
}
