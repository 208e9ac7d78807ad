//! Settings of what is kept and how it comes back: snapshots, the log's bounds, divergence, the application's reset. The
//! same for `sidecar` and for `up`, which hands them on.

use super::adapter::{self, Protocol};
use clap::ValueEnum;
use mesh::config::Snapshots;
use mesh::limits::Limits;
use mesh::node::config::Problems;
use mesh::node::human;
use sidecar::{Probe, SnapshotMode};
use std::time::Duration;

/// How the application's state is saved and brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Not at all: the log is kept whole and replayed
    None,
    /// In the application's own protocol
    Request,
    /// By programs of yours
    Command,
    /// The application is stopped and its directory archived
    Directory,
}

/// How a protocol says "give me everything" and "take everything back".
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// Redis: SCAN, DUMP, RESTORE
    Resp,
    /// The hashmap: DUMP in pages, LOAD
    Hashmap,
    /// The requests of --snapshot-dump-request and --snapshot-load-request
    Requests,
}

/// What happens when this copy of the application gave other replies than a majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Divergence {
    /// It is taken out and rebuilt from the majority's state
    Rebuild,
    /// It is only reported
    Alarm,
    /// It is taken out until an operator starts it again
    Stop,
}

impl From<Divergence> for mesh::config::Divergence {
    fn from(divergence: Divergence) -> Self {
        match divergence {
            Divergence::Rebuild => Self::Rebuild,
            Divergence::Alarm => Self::Alarm,
            Divergence::Stop => Self::Stop,
        }
    }
}

/// See the module.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Recovery {
    /// How the application's state is saved, so that the log can be cut; by default request where the application's way
    /// to dump is known (resp, the hashmap), otherwise none
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) snapshot: Option<Mode>,
    /// How the application dumps with --snapshot request; by default resp for that protocol, and requests where they are given
    #[arg(long, value_enum, value_name = "DIALECT")]
    pub(crate) snapshot_dialect: Option<Dialect>,
    /// A snapshot is due after so many requests
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    snapshot_every_requests: u64,
    /// … or after requests of so many bytes, whatever comes first
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = positive_size)]
    snapshot_every_bytes: u64,
    /// With --snapshot command: run by sh, writes the dump on its stdout; PORT, HOST and LOCKSTEP_SLOT are in its environment
    #[arg(long, value_name = "SHELL LINE")]
    snapshot_dump_command: Option<String>,
    /// With --snapshot command: run by sh, reads the dump on its stdin; the application is in its initial state then
    #[arg(long, value_name = "SHELL LINE")]
    snapshot_load_command: Option<String>,
    /// With --snapshot request: the request whose reply is the dump; for protocols without a known way
    #[arg(long, value_name = "REQUEST")]
    snapshot_dump_request: Option<String>,
    /// With --snapshot request: what stands before the dump in the request that brings it back, with a space between
    #[arg(long, value_name = "REQUEST")]
    snapshot_load_request: Option<String>,
    /// How long saving the application's state, or bringing it back, may take
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = human::parse_positive_duration)]
    snapshot_timeout: Duration,
    /// Bytes of requests in the log above which new ones are refused; half of it alarms
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = log_size)]
    log_max_bytes: u64,
    /// Bytes in a second at which this member fetches another's snapshot at most; 0: no bound
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = human::parse_size)]
    transfer_rate: u64,
    /// Slots that are kept behind a snapshot, for members that are a little late
    #[arg(long, value_name = "N", default_value_t = 4096)]
    log_tail_slots: u64,
    /// When this copy of the application gave other replies than a majority
    #[arg(long, value_enum, value_name = "POLICY", default_value = "rebuild")]
    divergence: Divergence,
    /// The request that brings the application to its initial state, instead of a restart; resp has one built in
    #[arg(long, value_name = "REQUEST")]
    app_reset_request: Option<String>,
    /// The request that tells whether the application is in its initial state; resp and the hashmap have one built in
    #[arg(long, value_name = "REQUEST")]
    app_empty_request: Option<String>,
    /// The reply to it if it is
    #[arg(long, value_name = "REPLY")]
    app_empty_reply: Option<String>,
}

/// What the sidecar is told, as its configuration has it.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) mode: SnapshotMode,
    pub(crate) snapshots: Snapshots,
    pub(crate) snapshot_timeout: Duration,
    pub(crate) limits: Limits,
    pub(crate) transfer_rate: u64,
    pub(crate) divergence: mesh::config::Divergence,
    pub(crate) reset_request: Option<String>,
    pub(crate) empty_probe: Option<Probe>,
}

