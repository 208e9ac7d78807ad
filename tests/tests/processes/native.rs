//! Native clients: exactly once, whichever way a request goes, whoever is killed.

use super::binary;
use super::data_dir::Directory;
use super::hashmap::netcat;
use super::misbehave::{self, dump};
use super::up::{Process, Up, lives, signal};
use super::wait;
use mesh::client::{Client, ClientConfig, InvokeError, NotRun, Session, Settled, Unknown};
use mesh::ids::Seq;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tokio::task::JoinSet;

/// What only a hang reaches.
const LONG: Duration = Duration::from_secs(60);
/// The deadline of what is meant to end by it.
const SHORT: Duration = Duration::from_secs(2);

fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().expect("a runtime").block_on(test)
}

/// A client of these SMaRtClients.
async fn client(up: &Up, smart_clients: &[Process], deadline: Duration) -> Client {
    let addresses = smart_clients.iter().map(|part| part.quic.clone().expect("a SMaRtClient has a QUIC port"));
    let pki = up.data_dir().join("pki/client/0");
    let config = ClientConfig::new("local", "0", pki, addresses);
    Client::connect(ClientConfig { deadline, ..config }).await.expect("the certificate is there")
}

async fn of_all(up: &Up, deadline: Duration) -> Client {
    client(up, &up.role("smart-client"), deadline).await
}

/// How often `INC key` took effect, on every replica's own copy.
fn count(up: &Up, key: &str) -> u64 {
    let dump = dump(up);
    let counts = dump.trim_end().split(',').filter_map(|pair| pair.split_once('='));
    counts.filter(|(found, _)| *found == key).map(|(_, count)| count.parse::<u64>().expect("a number")).sum()
}

#[test]
fn a_request_that_is_sent_through_three_smart_clients_at_once_runs_once_and_is_answered_three_times_alike() {
    let up = misbehave::start(&["--smart-clients", "3"]);
    run(async {
        let parts = up.role("smart-client");
        assert_eq!(parts.len(), 3);
        let mut clients = Vec::new();
        for part in &parts {
            clients.push(client(&up, std::slice::from_ref(part), LONG).await);
        }
        let name = clients[0].open_session().await.expect("a quorum").name();
        for number in 1..=30 {
            let mut ways = JoinSet::new();
            for client in clients.clone() {
                ways.spawn(async move { client.resume(name, Seq(number)).invoke("INC a\n").await });
            }
            let replies = ways.join_all().await;
            assert_eq!(replies.len(), 3);
            for reply in replies {
                assert_eq!(reply, Ok(format!("{number}\n").into()));
            }
        }
    });
    assert_eq!(count(&up, "a"), 30);
}

fn unknown<T: std::fmt::Debug>(end: Result<T, InvokeError>) -> Unknown {
    match end {
        Err(InvokeError::Unknown(why)) => why,
        other => panic!("not unknown: {other:?}"),
    }
}

#[test]
fn a_number_that_is_too_old_used_ahead_or_of_another_request_runs_nothing_and_says_which() {
    let up = misbehave::start(&[]);
    run(async {
        let client = of_all(&up, LONG).await;
        let hasty = of_all(&up, SHORT).await;
        while hasty.open_session().await.is_err() {}
        let mut session = client.open_session().await.expect("a quorum");
        let name = session.name();
        for number in 1..=20 {
            assert_eq!(session.invoke("INC a\n").await, Ok(format!("{number}\n").into()));
        }
        assert_eq!(unknown(client.resume(name, Seq(1)).invoke("INC a\n").await), Unknown::TooOld);
        assert_eq!(client.resume(name, Seq(20)).invoke("INC a\n").await, Ok("20\n".into()), "the stored reply");
        assert_eq!(unknown(client.resume(name, Seq(20)).invoke("INC b\n").await), Unknown::OtherBody);
        assert_eq!(unknown(hasty.resume(name, Seq(23)).invoke("INC b\n").await), Unknown::Deadline);
        let mut ahead = hasty.resume(name, Seq(60));
        assert_eq!(unknown(ahead.invoke("INC b\n").await), Unknown::OutOfWindow);
        assert_eq!(ahead.in_doubt().map(|request| &request[..]), Some(&b"INC b\n"[..]));
        // Settled, the numbers before it are used up with it.
        let mut near = client.resume_in_doubt(name, Seq(23), "INC b\n");
        assert!(matches!(near.settle().await, Ok(Some(Settled::NotRun(_)))));
        assert_eq!(near.invoke("INC a\n").await, Ok("21\n".into()));
        assert_eq!(near.next(), Seq(25));

        near.close().await.expect("nothing is in doubt");
        assert_eq!(unknown(client.resume(name, Seq(25)).invoke("INC b\n").await), Unknown::SessionGone);
        let mut gone = client.resume_in_doubt(name, Seq(25), "INC b\n");
        assert_eq!(gone.settle().await, Err(Unknown::SessionGone));
    });
    assert_eq!((count(&up, "a"), count(&up, "b")), (21, 0));
}

