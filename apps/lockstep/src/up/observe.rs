//! Watches the parts through their admin ports: are they ready, and as which process does the application run?

use super::plan::PartPlan;
use super::state::Role;
use crate::http;
use crate::process::Process;
use hyper::StatusCode;
use mesh::node::grid;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Between two looks at a part that is not ready.
const WAITING: Duration = Duration::from_millis(100);
/// Between two looks at one that is, unless its application has ended.
const WATCHING: Duration = Duration::from_secs(4);

/// One look at one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Which part.
    pub(crate) index: usize,
    /// Whether it says that it is ready (for a sidecar: with a leader and its application running).
    pub(crate) ready: bool,
    /// The application's pid, where it is known.
    pub(crate) app_pid: Option<u32>,
}

/// Looks at all parts, again and again, until dropped.
#[derive(Debug)]
pub(crate) struct Observer {
    looks: mpsc::Receiver<Look>,
    _tasks: JoinSet<()>,
}

impl Observer {
    /// Begins to look.
    pub(crate) fn new(parts: &[PartPlan]) -> Self {
        let (sender, looks) = mpsc::channel(parts.len().max(1));
        let mut tasks = JoinSet::new();
        for (index, part) in parts.iter().enumerate() {
            tasks.spawn(watch(index, part.role, part.admin.to_string(), sender.clone()));
        }
        Self { looks, _tasks: tasks }
    }

    /// The next look.
    pub(crate) async fn next(&mut self) -> Look {
        match self.looks.recv().await {
            Some(look) => look,
            // The watchers never end by themselves.
            None => std::future::pending().await,
        }
    }
}

async fn watch(index: usize, role: Role, admin: String, looks: mpsc::Sender<Look>) {
    let mut was_ready = false;
    loop {
        let look = look(index, role, &admin, was_ready).await;
        was_ready = look.ready;
        let pause = if look.ready { WATCHING } else { WAITING };
        let app = look.app_pid;
        if looks.send(look).await.is_err() {
            return;
        }
        tokio::select! {
            () = grid::sleep(pause) => {}
            // Its sidecar has to notice, too, and may say for a moment that it still runs.
            () = app_ended(app) => sleep(WAITING).await,
        }
    }
}

/// Resolves when the application has ended: this is not its sidecar's work.
async fn app_ended(pid: Option<u32>) {
    match pid.map(Process::with_pid) {
        None => std::future::pending().await,
        Some(None) => {}
        Some(Some(app)) => app.ended().await,
    }
}

/// Of a sidecar that was ready its status tells enough.
async fn look(index: usize, role: Role, admin: &str, was_ready: bool) -> Look {
    let knows = was_ready && role == Role::Sidecar;
    let ready = knows || http::get(admin, "/readyz").await.is_ok_and(|(status, _)| status == StatusCode::OK);
    if role != Role::Sidecar {
        return Look { index, ready, app_pid: None };
    }
    // Also of one that is not ready: an application is to be known from its first moment.
    let status = http::get_json(admin, "/status").await.unwrap_or_default();
    let runs = !status["leader"].is_null() && matches!(status["app"].as_str(), Some("running" | "none"));
    let app_pid = status["app_pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    Look { index, ready: ready && runs, app_pid }
}
