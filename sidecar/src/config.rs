//! What a sidecar is started with.

use anyhow::{Context, ensure};
use mesh::auth::Signatures;
use mesh::config::{ClusterConfig, Divergence, Durability, Snapshots};
use mesh::framing::{Adapter, Protocol, ReadOnly};
use mesh::ids::ReplicaId;
use mesh::limits::{Limits, MEMBERS_MAX, Timing};
use mesh::net::Files;
use mesh::node::hide;
use mesh::wire::roster::ADDRESS_BYTES_MAX;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The application that a sidecar serves.
#[derive(Clone, PartialEq, Eq)]
pub enum App {
    /// One that somebody else starts and restarts, listening in the same network namespace. The sidecar cannot reset
    /// it: after a loss it waits for it to be restarted, which it sees by the identity of the listening socket.
    Address(SocketAddr),
    /// One that this sidecar starts, watches, resets and ends.
    Command {
        /// The program and its arguments; `{port}`, `{id}` and `{dir}` in them are replaced.
        argv: Vec<String>,
        /// The port of 127.0.0.1 that it listens on; also in its environment as `PORT`.
        port: u16,
        /// Its working directory, made if it is missing; its output goes to `application.log` there.
        dir: PathBuf,
    },
}

/// Settings are logged at the start.
impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => f.debug_tuple("Address").field(address).finish(),
            Self::Command { argv, port, dir } => {
                let argv = hide::secrets(argv);
                f.debug_struct("Command").field("argv", &argv).field("port", port).field("dir", dir).finish()
            }
        }
    }
}

impl App {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Address(address) => *address,
            Self::Command { port, .. } => SocketAddr::from(([127, 0, 0, 1], *port)),
        }
    }
}

/// How the state of an unmodified application is saved and brought back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SnapshotMode {
    /// Not at all: the log is kept whole and replayed.
    #[default]
    None,
    /// In the application's own protocol.
    Request(Dialect),
    /// By programs of the user, run in the application's directory with `PORT`, `HOST` and `LOCKSTEP_SLOT` in their
    /// environment.
    Command {
        /// Its standard output is the dump.
        dump: Vec<String>,
        /// Has the dump as its standard input; the application is in its initial state.
        load: Vec<String>,
    },
    /// The application is stopped, its working directory archived, and it is started again; only for a child of the
    /// sidecar. Each reset empties that directory.
    Directory,
}

impl SnapshotMode {
    /// Whether the application is ended and started for it.
    #[must_use]
    pub const fn ends_application(&self) -> bool {
        matches!(self, Self::Directory)
    }
}

/// How a protocol says "give me everything" and "take everything back".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Redis: `SCAN`, `DUMP`, `RESTORE`, of every database.
    Resp,
    /// The example application: `DUMP` in pages, `LOAD`.
    Hashmap,
    /// Requests that the user names: the reply to `dump` is the dump, and `load`, a space and the dump is the request
    /// that brings it back. One request and one reply must hold everything.
    Configured {
        /// The request that is answered with the dump.
        dump: String,
        /// What stands before the dump in the request that loads it.
        load: String,
    },
}

/// A request that tells whether the application is in its initial state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The request, without its frame or line end.
    pub request: String,
    /// The reply of an application in its initial state, likewise.
    pub reply: String,
}

