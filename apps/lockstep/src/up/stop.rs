//! The end of everything, in order: who takes requests first, who answers them last.

use super::children::{Children, Part};
use super::output::{Event, shown_status};
use super::plan::STAGES;
use super::state::Role;
use crate::process;
use rustix::process::Signal;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// For a process that was killed to be gone.
const KILLED: Duration = Duration::from_secs(2);
/// For applications that no sidecar ended.
const ORPHANS: Duration = Duration::from_secs(1);

/// Ends all parts within `total`, and then kills what is left; `tell` hears of every end.
pub(crate) async fn stop(children: &mut Children, total: Duration, tell: &mut dyn FnMut(&Event<'_>)) {
    for (role, share, _) in STAGES {
        children.signal(role, Signal::TERM);
        if !wait(children, role, total.mul_f64(share), tell).await {
            tracing::warn!(role = role.as_str(), "did not end in time and is killed");
            children.signal(role, Signal::KILL);
            wait(children, role, KILLED, tell).await;
        }
    }
    let orphans: Vec<_> = children.parts.iter().filter_map(Part::live_app).collect();
    process::end(&orphans, ORPHANS).await;
}

async fn wait(children: &mut Children, role: Role, within: Duration, tell: &mut dyn FnMut(&Event<'_>)) -> bool {
    let end = Instant::now() + within;
    loop {
        for ended in children.reap() {
            let plan = &children.parts[ended.index].plan;
            tell(&Event::Exited { role: plan.role, id: plan.id, pid: ended.pid, status: shown_status(ended.status) });
        }
        if !children.any_alive(Some(role)) {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        sleep(Duration::from_millis(20)).await;
    }
}