/// Why nothing is saved, for the log at the start.
pub(crate) const LOG_GROWS: &str = "--snapshot none: the log grows with every request until --log-max-bytes, and a \
     restarted application replays all of it; choose request, command or directory";

impl Recovery {
    /// The settings as a whole, or what is wrong with them.
    pub(crate) fn check(&self, protocol: Protocol, may_save: bool, problems: &mut Problems) -> Option<Checked> {
        let mode = self.mode(protocol, may_save);
        let saved = self.saved(mode, protocol, problems);
        self.check_strays(mode, problems);
        self.check_requests(protocol, problems);
        let probe = match (&self.app_empty_request, &self.app_empty_reply) {
            (Some(request), Some(reply)) => Some(Probe { request: request.clone(), reply: reply.clone() }),
            (None, None) => None,
            _ => {
                problems
                    .check(false, "--app-empty-request and --app-empty-reply go together: a question and its answer");
                None
            }
        };
        let snapshots =
            Snapshots { every_requests: self.snapshot_every_requests, every_bytes: self.snapshot_every_bytes };
        Some(Checked {
            mode: saved?,
            snapshots,
            snapshot_timeout: self.snapshot_timeout,
            limits: Limits { log_bytes: self.log_max_bytes, log_tail_slots: self.log_tail_slots, ..Limits::DEFAULT },
            transfer_rate: self.transfer_rate,
            divergence: self.divergence.into(),
            reset_request: self.app_reset_request.clone(),
            empty_probe: probe,
        })
    }

    /// The mode that counts; where it was not given, whether the way to dump is known decides.
    pub(crate) fn mode(&self, protocol: Protocol, may_save: bool) -> Mode {
        let known = may_save && self.dialect(protocol).is_some();
        self.snapshot.unwrap_or(if known { Mode::Request } else { Mode::None })
    }

    fn dialect(&self, protocol: Protocol) -> Option<Dialect> {
        let named = self.snapshot_dump_request.is_some() || self.snapshot_load_request.is_some();
        match self.snapshot_dialect {
            Some(dialect) => Some(dialect),
            None if named => Some(Dialect::Requests),
            None => (protocol == Protocol::Resp).then_some(Dialect::Resp),
        }
    }

    fn saved(&self, mode: Mode, protocol: Protocol, problems: &mut Problems) -> Option<SnapshotMode> {
        match mode {
            Mode::None => Some(SnapshotMode::None),
            Mode::Directory => Some(SnapshotMode::Directory),
            Mode::Command => {
                let (dump, load) = (self.snapshot_dump_command.as_ref(), self.snapshot_load_command.as_ref());
                let complete = dump.zip(load);
                let both = "--snapshot command: give both --snapshot-dump-command and --snapshot-load-command";
                problems.check(complete.is_some(), both);
                let shell = |line: &String| vec!["sh".to_owned(), "-c".to_owned(), line.clone()];
                complete.map(|(dump, load)| SnapshotMode::Command { dump: shell(dump), load: shell(load) })
            }
            Mode::Request => self.by_request(protocol, problems).map(SnapshotMode::Request),
        }
    }

    fn by_request(&self, protocol: Protocol, problems: &mut Problems) -> Option<sidecar::Dialect> {
        let goes_with = |problems: &mut Problems, needed: Protocol| {
            let text = format!(
                "--snapshot-dialect {}: goes with --protocol {}",
                name(self.dialect(protocol)),
                adapter::name(&needed)
            );
            problems.check(protocol == needed, text);
        };
        match self.dialect(protocol) {
            Some(Dialect::Resp) => {
                goes_with(problems, Protocol::Resp);
                Some(sidecar::Dialect::Resp)
            }
            Some(Dialect::Hashmap) => {
                goes_with(problems, Protocol::Line);
                Some(sidecar::Dialect::Hashmap)
            }
            Some(Dialect::Requests) => {
                let complete = self.snapshot_dump_request.clone().zip(self.snapshot_load_request.clone());
                let both = "--snapshot request: give both --snapshot-dump-request and --snapshot-load-request";
                problems.check(complete.is_some(), both);
                complete.map(|(dump, load)| sidecar::Dialect::Configured { dump, load })
            }
            None => {
                let text = format!(
                    "--snapshot request: how does it dump? {} has no known way: give --snapshot-dump-request and \
                     --snapshot-load-request",
                    adapter::name(&protocol)
                );
                problems.check(false, text);
                None
            }
        }
    }

