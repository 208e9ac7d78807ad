//! The settings of `up`, checked as a whole.

use super::output::Format;
use crate::parts::adapter::{self, Connections, Durability, Protocol, Sizes, Vote};
use crate::parts::addresses::tcp_address;
use crate::parts::common::{Logging, cluster_name, flag, link_max_age};
use crate::parts::ingress::{Clients, ListenTls};
use crate::parts::reads::{Reads, Words};
use crate::parts::recovery::{self, Dialect, Recovery};
use crate::parts::signatures::{Mode, Modes};
use mesh::framing::{Adapter, ReadOnly};
use mesh::limits::MEMBERS_MAX;
use mesh::net::OutsideFiles;
use mesh::node::config::{Problems, SettingsError};
use mesh::node::human;
use mesh::quorum;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How long the application may take for one request, unless told otherwise.
const APP_TIMEOUT: Duration = Duration::from_secs(4);

/// Settings of `up`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Copies of the application; survives the loss of any minority of them
    #[arg(short = 'n', long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=MEMBERS_MAX as i64))]
    replicas: u32,
    /// Members without a copy of the application beside these: they vote and keep the log, so that with -n 2 and one of
    /// them any one of the three may be lost
    #[arg(long, value_name = "N", default_value_t = 0)]
    witnesses: u32,
    /// SMaRtClients; 0: the ingress has one inside, which saves a link and a process on the way of each request
    #[arg(long, value_name = "M", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=64))]
    smart_clients: u32,
    /// Where clients come in, over TCP; port 0: any
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7000", value_parser = tcp_address)]
    listen: SocketAddr,
    /// The application's protocol; required with COMMAND, line without
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
    /// How the application's connections are used; by default as the protocol allows
    #[arg(long, value_enum, value_name = "POLICY")]
    app_connections: Option<Connections>,
    #[command(flatten)]
    sizes: Sizes,
    /// How requests that change nothing are answered. Where anything is signed, or --reply-vote is all, they go through the
    /// log in any case
    #[arg(long, value_enum, value_name = "WAY", default_value = "index")]
    reads: Reads,
    #[command(flatten)]
    words: Words,
    #[command(flatten)]
    clients: Clients,
    #[command(flatten)]
    tls: ListenTls,
    /// Replace every link between parts before it is this old, without losing anything
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = link_max_age)]
    link_max_age: Duration,
    /// After anything happened, every part looks for so long without a pause for what comes next before it sleeps: quicker
    /// answers to few clients, where processors have nothing else to do
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = human::parse_duration)]
    spin: Duration,
    /// How writes reach the disk before they are acknowledged
    #[arg(long, value_enum, value_name = "MODE", default_value = "sync")]
    durability: Durability,
    /// How many equal replies make an answer
    #[arg(long, value_enum, value_name = "RULE", default_value = "majority")]
    reply_vote: Vote,
    /// Keep everything here, and go on with it at the next start; without it a temporary directory, removed at exit
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Name of the cluster: DNS labels, as in the certificates
    #[arg(long, value_name = "NAME", default_value = "local", value_parser = cluster_name)]
    cluster: String,
    #[command(flatten)]
    recovery: Recovery,
    /// Whether requests and replies are signed, so that a malicious SMaRtClient can only delay. Without MODE: required
    #[arg(long, value_enum, value_name = "MODE", num_args = 0..=1, default_value = "off", default_missing_value = "required")]
    signatures: Mode,
    /// The same for requests alone
    #[arg(long, value_enum, value_name = "MODE", num_args = 0..=1, default_missing_value = "required")]
    request_signatures: Option<Mode>,
    /// The same for replies alone
    #[arg(long, value_enum, value_name = "MODE", num_args = 0..=1, default_missing_value = "required")]
    reply_signatures: Option<Mode>,
    /// After this a client is told what is known of its request
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = human::parse_positive_duration)]
    deadline: Duration,
    /// How long the application may take for one request; less than half of --deadline. By default 4s, or two fifths of
    /// the deadline where that is less
    #[arg(long, value_name = "DURATION", value_parser = human::parse_positive_duration)]
    app_timeout: Option<Duration>,
    /// How long the end of everything may take after SIGTERM
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = human::parse_positive_duration)]
    drain_timeout: Duration,
    /// Leave a part that ended as it is
    #[arg(long)]
    no_restart: bool,
    /// Admin ports: this + id for sidecars, + 100 + id for SMaRtClients, + 300 + id for ingresses; by default free ones
    #[arg(long, value_name = "PORT")]
    admin_base_port: Option<u16>,
    /// What to print on stdout: text for people, or a JSON object a line
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
    #[command(flatten)]
    pub(super) logging: Logging,
    /// The application to run; {port}, {id} and {dir} are replaced, PORT is in its environment. Without it: the hashmap
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The settings, checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) replicas: u32,
    pub(crate) witnesses: u32,
    pub(crate) smart_clients: u32,
    pub(crate) spin: Duration,
    pub(crate) listen: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) connections: Connections,
    pub(crate) adapter: Adapter,
    pub(crate) reads: Reads,
    pub(crate) read_only: ReadOnly,
    pub(crate) clients: Clients,
    pub(crate) tls: Option<OutsideFiles>,
    pub(crate) link_max_age: Duration,
    pub(crate) durability: Durability,
    pub(crate) recovery: Recovery,
    pub(crate) reply_vote: Vote,
    pub(crate) signatures: Modes,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) cluster: String,
    pub(crate) deadline: Duration,
    pub(crate) app_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) restart: bool,
    pub(crate) admin_base_port: Option<u16>,
    pub(crate) output: Format,
    pub(crate) log: Option<String>,
    pub(crate) log_format: String,
    /// Empty: the hashmap.
    pub(crate) command: Vec<String>,
}