/// What a sidecar is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name: in certificates, handshakes and the journal.
    pub cluster: String,
    /// Which member this is.
    pub id: u32,
    /// The directory with this member's certificate (`pki/server/<id>`).
    pub pki: PathBuf,
    /// Whom to trust, if not the `ca.crt` beside the certificate.
    pub trust_bundle: Option<PathBuf>,
    /// Revocation lists (`pki/crl.pem`); the file may come later.
    pub crl: Option<PathBuf>,
    /// Links that this member made are replaced before they are this old.
    pub link_max_age: Duration,
    /// Where QUIC links come in.
    pub quic: SocketAddr,
    /// Where the admin HTTP port is.
    pub admin: SocketAddr,
    /// Members' ids and HOST:PORT: where to look for them. This one's too, unless it says where it is with `advertise`.
    pub seeds: Vec<(u32, String)>,
    /// HOST:PORT where the others reach this member: goes before what they were started with.
    pub advertise: Option<String>,
    /// Where the journal is; may be left out only with [`Durability::Memory`].
    pub data_dir: Option<PathBuf>,
    /// The application; a witness has none.
    pub app: Option<App>,
    /// Its protocol.
    pub adapter: Adapter,
    /// Which requests change nothing: one replica may answer them without the log.
    pub read_only: ReadOnly,
    /// How writes reach the disk.
    pub durability: Durability,
    /// Whether requests are signed; the same on every member.
    pub request_signatures: Signatures,
    /// Whether replies are signed.
    pub reply_signatures: Signatures,
    /// How long an orderly stop may take.
    pub drain_timeout: Duration,
    /// Time-outs of the ordering.
    pub timing: Timing,
    /// Bounds of the ordering, the log's size among them.
    pub limits: Limits,
    /// When snapshots are taken; `None`: never.
    pub snapshots: Option<Snapshots>,
    /// Bytes in a second at which a peer's snapshot is fetched at most; 0: no bound.
    pub transfer_rate: u64,
    /// What happens when this member's application diverged.
    pub divergence: Divergence,
    /// How long the application may take for one reply before it counts as lost.
    pub app_timeout: Duration,
    /// How the application's state is saved and brought back.
    pub app_snapshot: SnapshotMode,
    /// How long saving it, or bringing it back, may take.
    pub app_snapshot_timeout: Duration,
    /// A request that brings the application to its initial state, for protocols without a general one: without its
    /// frame or line end. RESP has one built in.
    pub app_reset_request: Option<String>,
    /// How to ask whether it is in its initial state, for protocols without a general question.
    pub app_empty_probe: Option<Probe>,
    /// The socket of the supervisor that can restart an application in a container of its own.
    pub app_supervisor: Option<PathBuf>,
}

impl Config {
    /// Where certificate, keys and trust come from.
    #[must_use]
    pub fn files(&self) -> Files {
        Files::new(&self.pki, self.trust_bundle.as_deref(), self.crl.as_deref())
    }

    pub(crate) const fn replica(&self) -> ReplicaId {
        ReplicaId(self.id)
    }

    /// What this member would seed a new cluster with.
    pub(crate) fn seed(&self) -> ClusterConfig {
        let mut seed = ClusterConfig::of(0, &self.adapter.name(), self.durability);
        seed.request_signatures = self.request_signatures;
        seed.request_bytes = u32::try_from(self.adapter.request_bytes).unwrap_or(u32::MAX);
        seed
    }

    /// Refuses settings that contradict themselves.
    ///
    /// # Errors
    /// The first contradiction, and what to do about it.
    pub(crate) fn validate(&self) -> anyhow::Result<()> {
        let ids: std::collections::BTreeSet<u32> = self.seeds.iter().map(|(id, _)| *id).collect();
        ensure!(ids.len() == self.seeds.len(), "--seeds names a member twice");
        ensure!(
            self.advertise.is_some() || ids.contains(&self.id),
            "--seeds must name this member ({}) too, or --advertise say where it is",
            self.id
        );
        if let Some(address) = &self.advertise {
            ensure!(address.len() <= ADDRESS_BYTES_MAX, "--advertise is longer than {ADDRESS_BYTES_MAX} bytes");
        }
        ensure!(ids.len() <= MEMBERS_MAX, "--seeds names {} members, at most {MEMBERS_MAX} are possible", ids.len());
        let memory = self.durability == Durability::Memory;
        ensure!(memory || self.data_dir.is_some(), "--data-dir is needed with durability sync and async");
        let address = matches!(self.app, Some(App::Address(_)));
        ensure!(
            !address || self.data_dir.is_some(),
            "--data-dir is needed with --app: it keeps the identity of the application that was last sent a request, \
             so that a restarted sidecar does not replay on top of old state"
        );
        if let Some(App::Command { argv, .. }) = &self.app {
            ensure!(argv.first().is_some_and(|program| !program.is_empty()), "the application's command is empty");
        }
        ensure!(!self.app_timeout.is_zero(), "the application's time-out must not be zero");
        self.validate_requests()?;
        self.validate_snapshot()
    }

