//! What `up` prints on stdout: for people, or one JSON object a line. Logs go elsewhere (stderr).

use super::plan::{PartPlan, Plan};
use super::state::Role;
use crate::parts::adapter::Protocol;
use crate::up::args::Settings;
use serde::Serialize;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

/// How output looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// The application of a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AppShown {
    /// Its process, null where it is not known or not there.
    pub(crate) pid: Option<u32>,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
}

/// A part that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PartShown {
    role: Role,
    id: u32,
    pid: Option<u32>,
    admin: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    quic: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<AppShown>,
}

impl PartShown {
    /// A part of the plan, as these processes.
    pub(crate) fn new(plan: &PartPlan, pid: Option<u32>, app_pid: Option<u32>) -> Self {
        Self {
            role: plan.role,
            id: plan.id,
            pid,
            admin: plan.admin,
            quic: plan.quic,
            listen: plan.listen,
            app: plan.app.map(|addr| AppShown { pid: app_pid, addr }),
        }
    }
}

/// Why something was started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reason {
    /// The part had ended.
    Part,
    /// Its application had.
    App,
}

/// What happens while `up` runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event<'a> {
    /// A request would succeed. Printed once.
    Ready { listen: SocketAddr, data_dir: &'a Path, pki: &'a Path, processes: Vec<PartShown> },
    /// A part ended.
    Exited { role: Role, id: u32, pid: u32, status: String },
    /// A part, or an application, runs again.
    Started {
        #[serde(flatten)]
        part: PartShown,
        reason: Reason,
    },
}

/// An end as "exit 0" or "signal 9".
pub(crate) fn shown_status(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}

/// Prints an event as JSON. A closed stdout means that nobody reads: `up` runs on.
pub(crate) fn print_json(event: &Event<'_>) {
    if let Ok(text) = serde_json::to_string(event) {
        print(&format!("{text}\n"));
    }
}

/// Prints `text` at once.
pub(crate) fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// How to go on, for people.
pub(crate) fn welcome(settings: &Settings, plan: &Plan) -> String {
    let application = settings.command.first().map_or("the hashmap".to_owned(), |command| format!("\"{command}\""));
    let (n, listen, data_dir) = (settings.replicas, plan.listen, plan.data_dir.display());
    let witnesses = match settings.witnesses {
        0 => String::new(),
        1 => " and a witness".to_owned(),
        many => format!(" and {many} witnesses"),
    };
    // Somebody with the application must be left.
    let survives = match settings.tolerated() {
        0 => "no loss".to_owned(),
        1 => "the loss of any one".to_owned(),
        f => format!("the loss of any {f}"),
    };
    let kept = if settings.data_dir.is_some() { "" } else { " (removed at exit)" };
    let mut text = format!(
        "\nLockstep is ready: {application} on {listen}, {n} replicas{witnesses} in lockstep; survives {survives}.\n\n"
    );
    for (what, command) in [
        ("try", example(settings, listen)),
        ("status", format!("lockstep status --data-dir {data_dir}")),
        ("logs", format!("{}{kept}", plan.data_dir.join("logs").display())),
        ("stop", "Ctrl-C".to_owned()),
    ] {
        text.push_str(&format!("  {what:<8}{command}\n"));
    }
    text.push('\n');
    text
}

/// A command that speaks the protocol.
fn example(settings: &Settings, listen: SocketAddr) -> String {
    let (host, port) =
        (if listen.ip().is_unspecified() { "127.0.0.1".to_owned() } else { listen.ip().to_string() }, listen.port());
    match (settings.protocol, settings.command.is_empty()) {
        (Protocol::Line, true) => format!("printf 'PUT greeting hello\\nGET greeting\\n' | nc -N {host} {port}"),
        (Protocol::Close, true) => format!("printf 'PUT greeting hello\\n' | nc -N {host} {port}"),
        (Protocol::Http, _) => format!("curl -i http://{host}:{port}/"),
        (Protocol::Resp, _) => format!("redis-cli -h {host} -p {port}"),
        (Protocol::Line, false) => format!("nc {host} {port}"),
        (Protocol::Close, false) => format!("nc -N {host} {port} < request"),
        (Protocol::Length, _) => format!("printf '\\000\\000\\000\\004ping' | nc {host} {port} | xxd"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(role: Role, quic: bool, listen: bool, app: bool) -> PartPlan {
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        PartPlan {
            role,
            id: 0,
            admin: address(9400),
            quic: quic.then(|| address(7500)),
            listen: listen.then(|| address(7000)),
            app: app.then(|| address(9500)),
            arguments: Vec::new(),
            log: "log".into(),
        }
    }

    fn json(event: &Event<'_>) -> String {
        serde_json::to_string(event).expect("events are JSON")
    }

    #[test]
    fn ready_lists_every_process_as_outside_programs_expect_it() {
        let event = Event::Ready {
            listen: "127.0.0.1:7000".parse().expect("an address"),
            data_dir: Path::new("/d"),
            pki: Path::new("/d/pki"),
            processes: vec![
                PartShown::new(&part(Role::Sidecar, true, false, true), Some(41), Some(51)),
                PartShown::new(&part(Role::SmartClient, true, false, false), Some(44), None),
                PartShown::new(&part(Role::Ingress, false, true, false), Some(46), None),
            ],
        };
        let expected = concat!(
            r#"{"event":"ready","listen":"127.0.0.1:7000","data_dir":"/d","pki":"/d/pki","processes":["#,
            r#"{"role":"sidecar","id":0,"pid":41,"admin":"127.0.0.1:9400","quic":"127.0.0.1:7500","app":{"pid":51,"addr":"127.0.0.1:9500"}},"#,
            r#"{"role":"smart-client","id":0,"pid":44,"admin":"127.0.0.1:9400","quic":"127.0.0.1:7500"},"#,
            r#"{"role":"ingress","id":0,"pid":46,"admin":"127.0.0.1:9400","listen":"127.0.0.1:7000"}]}"#,
        );
        assert_eq!(json(&event), expected);
    }

    #[test]
    fn ends_and_starts_are_told_as_outside_programs_expect_them() {
        let exited =
            Event::Exited { role: Role::Sidecar, id: 0, pid: 41, status: shown_status(ExitStatus::from_raw(9)) };
        assert_eq!(json(&exited), r#"{"event":"exited","role":"sidecar","id":0,"pid":41,"status":"signal 9"}"#);
        let part = PartShown::new(&part(Role::Sidecar, true, false, true), Some(61), Some(77));
        let expected = concat!(
            r#"{"event":"started","role":"sidecar","id":0,"pid":61,"admin":"127.0.0.1:9400","quic":"127.0.0.1:7500","#,
            r#""app":{"pid":77,"addr":"127.0.0.1:9500"},"reason":"app"}"#,
        );
        assert_eq!(json(&Event::Started { part, reason: Reason::App }), expected);
        assert_eq!(shown_status(ExitStatus::from_raw(3 << 8)), "exit 3");
    }
}