/// Opens so many sessions, many at a time.
async fn open(client: &Client, sessions: usize) {
    let mut opening: JoinSet<Result<Session, InvokeError>> = JoinSet::new();
    for _ in 0..sessions {
        if opening.len() >= 256 {
            opening.join_next().await.expect("some").expect("no panic").expect("room");
        }
        let client = client.clone();
        opening.spawn(async move { client.open_session().await });
    }
    for opened in opening.join_all().await {
        opened.expect("room");
    }
}

#[test]
fn requests_of_an_evicted_session_run_nothing_and_say_so() {
    let up = misbehave::start(&[]);
    run(async {
        let client = of_all(&up, LONG).await;
        let mut idle = client.open_session().await.expect("a quorum");
        assert_eq!(idle.invoke("INC a\n").await, Ok("1\n".into()));
        let mut busy = client.open_session().await.expect("a quorum");
        // Idle for more slots than any session is sure to stay; and then one session more than the table holds.
        for number in 1..=1100 {
            assert_eq!(busy.invoke("INC b\n").await, Ok(format!("{number}\n").into()));
        }
        assert_eq!(client.resume(idle.name(), Seq(1)).invoke("INC a\n").await, Ok("1\n".into()), "no activity");
        open(&client, 8192 - 2 + 1).await;
        assert_eq!(unknown(idle.invoke("INC a\n").await), Unknown::SessionGone);
        let another = NotRun::InDoubt { seq: Seq(2) };
        assert_eq!(idle.invoke("INC c\n").await, Err(InvokeError::NotRun(another)));
        assert_eq!(idle.settle().await, Err(Unknown::SessionGone));
    });
    assert_eq!((count(&up, "a"), count(&up, "b"), count(&up, "c")), (1, 1100, 0));
}

/// A script's calls with one session file.
struct Script<'a> {
    up: &'a Up,
    directory: Directory,
}

impl<'a> Script<'a> {
    fn new(up: &'a Up) -> Self {
        let directory = Directory::new();
        std::fs::create_dir_all(directory.as_str()).expect("a directory");
        Self { up, directory }
    }

    fn file(&self) -> PathBuf {
        Path::new(self.directory.as_str()).join("session")
    }

    fn command(&self, request: &str) -> Command {
        let mut command = Command::new(binary::lockstep());
        command.args(["call", "--deadline", "60s", "-o", "json", "--data-dir"]).arg(self.up.data_dir());
        command.arg("--session-file").arg(self.file()).arg(request);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The object that a call prints.
    fn call(&self, request: &str) -> serde_json::Value {
        let output: Output = self.command(request).output().expect("lockstep runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{text}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{text}"))
    }

    /// Starts a call and kills it when `there` is reached.
    fn killed(&self, request: &str, there: impl FnMut() -> Result<(), String>) {
        let mut child: Child = self.command(request).spawn().expect("lockstep starts");
        wait::until("where it is to be killed", there);
        assert!(lives(child.id().into()), "it ended by itself");
        signal("KILL", child.id().into());
        child.wait().expect("it was killed");
    }

    fn is_in_doubt(&self) -> Result<(), String> {
        let text = std::fs::read_to_string(self.file()).map_err(|error| error.to_string())?;
        let stored: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if stored["in_doubt"].is_string() { Ok(()) } else { Err(text) }
    }
}

fn all(name: &str, pids: &[u64]) {
    pids.iter().for_each(|pid| signal(name, *pid));
}

fn decided(up: &Up) -> Vec<u64> {
    let of = |part: &Process| part.status().ok()?["decided"].as_u64();
    up.role("sidecar").iter().filter_map(of).collect()
}

