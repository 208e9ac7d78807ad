//! The subcommands.

use crate::commands::{
    abort, backup, bootstrap, call, certs, check, config, debug, diff, generate, inject, journal, members, smoke,
    snapshot, status, top,
};
use crate::parts::{exec, ingress, sidecar, smart_client};
use crate::up;
use clap::{Parser, Subcommand};

/// Version and commit, as `--version` shows them.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("LOCKSTEP_BUILD_COMMIT"), ")");

/// Keeps N copies of an unmodified TCP server in lockstep, so that the service survives the loss of any minority of them.
///
/// Every flag has an environment variable LOCKSTEP_FLAG and a key in the TOML file that --config names (the flag
/// with _); flags win over the environment, which wins over the file.
///
/// Exit codes: 0 well, 1 failed, 2 wrong usage or configuration, 3 refused (exists already, would break a rule),
/// 4 invalid, expired or untrusted input, 5 not healthy, 6 outcome unknown (call), 7 refused by the service (call).
#[derive(Debug, Parser)]
#[command(name = "lockstep", version = VERSION, propagate_version = true, max_term_width = 120)]
pub(crate) struct Cli {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything on this machine around any TCP server: certificates, replicas, SMaRtClients, an ingress
    Up(Box<up::Args>),
    /// Run one SMaRtServer beside its copy of the application
    Sidecar(Box<sidecar::Args>),
    /// Run one SMaRtClient: asks all servers, votes on their replies
    SmartClient(Box<smart_client::Args>),
    /// Run one ingress: takes TCP connections of unmodified clients
    Ingress(Box<ingress::Args>),
    /// Supervise an application in a container of its own for the sidecar in another one: start, exit, reset
    ///
    /// The application is started again whenever it ends, and at once when the sidecar has to reset it, which takes
    /// milliseconds. SIGTERM is passed on; the exit code is then the application's.
    Exec(exec::Args),
    /// Do nothing until SIGTERM: keeps a container alive in which commands are run
    Idle,
    /// Make the explicit first start of a cluster; safe to run at any time
    Bootstrap(bootstrap::Args),
    /// Show the cluster at a glance
    Status(status::Args),
    /// Show the cluster live: rates, latencies, who leads
    Top(top::Args),
    /// Check this installation: a line for each thing that must hold, and what to do about what does not
    ///
    /// Exit codes: 0 healthy, 4 a certificate is invalid, expired or not trusted, 5 not healthy or about to expire.
    Check(check::Args),
    /// Write and read a key of its own through an ingress, and remove it again
    ///
    /// In the requests {key} and {value} are replaced; both are drawn anew for each run. The requests that are built in are
    /// those of Redis (resp), of a store of keys over HTTP (http: PUT, GET and DELETE /{key}) and of the example hashmap
    /// (the others). Only plain TCP is spoken.
    ///
    /// Exit codes: 0 what was written was read; 1 nobody is there, or another reply came than expected; 6 no reply came:
    /// the key may be left behind; 7 the service refused a request, which did not run.
    Smoke(smoke::Args),
    /// Pack status, configuration without secrets, metrics and the last logs into one file
    Debug(debug::Args),
    /// Measure: load anything, a cluster of its own, or all that is compared with it
    Bench(Box<bench::Args>),
    /// Send one request through the native client and print the reply
    Call(call::Args),
    /// Show the members, and change who takes part while the cluster serves
    Members {
        /// What to do
        #[command(subcommand)]
        command: members::Command,
    },
    /// List, verify, take and restore snapshots
    Snapshot {
        /// What to do
        #[command(subcommand)]
        command: snapshot::Command,
    },
    /// Make a backup of a running cluster, and begin with one
    Backup {
        /// What to do
        #[command(subcommand)]
        command: backup::Command,
    },
    /// End a request that the application does not answer: it is skipped everywhere, and its client is told
    Abort(abort::Args),
    /// Show what a replica that diverged said, beside what it said after it was rebuilt
    Diff(diff::Args),
    /// Make the certificate authority and the certificates of the parts
    Certs {
        /// What to do
        #[command(subcommand)]
        command: certs::Command,
    },
    /// Make a Kubernetes StatefulSet a replicated one: prints it on stdout with the sidecar in, and on stderr what is left to do
    ///
    /// The pod gets the sidecar, a volume for its log and its certificates; the application's container gets a liveness probe
    /// and a preStop hook, and with --supervise a command that restarts the application without its container. Beside the
    /// StatefulSet comes the headless Service NAME-lockstep, which becomes its serviceName. What the API server wrote into
    /// the manifest (status, uid) is left out. Needs Kubernetes 1.29 or later.
    ///
    /// Exit codes: 2 a setting is missing, or the input is no YAML or no StatefulSet's; 3 the outcome would not do what is
    /// expected of it: each sentence says what to change.
    Inject(Box<inject::Args>),
    /// Read the journal of a server
    Journal {
        /// What to do
        #[command(subcommand)]
        command: journal::Command,
    },
    /// Check or show the settings that a part would be started with
    Config {
        /// What to do
        #[command(subcommand)]
        command: config::Command,
    },
    /// Print completions for a shell
    Completions(generate::Completions),
    /// Write man pages
    Man(generate::Man),
    /// Run the example application, a hashmap over TCP
    Hashmap(hashmap::Args),
}