impl Settings {
    /// Members, with an application or without.
    pub(crate) const fn members(&self) -> u32 {
        self.replicas + self.witnesses
    }

    /// How many machines may be lost, whichever: a majority of the members must be left, and enough applications to answer.
    pub(crate) fn tolerated(&self) -> usize {
        let (members, applications) = (self.members() as usize, self.replicas as usize);
        quorum::tolerated(members).min(applications.saturating_sub(quorum::deciding(applications)))
    }
}

impl Args {
    /// Settings that do not go together.
    pub(crate) fn check(self) -> Result<(), SettingsError> {
        self.settings().map(drop)
    }

    /// The settings, or everything that is wrong with them.
    pub(crate) fn settings(mut self) -> Result<Settings, SettingsError> {
        let mut problems = Problems::default();
        let protocol = self.checked_protocol(&mut problems);
        if let Some(command) = self.command.first() {
            problems.check(is_program(command), format!("COMMAND: there is no program \"{command}\" that can be run"));
        }
        if let Some(base) = self.admin_base_port {
            problems.check(
                base > 0 && base.checked_add(300).is_some(),
                "--admin-base-port: must leave room for 300 more ports",
            );
        }
        let members = self.replicas.saturating_add(self.witnesses);
        problems.check(
            members as usize <= MEMBERS_MAX,
            format!("--witnesses: {members} members with the replicas, at most {MEMBERS_MAX} are possible"),
        );
        self.check_snapshots(protocol, &mut problems);
        self.clients.check(protocol, &mut problems);
        let read_only = std::mem::take(&mut self.words).or_hashmap(self.command.is_empty(), protocol);
        let read_only = read_only.check(protocol, &mut problems);
        let app_timeout = self.checked_app_timeout(&mut problems);
        let connections = self.app_connections.unwrap_or_else(|| protocol.default_connections());
        let adapter = flag(&mut problems, "app-connections", adapter::adapter(protocol, Some(connections), self.sizes));
        let settings = adapter.map(|adapter| Settings {
            replicas: self.replicas,
            witnesses: self.witnesses,
            smart_clients: self.smart_clients,
            spin: self.spin,
            listen: self.listen,
            protocol,
            connections,
            adapter,
            reads: self.reads,
            read_only,
            clients: self.clients,
            tls: self.tls.files(),
            link_max_age: self.link_max_age,
            durability: self.durability,
            recovery: self.recovery,
            reply_vote: self.reply_vote,
            signatures: Modes {
                requests: self.request_signatures.unwrap_or(self.signatures),
                replies: self.reply_signatures.unwrap_or(self.signatures),
            },
            data_dir: self.data_dir,
            cluster: self.cluster,
            deadline: self.deadline,
            app_timeout,
            drain_timeout: self.drain_timeout,
            restart: !self.no_restart,
            admin_base_port: self.admin_base_port,
            output: self.output,
            log: self.logging.log,
            log_format: adapter::name(&self.logging.log_format),
            command: self.command,
        });
        problems.into_result(settings)
    }

    /// The hashmap's way to dump is known; its directory holds nothing of it.
    fn check_snapshots(&mut self, protocol: Protocol, problems: &mut Problems) {
        let hashmap = self.command.is_empty();
        let recovery = &mut self.recovery;
        if hashmap && protocol == Protocol::Line && matches!(recovery.snapshot, None | Some(recovery::Mode::Request)) {
            recovery.snapshot_dialect.get_or_insert(Dialect::Hashmap);
        }
        let kept = !hashmap || recovery.snapshot != Some(recovery::Mode::Directory);
        problems.check(kept, "--snapshot directory: the hashmap keeps nothing in its directory; give request");
        // The sidecars check it again, but too late for a clear word.
        recovery.check(protocol, true, problems);
    }

    /// A request that no application answers is aborted by order; its sender must still be there to be told (rule 23).
    fn checked_app_timeout(&self, problems: &mut Problems) -> Duration {
        let most = self.deadline.mul_f64(0.4);
        let Some(given) = self.app_timeout else { return most.min(APP_TIMEOUT) };
        let (app, all) = (human::format_duration(given), human::format_duration(self.deadline));
        problems.check(
            given.saturating_mul(2) < self.deadline,
            format!("--app-timeout {app}: must be less than half of --deadline, which is {all}: raise that too"),
        );
        given
    }