/// A call is killed after the servers have ordered its request and before any application has run it.
fn killed_after_it_was_ordered(up: &Up, script: &Script<'_>, request: &str) {
    let applications: Vec<u64> = up.role("sidecar").iter().filter_map(|part| Some(part.app.as_ref()?.0)).collect();
    assert_eq!(applications.len(), 3);
    let before = up.settled()[0]["decided"].as_u64().expect("a slot");
    all("STOP", &applications);
    script.killed(request, || {
        let now = decided(up);
        // The call only sends its request: its session is open.
        if now.len() == 3 && now.iter().all(|slot| *slot > before) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    all("CONT", &applications);
}

/// A call is killed before any SMaRtClient takes its request.
fn killed_before_it_was_sent(up: &Up, script: &Script<'_>, request: &str) {
    let smart_clients: Vec<u64> = up.role("smart-client").iter().map(|part| part.pid).collect();
    all("STOP", &smart_clients);
    script.killed(request, || script.is_in_doubt());
    all("CONT", &smart_clients);
}

#[test]
fn a_caller_that_was_killed_learns_from_its_session_file_what_became_of_its_request() {
    let patient = ["--app-timeout", "25s", "--deadline", "60s"];
    let up = misbehave::start_by(Command::new(binary::lockstep()), &patient);
    let script = Script::new(&up);
    assert_eq!(script.call("INC a")["reply"], "1\n");
    assert_eq!(script.call("INC a")["reply"], "2\n", "what was answered is not in doubt");

    killed_after_it_was_ordered(&up, &script, "INC a");
    wait::until("run unheard", || if count(&up, "a") == 3 { Ok(()) } else { Err(String::new()) });
    assert_eq!(script.call("INC a")["reply"], "3\n", "the stored reply");
    assert_eq!(count(&up, "a"), 3);

    killed_before_it_was_sent(&up, &script, "INC a");
    assert_eq!(count(&up, "a"), 3);
    assert_eq!(script.call("INC a")["reply"], "4\n", "it runs now");
    assert_eq!(count(&up, "a"), 4);

    killed_after_it_was_ordered(&up, &script, "INC a");
    let other = script.call("INC b");
    assert_eq!((&other["reply"], &other["settled"]["reply"]), (&"1\n".into(), &"5\n".into()), "{other}");

    killed_before_it_was_sent(&up, &script, "INC a");
    let other = script.call("INC b");
    assert_eq!((&other["reply"], &other["settled"]["outcome"]), (&"2\n".into(), &"not_run".into()), "{other}");
    assert_eq!((count(&up, "a"), count(&up, "b")), (5, 2));
}

#[test]
fn experts_choose_session_and_number_and_see_the_documented_exit_codes() {
    let up = misbehave::start(&[]);
    let call = |arguments: &[&str]| {
        let mut command = Command::new(binary::lockstep());
        command.args(["call", "--deadline", "3s", "-o", "json", "--data-dir"]).arg(up.data_dir()).args(arguments);
        let output = command.stdin(Stdio::null()).output().expect("lockstep runs");
        let shown = serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_default();
        (output.status.code(), shown)
    };
    let (code, shown) = call(&["--client-id", "2a", "INC a"]);
    assert_eq!((code, &shown["reply"], &shown["seq"]), (Some(0), &"1\n".into(), &1.into()), "{shown}");
    let name = shown["session"].as_str().expect("its name").to_owned();
    let (code, again) = call(&["--client-id", &name, "--seq", "1", "INC a"]);
    assert_eq!((code, &again["reply"]), (Some(0), &"1\n".into()), "{again}");
    let (code, next) = call(&["--client-id", "2a", "--seq", "2", "INC a"]);
    assert_eq!((code, &next["reply"]), (Some(0), &"2\n".into()), "{next}");
    let (code, ahead) = call(&["--client-id", &name, "--seq", "100", "INC a"]);
    assert_eq!((code, &ahead["outcome"]), (Some(6), &"unknown".into()), "{ahead}");
    assert!(ahead["reason"].as_str().is_some_and(|why| why.contains("never sent")), "{ahead}");
    let (code, gone) = call(&["--client-id", "2b@1@1-00000000000000ff", "INC a"]);
    assert_eq!((code, &gone["outcome"]), (Some(6), &"unknown".into()), "{gone}");
    assert_eq!(call(&["--seq", "1", "INC a"]).0, Some(2));
    assert_eq!(call(&["--client-id", "2a@x", "INC a"]).0, Some(2));
    assert_eq!(count(&up, "a"), 2);
    up.role("smart-client").iter().for_each(|part| signal("STOP", part.pid));
    let (code, refused) = call(&["INC a"]);
    assert_eq!((code, &refused["outcome"]), (Some(7), &"not_run".into()), "{refused}");
    up.role("smart-client").iter().for_each(|part| signal("CONT", part.pid));
    assert_eq!(count(&up, "a"), 2);
}

#[test]
fn a_request_runs_once_when_every_smart_client_ends_between_its_execution_and_the_answer() {
    let program = Command::new(binary::failpoints());
    let up = misbehave::start_by(program, &["--app-timeout", "1s", "--deadline", "60s"]);
    assert_eq!(netcat(up.listen(), "INC a\n").expect("an answer"), "1\n");
    for number in 2..=3 {
        let parts = up.role("smart-client");
        assert_eq!(parts.len(), 2);
        let place = |part: &Process| up.data_dir().join(format!("pki/smart-client/{}/failpoint", part.id));
        for part in &parts {
            std::fs::write(place(part), "after-forward-before-answer").expect("the certificate's directory");
        }
        // The first one dies with the answer; the sender asks the other one, which does; then whoever is back.
        assert_eq!(netcat(up.listen(), "INC a\n").expect("an answer"), format!("{number}\n"));
        for part in &parts {
            up.restarted("smart-client", part.id, part.pid);
            assert!(!place(part).exists(), "it ended for another reason");
        }
    }
    assert_eq!(count(&up, "a"), 3);
}
