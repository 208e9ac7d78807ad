//! Changes the StatefulSet. Everything in it that is not named here stays as it was.

use super::Options;
use super::check::Found;
use super::node::Node;
use super::parts::{self, DRAIN, EXEC, EXEC_DIR, SOCKET, USER};

/// Seconds beyond the drain and the application's own end.
const MARGIN: u64 = 10;
/// The application's liveness: looks that fail before its container is restarted, and seconds that it has for its end then.
const FAILURES: u64 = 5;
const LIVENESS_GRACE: u64 = 5;
/// What the API server wrote into a manifest that was taken from it; it refuses to be told.
const WRITTEN_BY_SERVER: [&str; 6] =
    ["creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"];

/// Makes the StatefulSet a replicated one.
pub(super) fn change(set: &mut Node, found: &Found, options: &Options) {
    set.remove("status");
    let metadata = set.child("metadata");
    for key in WRITTEN_BY_SERVER {
        metadata.remove(key);
    }
    if metadata.get("annotations").is_some() {
        metadata.child("annotations").remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    let spec = set.child("spec");
    spec.set("serviceName", Node::text(found.service()));
    spec.set("podManagementPolicy", Node::text("Parallel"));
    change_pod(spec.child("template").child("spec"), found, options);
    spec.push("volumeClaimTemplates", parts::claim(options));
}

fn change_pod(pod: &mut Node, found: &Found, options: &Options) {
    // The hook runs before the application is told to end; the sidecar ends after it.
    pod.set("terminationGracePeriodSeconds", Node::number(DRAIN + found.grace + MARGIN));
    // Certificates and data belong to this group; another that is there serves as well.
    if pod.at(&["securityContext", "fsGroup"]).is_none() {
        let context = pod.child("securityContext");
        context.set("fsGroup", Node::number(USER));
        context.set("fsGroupChangePolicy", Node::text("OnRootMismatch"));
    }
    // After the user's own: what these prepare is there when the replica starts.
    if found.supervise {
        pod.push("initContainers", parts::installer(options));
    }
    pod.push("initContainers", parts::sidecar(found, options));
    change_container(pod.item("containers", found.container), found);
    pod.push("volumes", parts::certificates(found));
    if found.supervise {
        pod.push("volumes", Node::map([("name", Node::text(EXEC)), ("emptyDir", Node::Map(Vec::new()))]));
    }
}

fn change_container(container: &mut Node, found: &Found) {
    if found.supervise {
        let words = [&format!("{EXEC_DIR}/lockstep"), "exec", "--socket", SOCKET, "--"].map(Node::text);
        let command = words.into_iter().chain(container.items("command").iter().cloned());
        container.set("command", Node::list(command));
        container.push("volumeMounts", parts::mount(EXEC, EXEC_DIR));
    }
    let mut liveness = parts::probe("/app/livez", 2, 2, FAILURES);
    liveness.set("terminationGracePeriodSeconds", Node::number(LIVENESS_GRACE));
    container.set("livenessProbe", liveness);
    let drain = parts::http_get(&format!("/drain?wait={DRAIN}s"));
    container.child("lifecycle").set("preStop", Node::map([("httpGet", drain)]));
}