    fn checked_protocol(&self, problems: &mut Problems) -> Protocol {
        match (self.protocol, self.command.is_empty()) {
            (None, false) => {
                problems.check(false, "--protocol is missing: say where requests and replies of COMMAND end");
                Protocol::Line
            }
            (Some(protocol @ (Protocol::Length | Protocol::Http | Protocol::Resp)), true) => {
                let name = adapter::name(&protocol);
                problems.check(
                    false,
                    format!("--protocol {name}: the hashmap does not speak it; give a COMMAND that does, after --"),
                );
                protocol
            }
            (protocol, _) => protocol.unwrap_or(Protocol::Line),
        }
    }
}

/// Whether this can be run as it is, or is found in PATH.
fn is_program(command: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let runs =
        |path: PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    // The path may depend on the replica: it shows when it is started.
    if command.contains('{') {
        return true;
    }
    if command.contains('/') {
        return runs(PathBuf::from(command));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| runs(dir.join(command)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command;

    fn read(argv: &[&str]) -> Result<Settings, SettingsError> {
        match crate::parse(&[&["up"], argv].concat())? {
            Command::Up(args) => args.settings(),
            other => panic!("not up: {other:?}"),
        }
    }

    fn problems(argv: &[&str]) -> String {
        read(argv).expect_err("these settings are bad").to_string()
    }

    #[test]
    fn without_a_command_it_is_the_hashmap_by_lines() {
        let settings = read(&[]).expect("no setting is required");
        assert_eq!((settings.replicas, settings.smart_clients, settings.protocol), (3, 2, Protocol::Line));
        assert_eq!((settings.connections, settings.restart), (Connections::Shared, true));
        assert_eq!(settings.listen.to_string(), "127.0.0.1:7000");
        assert!(problems(&["--protocol", "resp"]).contains("hashmap"));
    }

    #[test]
    fn a_command_needs_a_protocol_and_must_exist() {
        let text = problems(&["--", "no-such-program-anywhere"]);
        assert!(text.contains("--protocol is missing") && text.contains("no-such-program-anywhere"), "{text}");
        let settings = read(&["--protocol", "close", "--", "sh", "-c", "x"]).expect("there is a shell");
        assert_eq!(settings.connections, Connections::PerRequest);
        assert!(
            problems(&["--protocol", "close", "--app-connections", "shared", "--", "sh"]).contains("--app-connections")
        );
    }

    #[test]
    fn one_option_sets_both_kinds_of_signatures_and_each_has_its_own() {
        let modes = |argv: &[&str]| {
            let modes = read(argv).expect("good settings").signatures;
            (modes.requests, modes.replies)
        };
        assert_eq!(modes(&[]), (Mode::Off, Mode::Off));
        assert_eq!(modes(&["--signatures"]), (Mode::Required, Mode::Required));
        assert_eq!(modes(&["--signatures", "optional", "--reply-signatures", "off"]), (Mode::Optional, Mode::Off));
        assert_eq!(modes(&["--reply-signatures"]), (Mode::Off, Mode::Required));
    }

    #[test]
    fn snapshots_are_on_where_the_way_to_dump_is_known() {
        let mode = |argv: &[&str]| {
            let settings = read(argv).expect("good settings");
            settings.recovery.mode(settings.protocol, true)
        };
        assert_eq!(mode(&[]), recovery::Mode::Request);
        assert_eq!(mode(&["--protocol", "resp", "--", "sh"]), recovery::Mode::Request);
        assert_eq!(mode(&["--protocol", "line", "--", "sh"]), recovery::Mode::None);
        assert_eq!(mode(&["--protocol", "close"]), recovery::Mode::None);
        assert_eq!(mode(&["--snapshot", "none"]), recovery::Mode::None);
        assert!(problems(&["--snapshot", "directory"]).contains("the hashmap keeps nothing"));
        assert!(problems(&["--protocol", "line", "--snapshot", "request", "--", "sh"]).contains("how does it dump"));
    }

    #[test]
    fn an_application_has_less_than_half_of_the_time_that_a_client_waits() {
        let timeout = |argv: &[&str]| read(argv).expect("good settings").app_timeout;
        assert_eq!(timeout(&[]), Duration::from_secs(4));
        assert_eq!(timeout(&["--deadline", "1s"]), Duration::from_millis(400));
        assert_eq!(timeout(&["--deadline", "60s", "--app-timeout", "20s"]), Duration::from_secs(20));
        assert!(problems(&["--app-timeout", "5s"]).contains("half of --deadline"));
    }

    #[test]
    fn a_quiet_period_is_for_the_protocol_without_ends_of_requests() {
        let close = ["--protocol", "close", "--quiet-period"];
        read(&[&close[..], &["500ms"]].concat()).expect("good settings");
        assert!(problems(&[&close[..], &["60s"]].concat()).contains("--request-timeout"));
        assert!(problems(&["--quiet-period", "1s"]).contains("it is for close"));
    }

    #[test]
    fn numbers_of_parts_are_bounded() {
        assert!(
            read(&["-n", "0"]).is_err() && read(&["-n", "64"]).is_err() && read(&["--smart-clients", "65"]).is_err()
        );
        assert_eq!(read(&["-n", "11"]).expect("eleven replicas work").replicas, 11);
    }
}
