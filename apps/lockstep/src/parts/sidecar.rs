//! `lockstep sidecar`: one SMaRtServer beside its copy of the application.

use super::adapter::{self, Connections, Durability, Protocol, Sizes};
use super::addresses::{Target, advertised, app_address, quic_address, servers, target};
use super::common::{Identity, Life, Logging, Patience, begin, flag};
use super::reads::Words;
use super::recovery::{LOG_GROWS, Recovery};
use super::signatures::Modes;
use crate::exit::Failure;
use mesh::limits::Timing;
use mesh::node::config::{Problems, SettingsError};
use mesh::node::human;
use sidecar::{App, SnapshotMode};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Settings of a sidecar.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    identity: Identity,
    #[command(flatten)]
    patience: Patience,
    /// Where the other parts come in, over QUIC
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:7500", value_parser = quic_address)]
    quic: SocketAddr,
    /// QUIC addresses of the members, this one too: HOST:PORT in the order of the ids, or ID=HOST:PORT. Those that are
    /// missing, or have moved, are found through the others
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true, value_parser = target)]
    seeds: Vec<Target>,
    /// Where the others reach this one, if not where they were told: they remember it, and tell SMaRtClients
    #[arg(long, value_name = "HOST:PORT", value_parser = advertised)]
    advertise: Option<String>,
    /// Directory of the journal
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the application listens, when something else starts it
    #[arg(long, value_name = "HOST:PORT", value_parser = app_address)]
    app: Option<SocketAddr>,
    /// Socket of the `lockstep exec` that runs the application at --app in a container of its own, and restarts it when this
    /// sidecar has to reset it. Without it that is the business of whoever looks at /app/livez
    #[arg(long, value_name = "PATH", requires = "app")]
    app_supervisor: Option<PathBuf>,
    /// No application: this member votes and keeps the log only. With two applications and a witness any one of the three may
    /// be lost
    #[arg(long)]
    witness: bool,
    /// The port on 127.0.0.1 where COMMAND listens
    #[arg(long, value_name = "PORT")]
    app_port: Option<u16>,
    /// The directory that COMMAND runs in; app in the data directory where this is not given
    #[arg(long, value_name = "DIR")]
    app_dir: Option<PathBuf>,
    /// How long the application may take for one request; less than half of the ingress' --deadline
    #[arg(long, value_name = "DURATION", default_value = "4s", value_parser = human::parse_positive_duration)]
    app_timeout: Duration,
    /// The application's protocol
    #[arg(long, value_enum)]
    protocol: Protocol,
    /// How the application's connections are used; by default as the protocol allows
    #[arg(long, value_enum, value_name = "POLICY")]
    app_connections: Option<Connections>,
    #[command(flatten)]
    sizes: Sizes,
    #[command(flatten)]
    words: Words,
    /// How writes reach the disk before they are acknowledged
    #[arg(long, value_enum, value_name = "MODE", default_value = "sync")]
    durability: Durability,
    #[command(flatten)]
    recovery: Recovery,
    #[command(flatten)]
    signatures: Modes,
    #[command(flatten)]
    life: Life,
    #[command(flatten)]
    logging: Logging,
    /// The application to run; {port}, {id} and {dir} are replaced, and PORT is in its environment
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Args {
    /// Settings that do not go together.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        config(self).map(drop)
    }
}

/// Runs until SIGTERM, and drains.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let config = config(&args)?;
    begin("sidecar", &args.logging, &args.life)?;
    tracing::info!(?config, "effective configuration");
    if config.app_snapshot == SnapshotMode::None && config.app.is_some() {
        tracing::warn!("{LOG_GROWS}");
    }
    args.patience.wait("server", &config.id.to_string(), &config.files()).await;
    Ok(sidecar::run(config).await?)
}

