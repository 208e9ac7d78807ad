//! `lockstep exec`: the entry point of an application's container. It starts the application, starts it again whenever it
//! ends, and at once when the sidecar in the other container says so; the container itself lives on, so nothing backs off.

use crate::exit::{Exit, Failure};
use crate::process::numbered;
use anyhow::Context;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, wait};
use sidecar::{RESTART, RESTARTED};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// The first pause before an application that did not live long is started again; doubles.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Who lived so long is started again at once.
const LONG_LIFE: Duration = Duration::from_secs(5);
/// How long whoever connects has to say what he wants.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// The file that `--install` makes.
const PROGRAM: &str = "lockstep";
/// Exit code where the command cannot be started, as a shell has it.
const CANNOT_START: i32 = 127;

/// Settings of the supervisor.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Copy this program to DIR/lockstep and end: for an init container, on a volume that the application's container mounts
    #[arg(long, value_name = "DIR", conflicts_with_all = ["socket", "command"])]
    install: Option<PathBuf>,
    /// Where the sidecar asks for a restart, on a volume that both containers mount (its --app-supervisor)
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The application
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs until SIGTERM; its exit code is then the application's.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    if let Some(dir) = &args.install {
        return Ok(install(dir)?);
    }
    if args.command.is_empty() {
        return Err(Failure::new(Exit::Usage, "what is to be run? lockstep exec --socket PATH -- COMMAND ARGS…"));
    }
    let listener = args.socket.as_deref().map(listen).transpose()?;
    let code = Supervisor { command: args.command, child: None, pause: PAUSE_MIN }.run(listener).await?;
    std::process::exit(code)
}

/// Copies this program; whoever looks sees the whole of it or nothing.
fn install(dir: &Path) -> anyhow::Result<()> {
    let (own, place) = (std::env::current_exe().context("where is this program?")?, dir.join(PROGRAM));
    let staged = dir.join(".lockstep.new");
    let copied = std::fs::copy(&own, &staged)
        .and_then(|_| std::fs::set_permissions(&staged, std::fs::Permissions::from_mode(0o755)))
        .and_then(|()| std::fs::rename(&staged, &place));
    copied.with_context(|| format!("cannot copy {} to {}", own.display(), place.display()))
}

/// Both containers may run as different users, and nobody else sees the volume.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace the socket {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("cannot open the socket {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
        .with_context(|| format!("cannot open the socket {} to the sidecar", path.display()))?;
    Ok(listener)
}

/// The application, which leads a process group of its own.
struct Supervisor {
    command: Vec<String>,
    child: Option<Child>,
    pause: Duration,
}

#[derive(Clone, Copy)]
struct Child {
    pid: Pid,
    since: Instant,
}

/// When the next one is started.
#[derive(Clone, Copy)]
enum Next {
    /// There is one.
    Runs,
    /// Then.
    At(Instant),
    /// Never: this process ends with it.
    Stops,
}