    /// What it is asked beside its clients' requests must be requests of its protocol.
    fn validate_requests(&self) -> anyhow::Result<()> {
        let mut texts = Vec::from_iter(&self.app_reset_request);
        texts.extend(self.app_empty_probe.as_ref().map(|probe| &probe.request));
        if let SnapshotMode::Request(Dialect::Configured { dump, load }) = &self.app_snapshot {
            texts.extend([dump, load]);
        }
        for text in texts {
            let composed = self.adapter.compose(text, None);
            composed.with_context(|| format!("\"{text}\" is no request of {}", self.adapter.protocol))?;
        }
        Ok(())
    }

    fn validate_snapshot(&self) -> anyhow::Result<()> {
        ensure!(!self.app_snapshot_timeout.is_zero(), "the time-out of the application's snapshot must not be zero");
        let some = self.app_snapshot != SnapshotMode::None;
        ensure!(!some || self.data_dir.is_some(), "--data-dir is needed with snapshots of the application");
        let protocol = self.adapter.protocol;
        match &self.app_snapshot {
            SnapshotMode::None => {}
            SnapshotMode::Request(Dialect::Resp) => {
                ensure!(protocol == Protocol::Resp, "snapshots by SCAN and DUMP go with --protocol resp");
            }
            SnapshotMode::Request(Dialect::Hashmap) => {
                ensure!(protocol == Protocol::Line, "snapshots of the hashmap go with --protocol line");
            }
            SnapshotMode::Request(Dialect::Configured { dump, load }) => {
                ensure!(!dump.is_empty() && !load.is_empty(), "snapshots by requests need both, for dump and load");
            }
            SnapshotMode::Command { dump, load } => {
                let named = |command: &[String]| command.first().is_some_and(|program| !program.is_empty());
                ensure!(named(dump) && named(load), "snapshots by commands need both, for dump and load");
            }
            SnapshotMode::Directory => {
                let child = matches!(self.app, Some(App::Command { .. }) | None);
                ensure!(child, "snapshots of the directory need the application as a COMMAND of the sidecar");
            }
        }
        Ok(())
    }

    /// Refuses a cluster that this member's settings do not fit (rule 15).
    ///
    /// # Errors
    /// Which setting differs, and what to do about it.
    pub(crate) fn check_cluster(&self, cluster: &ClusterConfig) -> anyhow::Result<()> {
        cluster.validate().context("the cluster's configuration cannot be used")?;
        if let Some(own) = cluster.member(self.replica()) {
            let (known, fit) = match own.application {
                true => ("with an application", "without --witness"),
                false => ("as a witness", "with --witness"),
            };
            ensure!(
                own.application == self.app.is_some(),
                "the cluster has this member {known}: start it {fit}. To have it changed: `lockstep members remove {0}`, \
                 then, with it stopped, `lockstep members set-aside {0}`; it joins anew as it is started then",
                self.id
            );
        }
        let own = self.adapter.name();
        ensure!(
            cluster.adapter == own,
            "the cluster was bootstrapped with protocol {}, this member is set to {own}: set --protocol and \
             --app-connections as on the other members",
            cluster.adapter
        );
        ensure!(
            cluster.durability == self.durability,
            "the cluster was bootstrapped with durability {:?}, this member is set to {:?}: set --durability as on the \
             other members",
            cluster.durability,
            self.durability
        );
        ensure!(
            cluster.request_signatures == self.request_signatures,
            "the cluster was bootstrapped with request signatures {:?}, this member is set to {:?}: set \
             --request-signatures as on the other members",
            cluster.request_signatures,
            self.request_signatures
        );
        Ok(())
    }
}