fn config(args: &Args) -> Result<sidecar::Config, SettingsError> {
    let mut problems = Problems::default();
    let id = args.identity.id().and_then(|id| {
        let number: u32 = id.parse().map_err(|_| format!("\"{id}\" is no server's id: it is a number"))?;
        Ok(number)
    });
    let id = flag(&mut problems, "id", id);
    let seeds = flag(&mut problems, "seeds", servers(&args.seeds));
    if let (Some(id), Some(seeds)) = (id, &seeds) {
        problems.check(
            args.advertise.is_some() || seeds.iter().any(|(known, _)| *known == id),
            format!("--seeds: this member, {id}, is not among them, and --advertise does not say where it is"),
        );
    }
    let needs_disk = args.durability != Durability::Memory || args.app.is_some();
    let goes_without = "--data-dir is missing: only --durability memory with a COMMAND goes without";
    problems.check(!needs_disk || args.data_dir.is_some(), goes_without);
    let adapter =
        flag(&mut problems, "app-connections", adapter::adapter(args.protocol, args.app_connections, args.sizes));
    let read_only = args.words.check(args.protocol, &mut problems);
    let app = app(args, id.unwrap_or_default(), &mut problems);
    let recovery = args.recovery.check(args.protocol, args.data_dir.is_some(), &mut problems);
    if let Some(recovery) = &recovery {
        check_snapshots(args, &recovery.mode, &mut problems);
    }
    let kept = recovery.as_ref().is_some_and(|recovery| recovery.mode != SnapshotMode::None);
    let complete = match (id, seeds, adapter, app, recovery) {
        (Some(id), Some(seeds), Some(adapter), Some(app), Some(recovery)) => Some(sidecar::Config {
            cluster: args.identity.cluster.clone(),
            id,
            pki: args.identity.certificate("server", &id.to_string()),
            trust_bundle: args.identity.trust_bundle.clone(),
            crl: Some(args.identity.revocations("server", &id.to_string())),
            link_max_age: args.life.link_max_age,
            quic: args.quic,
            admin: args.life.admin,
            seeds,
            advertise: args.advertise.clone(),
            data_dir: args.data_dir.clone(),
            app,
            adapter,
            read_only,
            durability: args.durability.into(),
            request_signatures: args.signatures.requests.into(),
            reply_signatures: args.signatures.replies.into(),
            drain_timeout: args.life.drain_timeout,
            timing: Timing::DEFAULT,
            limits: recovery.limits,
            // A witness' snapshots need nothing of an application.
            snapshots: (kept || args.witness && args.data_dir.is_some()).then_some(recovery.snapshots),
            divergence: recovery.divergence,
            transfer_rate: recovery.transfer_rate,
            app_timeout: args.app_timeout,
            app_snapshot: recovery.mode,
            app_snapshot_timeout: recovery.snapshot_timeout,
            app_reset_request: recovery.reset_request,
            app_empty_probe: recovery.empty_probe,
            app_supervisor: args.app_supervisor.clone(),
        }),
        _ => None,
    };
    problems.into_result(complete)
}

/// What snapshots need of the other settings.
fn check_snapshots(args: &Args, mode: &SnapshotMode, problems: &mut Problems) {
    let kept = *mode == SnapshotMode::None || args.data_dir.is_some();
    problems.check(kept, "--data-dir is missing: snapshots are kept there; or give --snapshot none");
    let child = *mode != SnapshotMode::Directory || args.witness || !args.command.is_empty();
    problems.check(child, "--snapshot directory: needs the application as a COMMAND, which can be stopped");
}

/// The application, or none at a witness; `None`: neither was said.
fn app(args: &Args, id: u32, problems: &mut Problems) -> Option<Option<App>> {
    if args.witness {
        let given = args.app.is_some() || args.app_port.is_some() || args.app_dir.is_some() || !args.command.is_empty();
        problems.check(
            !given,
            "--witness: has no application, so it goes without --app, --app-port, --app-dir and COMMAND",
        );
        return Some(None);
    }
    application(args, id, problems).map(Some)
}

fn application(args: &Args, id: u32, problems: &mut Problems) -> Option<App> {
    let none = "say what to replicate: --app HOST:PORT, or a COMMAND after --; or --witness";
    match (args.app, args.command.is_empty()) {
        (Some(address), true) => {
            problems.check(args.app_port.is_none(), "--app-port: goes with a COMMAND; --app has a port already");
            problems.check(args.app_dir.is_none(), "--app-dir: goes with a COMMAND");
            Some(App::Address(address))
        }
        (None, false) => {
            let port = args.app_port.filter(|port| *port != 0);
            problems.check(port.is_some(), "--app-port is missing: on which port of 127.0.0.1 does COMMAND listen?");
            let below = args.data_dir.as_ref().map(|dir| dir.join("app"));
            let dir = args.app_dir.clone().or(below);
            problems
                .check(dir.is_some(), "--app-dir is missing: without --data-dir COMMAND has no directory to run in");
            let (port, dir) = (port?, dir?);
            let argv = args.command.iter().map(|word| replace(word, port, id, &dir)).collect();
            Some(App::Command { argv, port, dir })
        }
        (Some(_), false) => {
            problems.check(false, format!("--app and COMMAND together: {none}"));
            None
        }
        (None, true) => {
            problems.check(false, none);
            None
        }
    }
}