    /// What would be without effect is refused.
    fn check_strays(&self, mode: Mode, problems: &mut Problems) {
        let named = self.snapshot_dump_request.is_some() || self.snapshot_load_request.is_some();
        let other = self.snapshot_dialect.is_some_and(|dialect| dialect != Dialect::Requests);
        let rows = [
            (
                "snapshot-dump-command",
                self.snapshot_dump_command.is_some(),
                mode == Mode::Command,
                "--snapshot command",
            ),
            (
                "snapshot-load-command",
                self.snapshot_load_command.is_some(),
                mode == Mode::Command,
                "--snapshot command",
            ),
            ("snapshot-dialect", self.snapshot_dialect.is_some(), mode == Mode::Request, "--snapshot request"),
            (
                "snapshot-dump-request",
                named,
                mode == Mode::Request && !other,
                "--snapshot request, without another dialect",
            ),
        ];
        for (name, given, fits, needed) in rows {
            problems.check(!given || fits, format!("--{name}: goes with {needed}"));
        }
    }

    /// What the application is asked beside its clients' requests must be requests of its protocol.
    fn check_requests(&self, protocol: Protocol, problems: &mut Problems) {
        let protocol = mesh::framing::Protocol::from(protocol);
        let connections = protocol.default_connections();
        let adapter =
            mesh::framing::Adapter { protocol, connections, request_bytes: usize::MAX, reply_bytes: usize::MAX };
        for (name, text) in [
            ("snapshot-dump-request", &self.snapshot_dump_request),
            ("snapshot-load-request", &self.snapshot_load_request),
            ("app-reset-request", &self.app_reset_request),
            ("app-empty-request", &self.app_empty_request),
        ] {
            if let Some(Err(error)) = text.as_ref().map(|text| adapter.compose(text, None)) {
                problems.check(false, format!("--{name}: no request of {protocol}: {error}"));
            }
        }
    }

    /// Whether a request was named that brings the application to its initial state.
    pub(crate) const fn has_reset_request(&self) -> bool {
        self.app_reset_request.is_some()
    }

    /// The flags that tell a sidecar the same.
    pub(crate) fn flags(&self, protocol: Protocol) -> Vec<(&'static str, String)> {
        let mut flags = vec![
            ("snapshot", adapter::name(&self.mode(protocol, true))),
            ("snapshot-every-requests", self.snapshot_every_requests.to_string()),
            ("snapshot-every-bytes", human::format_size(self.snapshot_every_bytes)),
            ("snapshot-timeout", human::format_duration(self.snapshot_timeout)),
            ("log-max-bytes", human::format_size(self.log_max_bytes)),
            ("log-tail-slots", self.log_tail_slots.to_string()),
            ("transfer-rate", human::format_size(self.transfer_rate)),
            ("divergence", adapter::name(&self.divergence)),
        ];
        let optional = [
            ("snapshot-dialect", self.snapshot_dialect.map(|dialect| adapter::name(&dialect))),
            ("snapshot-dump-command", self.snapshot_dump_command.clone()),
            ("snapshot-load-command", self.snapshot_load_command.clone()),
            ("snapshot-dump-request", self.snapshot_dump_request.clone()),
            ("snapshot-load-request", self.snapshot_load_request.clone()),
            ("app-reset-request", self.app_reset_request.clone()),
            ("app-empty-request", self.app_empty_request.clone()),
            ("app-empty-reply", self.app_empty_reply.clone()),
        ];
        flags.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        flags
    }
}

fn name(dialect: Option<Dialect>) -> String {
    dialect.map(|dialect| adapter::name(&dialect)).unwrap_or_default()
}

fn positive_size(text: &str) -> Result<u64, String> {
    match human::parse_size(text)? {
        0 => Err("must be more than nothing".to_owned()),
        size => Ok(size),
    }
}

/// Less than what may be in flight would refuse requests of a healthy cluster.
const LOG_BYTES_MIN: u64 = 1 << 20;