impl Supervisor {
    async fn run(mut self, listener: Option<UnixListener>) -> anyhow::Result<i32> {
        let handler = |kind| signal(kind).context("cannot listen for signals");
        let mut ended = handler(SignalKind::child())?;
        let (mut terminate, mut interrupt) = (handler(SignalKind::terminate())?, handler(SignalKind::interrupt())?);
        let mut hangup = handler(SignalKind::hangup())?;
        let (mut user1, mut user2) = (handler(SignalKind::user_defined1())?, handler(SignalKind::user_defined2())?);
        let mut next = Next::At(Instant::now());
        loop {
            let due = async {
                match next {
                    Next::At(at) => sleep_until(at).await,
                    Next::Runs | Next::Stops => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(()) = ended.recv() => {
                    for (pid, status) in reap() {
                        let Some(child) = self.child.filter(|child| child.pid == pid) else { continue };
                        self.child = None;
                        match next {
                            Next::Stops => return Ok(code(status)),
                            Next::Runs | Next::At(_) => next = Next::At(self.ended(child, status)),
                        }
                    }
                }
                Some(()) = terminate.recv() => next = self.stop(Signal::TERM)?,
                Some(()) = interrupt.recv() => next = self.stop(Signal::INT)?,
                Some(()) = hangup.recv() => self.signal(Signal::HUP),
                Some(()) = user1.recv() => self.signal(Signal::USR1),
                Some(()) = user2.recv() => self.signal(Signal::USR2),
                () = due => {
                    self.start()?;
                    next = Next::Runs;
                }
                Some(stream) = accept(listener.as_ref()) => {
                    if !matches!(next, Next::Stops) && self.asked(stream).await? {
                        next = Next::Runs;
                    }
                }
            }
        }
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let (program, arguments) = self.command.split_first().context("the command is empty")?;
        let spawned = Command::new(program).args(arguments).stdin(Stdio::null()).process_group(0).spawn();
        match spawned {
            // Whoever ends is reaped here, this one too: as the first process of its container this is everybody's parent.
            Ok(child) => {
                let pid = numbered(child.id()).context("a process without a pid")?;
                self.child = Some(Child { pid, since: Instant::now() });
                Ok(())
            }
            Err(error) => {
                say(&format!("cannot start `{program}`: {error}; check the container's command"));
                std::process::exit(CANNOT_START)
            }
        }
    }

    /// It ended by itself: when it is started again.
    fn ended(&mut self, child: Child, status: WaitStatus) -> Instant {
        let lived = child.since.elapsed();
        kill_group(child.pid);
        let pause = if lived >= LONG_LIFE { Duration::ZERO } else { self.pause };
        self.pause = if lived >= LONG_LIFE { PAUSE_MIN } else { (self.pause * 2).min(PAUSE_MAX) };
        say(&format!("the application ended ({}) after {lived:.1?}: it is started again", describe(status)));
        Instant::now() + pause
    }

    /// Passes the wish on; with nothing that runs it is granted.
    fn stop(&self, wish: Signal) -> anyhow::Result<Next> {
        if self.child.is_none() {
            std::process::exit(0);
        }
        self.signal(wish);
        Ok(Next::Stops)
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = self.child {
            // It may be ending.
            let _ = kill_process_group(child.pid, signal);
        }
    }

    /// One question; true if the application was restarted.
    async fn asked(&mut self, mut stream: UnixStream) -> anyhow::Result<bool> {
        let mut question = Vec::new();
        let read = timeout(ASK_TIMEOUT, (&mut stream).take(64).read_to_end(&mut question)).await;
        if !matches!(read, Ok(Ok(_))) || question != RESTART {
            let _ = stream.write_all(b"error: the question is \"restart\"\n").await;
            return Ok(false);
        }
        if let Some(child) = self.child.take() {
            say("the sidecar resets the application: it is killed and started again");
            kill_group(child.pid);
            while !reap().iter().any(|(pid, _)| *pid == child.pid) {
                sleep(Duration::from_millis(1)).await;
            }
        }
        self.start()?;
        // The sidecar looks for itself what listens.
        let _ = stream.write_all(format!("{RESTARTED}\n").as_bytes()).await;
        Ok(true)
    }
}

async fn accept(listener: Option<&UnixListener>) -> Option<UnixStream> {
    match listener {
        Some(listener) => match listener.accept().await {
            Ok((stream, _)) => Some(stream),
            Err(_) => {
                sleep(PAUSE_MIN).await;
                None
            }
        },
        None => std::future::pending().await,
    }
}

fn kill_group(leader: Pid) {
    // Nothing of it may be left; that nothing was is well.
    let _ = kill_process_group(leader, Signal::KILL);
}

/// Everybody who ended, by pid.
fn reap() -> Vec<(Pid, WaitStatus)> {
    let mut ended = Vec::new();
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(one)) => ended.push(one),
            Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return ended,
        }
    }
}

fn code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| Some(128 + status.terminating_signal()?)).unwrap_or(1)
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}

/// Beside the application's own lines.
fn say(text: &str) {
    use std::io::Write;
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(std::io::stderr(), "lockstep exec: {text}");
}