/// A word of COMMAND with {port}, {id} and {dir} replaced, each once: what comes in is not looked at again.
fn replace(word: &str, port: u16, id: u32, dir: &Path) -> String {
    let values = [("{port}", port.to_string()), ("{id}", id.to_string()), ("{dir}", dir.display().to_string())];
    let (mut replaced, mut rest) = (String::new(), word);
    while let Some(start) = rest.find('{') {
        replaced.push_str(&rest[..start]);
        rest = &rest[start..];
        match values.iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, value)) => {
                replaced.push_str(value);
                rest = &rest[name.len()..];
            }
            None => {
                replaced.push('{');
                rest = &rest[1..];
            }
        }
    }
    replaced + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command;

    fn read(argv: &[&str]) -> Result<sidecar::Config, SettingsError> {
        match crate::parse(&[&["sidecar"], argv].concat())? {
            Command::Sidecar(args) => config(&args),
            other => panic!("not a sidecar: {other:?}"),
        }
    }

    #[test]
    fn a_command_runs_with_its_port_id_and_directory() {
        let config = read(&[
            "--cluster",
            "c",
            "--id",
            "1",
            "--seeds",
            "a:1,b:2,c:3",
            "--data-dir",
            "/d",
            "--protocol",
            "resp",
            "--app-port",
            "9500",
            "--",
            "redis-server",
            "--port",
            "{port}",
            "--dir",
            "{dir}/{id}",
            "{other}{",
        ])
        .expect("all is given");
        let Some(App::Command { argv, port, dir }) = config.app else { panic!("a command was given") };
        assert_eq!(argv, ["redis-server", "--port", "9500", "--dir", "/d/app/1", "{other}{"]);
        assert_eq!((port, dir), (9500, PathBuf::from("/d/app")));
        assert_eq!(config.seeds[2], (2, "c:3".to_owned()));
        assert_eq!(config.adapter.connections, mesh::framing::Connections::Shared);
    }

    #[test]
    fn everything_that_does_not_fit_together_is_said_at_once() {
        let error = read(&[
            "--cluster",
            "c",
            "--id",
            "5",
            "--seeds",
            "a:1",
            "--protocol",
            "close",
            "--app-connections",
            "shared",
        ])
        .expect_err("nothing fits");
        let text = error.to_string();
        for part in ["--seeds: this member, 5", "--data-dir is missing", "--app-connections: ", "what to replicate"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn snapshots_need_a_place_and_those_of_a_directory_a_child() {
        let common = ["--cluster", "c", "--id", "0", "--seeds", "a:1", "--protocol", "resp", "--app", "127.0.0.1:1"];
        let text =
            read(&[&common[..], &["--snapshot", "directory"]].concat()).expect_err("both are missing").to_string();
        assert!(text.contains("snapshots are kept there") && text.contains("--snapshot directory: needs"), "{text}");
        let config = read(&[&common[..], &["--data-dir", "/d"]].concat()).expect("all is given");
        assert_eq!(config.app_snapshot, SnapshotMode::Request(sidecar::Dialect::Resp));
    }

    #[test]
    fn memory_needs_no_directory() {
        let config = read(&[
            "--cluster",
            "c",
            "--id",
            "0",
            "--seeds",
            "a:1",
            "--protocol",
            "line",
            "--app-port",
            "1",
            "--app-dir",
            "/a",
            "--durability",
            "memory",
            "--",
            "app",
        ])
        .expect("all is given");
        assert_eq!(config.data_dir, None);
    }

    #[test]
    fn a_witness_has_no_application_and_snapshots_all_the_same() {
        let common = ["--cluster", "c", "--id", "0", "--seeds", "a:1", "--protocol", "length", "--data-dir", "/d"];
        let config = read(&[&common[..], &["--witness"]].concat()).expect("all is given");
        assert!(config.app.is_none() && config.snapshots.is_some());
        let text =
            read(&[&common[..], &["--witness", "--app", "127.0.0.1:1"]].concat()).expect_err("it has none").to_string();
        assert!(text.contains("goes without --app"), "{text}");
        let text = read(&common).expect_err("neither").to_string();
        assert!(text.contains("or --witness"), "{text}");
    }
}