fn log_size(text: &str) -> Result<u64, String> {
    match human::parse_size(text)? {
        size if size < LOG_BYTES_MIN => Err(format!("must be {} at least", human::format_size(LOG_BYTES_MIN))),
        size => Ok(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        recovery: Recovery,
    }

    fn check(protocol: Protocol, argv: &[&str]) -> Result<Checked, String> {
        let cli = Cli::try_parse_from([&["x"], argv].concat()).map_err(|error| error.to_string())?;
        let mut problems = Problems::default();
        let checked = cli.recovery.check(protocol, true, &mut problems);
        problems.into_result(checked).map_err(|error| error.to_string())
    }

    #[test]
    fn snapshots_are_on_where_the_way_to_dump_is_known() {
        let of = |protocol, argv: &[&str]| check(protocol, argv).expect("good settings");
        let resp = of(Protocol::Resp, &[]);
        assert_eq!(resp.mode, SnapshotMode::Request(sidecar::Dialect::Resp));
        assert_eq!(resp.snapshots, Snapshots { every_requests: 100_000, every_bytes: 256 << 20 });
        let line = of(Protocol::Line, &[]);
        assert_eq!(line.mode, SnapshotMode::None);
        let hashmap = of(Protocol::Line, &["--snapshot-dialect", "hashmap"]);
        assert_eq!(hashmap.mode, SnapshotMode::Request(sidecar::Dialect::Hashmap));
        let named = of(Protocol::Length, &["--snapshot-dump-request", "DUMP", "--snapshot-load-request", "LOAD"]);
        let expected = sidecar::Dialect::Configured { dump: "DUMP".to_owned(), load: "LOAD".to_owned() };
        assert_eq!(named.mode, SnapshotMode::Request(expected));
        assert_eq!(of(Protocol::Resp, &["--snapshot", "none"]).mode, SnapshotMode::None);
    }

    #[test]
    fn commands_are_lines_for_the_shell() {
        let lines =
            ["--snapshot", "command", "--snapshot-dump-command", "dump | gzip", "--snapshot-load-command", "load"];
        let sh = |line: &str| vec!["sh".to_owned(), "-c".to_owned(), line.to_owned()];
        let expected = SnapshotMode::Command { dump: sh("dump | gzip"), load: sh("load") };
        assert_eq!(check(Protocol::Line, &lines).expect("good settings").mode, expected);
    }

    #[test]
    fn bounds_and_probes_arrive() {
        let argv =
            ["--log-max-bytes", "8MiB", "--log-tail-slots", "3", "--divergence", "stop", "--app-reset-request", "R"];
        let probe = ["--app-empty-request", "SIZE", "--app-empty-reply", "0"];
        let checked = check(Protocol::Line, &[&argv[..], &probe].concat()).expect("good settings");
        assert_eq!((checked.limits.log_bytes, checked.limits.log_tail_slots), (8 << 20, 3));
        assert_eq!(checked.divergence, mesh::config::Divergence::Stop);
        assert_eq!(checked.reset_request.as_deref(), Some("R"));
        assert_eq!(checked.empty_probe, Some(Probe { request: "SIZE".to_owned(), reply: "0".to_owned() }));
    }

    #[test]
    fn what_has_no_effect_or_only_half_of_it_is_refused_all_at_once() {
        let argv = ["--snapshot", "command", "--snapshot-dump-command", "d", "--snapshot-dump-request", "D"];
        let text = check(Protocol::Line, &[&argv[..], &["--app-empty-reply", "0"]].concat()).expect_err("bad settings");
        for part in ["give both --snapshot-dump-command", "--snapshot-dump-request: goes with", "--app-empty-request"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(check(Protocol::Line, &["--snapshot", "request"]).expect_err("no way").contains("how does it dump"));
        let text = check(Protocol::Line, &["--snapshot-dialect", "resp"]).expect_err("not resp");
        assert!(text.contains("goes with --protocol resp"), "{text}");
        assert!(check(Protocol::Resp, &["--snapshot-load-request", "L"]).is_err());
        let text = check(Protocol::Http, &["--app-reset-request", "RESET"]).expect_err("no request of HTTP");
        assert!(text.contains("--app-reset-request: no request of http"), "{text}");
        assert!(check(Protocol::Http, &["--app-reset-request", "POST /reset"]).is_ok());
        assert!(check(Protocol::Resp, &["--log-max-bytes", "1B"]).is_err());
        assert!(check(Protocol::Resp, &["--snapshot-every-requests", "0"]).is_err());
    }

    #[test]
    fn what_is_handed_on_says_the_same() {
        let argv = ["--snapshot-dialect", "hashmap", "--log-tail-slots", "7", "--app-reset-request", "CLEAR"];
        let cli = Cli::try_parse_from([&["x"][..], &argv].concat()).expect("good settings");
        let flags: Vec<String> =
            cli.recovery.flags(Protocol::Line).into_iter().map(|(name, value)| format!("--{name}={value}")).collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let (first, second) = (check(Protocol::Line, &argv), check(Protocol::Line, &flags));
        assert_eq!(format!("{:?}", first.expect("good")), format!("{:?}", second.expect("good")));
    }
}
