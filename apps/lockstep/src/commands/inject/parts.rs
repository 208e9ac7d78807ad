//! What is added: the sidecar, what brings its program to the application, their volumes, and the Service that gives the pods
//! names.

use super::Options;
use super::check::{Found, IDS};
use super::node::Node;
use crate::parts::adapter;
use mesh::node::human;

/// Where QUIC comes in, over UDP.
pub(super) const QUIC_PORT: u16 = 7500;
/// Where probes are answered, over TCP.
pub(super) const ADMIN_PORT: u16 = 9400;
/// The sidecar's container.
pub(super) const SIDECAR: &str = "lockstep";
/// The container that copies the program.
pub(super) const INSTALLER: &str = "lockstep-install";
/// The volume of the log and of snapshots.
pub(super) const DATA: &str = "lockstep-data";
/// The volume of the certificates.
pub(super) const PKI: &str = "lockstep-pki";
/// The volume that both containers share where one supervises.
pub(super) const EXEC: &str = "lockstep-exec";
/// Where that is, in both.
pub(super) const EXEC_DIR: &str = "/lockstep";
/// The socket on it.
pub(super) const SOCKET: &str = "/lockstep/app.sock";
/// How long what is in flight may take when a pod ends, in seconds; the sidecar's --drain-timeout and the preStop hook's wait.
pub(super) const DRAIN: u64 = 20;
/// Whom the image runs as.
pub(super) const USER: u64 = 65532;

/// What a Secret of a part may have.
const FILES: [&str; 6] = ["tls.crt", "tls.key", "ca.crt", "crl.pem", "signing.crt", "signing.key"];
/// `0440`: keys that others may read are refused.
const KEY_MODE: u64 = 0o440;
/// The startup probe: a look every so many seconds, for longer than the sidecar waits for its certificate (an hour).
const STARTUP_PERIOD: u64 = 2;
const STARTUP_LOOKS: u64 = 1860;

/// The headless Service; a pod has its name before it is ready, for the others are needed to become ready.
pub(super) fn service(set: &Node, found: &Found) -> Node {
    let mut metadata = Node::map([("name", Node::text(found.service()))]);
    for key in ["namespace", "labels"] {
        if let Some(value) = set.at(&["metadata", key]) {
            metadata.set(key, value.clone());
        }
    }
    let port = |name: &str, port: u16, protocol: &str| {
        Node::map([
            ("name", Node::text(name)),
            ("port", Node::number(port.into())),
            ("protocol", Node::text(protocol)),
            ("targetPort", Node::number(port.into())),
        ])
    };
    Node::map([
        ("apiVersion", Node::text("v1")),
        ("kind", Node::text("Service")),
        ("metadata", metadata),
        (
            "spec",
            Node::map([
                ("clusterIP", Node::text("None")),
                ("publishNotReadyAddresses", Node::truth(true)),
                ("selector", found.labels.clone()),
                ("ports", Node::list([port("quic", QUIC_PORT, "UDP"), port("admin", ADMIN_PORT, "TCP")])),
            ]),
        ),
    ])
}

/// The sidecar, a container that starts before the application and ends after it.
pub(super) fn sidecar(found: &Found, options: &Options) -> Node {
    let mut mounts = vec![mount(DATA, "/data"), mount(PKI, "/pki")];
    mounts[1].set("readOnly", Node::truth(true));
    if found.supervise {
        mounts.push(mount(EXEC, EXEC_DIR));
    }
    let port = |name: &str, port: u16, protocol: &str| {
        Node::map([
            ("name", Node::text(name)),
            ("containerPort", Node::number(port.into())),
            ("protocol", Node::text(protocol)),
        ])
    };
    Node::map([
        ("name", Node::text(SIDECAR)),
        ("image", Node::text(&options.image)),
        ("restartPolicy", Node::text("Always")),
        ("args", Node::list(arguments(found, options).into_iter().map(Node::text))),
        (
            "env",
            Node::list([
                from_pod("POD_NAME", "metadata.name"),
                from_pod("POD_NAMESPACE", "metadata.namespace"),
                Node::map([
                    ("name", Node::text("LOCKSTEP_ADMIN")),
                    ("value", Node::text(format!("{}:{ADMIN_PORT}", found.service()))),
                ]),
            ]),
        ),
        ("ports", Node::list([port("quic", QUIC_PORT, "UDP"), port("admin", ADMIN_PORT, "TCP")])),
        ("startupProbe", probe("/startupz", STARTUP_PERIOD, 3, STARTUP_LOOKS)),
        ("livenessProbe", probe("/livez", 10, 5, 6)),
        ("readinessProbe", probe("/readyz", 2, 2, 3)),
        ("securityContext", restricted()),
        ("volumeMounts", Node::List(mounts)),
    ])
}

/// The sidecar's command line.
fn arguments(found: &Found, options: &Options) -> Vec<String> {
    // A single replica looks for nobody.
    let ids = if found.replicas == 1 { found.ids() } else { 0..IDS };
    let domain = format!("{}.$(POD_NAMESPACE).svc:{QUIC_PORT}", found.service());
    let seeds: Vec<String> = ids.map(|id| format!("{id}={}-{id}.{domain}", found.name)).collect();
    let mut flags = vec![
        ("cluster", found.cluster.clone()),
        ("pki", "/pki".to_owned()),
        ("certificate-wait", "1h".to_owned()),
        ("seeds", seeds.join(",")),
        ("advertise", format!("$(POD_NAME).{domain}")),
        ("quic", format!("0.0.0.0:{QUIC_PORT}")),
        ("admin", format!("0.0.0.0:{ADMIN_PORT}")),
        ("data-dir", "/data".to_owned()),
        ("app", format!("127.0.0.1:{}", found.port)),
    ];
    if found.supervise {
        flags.push(("app-supervisor", SOCKET.to_owned()));
    }
    flags.push(("protocol", adapter::name(&options.protocol)));
    if let Some(connections) = &options.app_connections {
        flags.push(("app-connections", adapter::name(connections)));
    }
    flags.push(("request-bytes", human::format_size(options.sizes.request_bytes as u64)));
    flags.push(("reply-bytes", human::format_size(options.sizes.reply_bytes as u64)));
    flags.push(("durability", adapter::name(&options.durability)));
    flags.push(("drain-timeout", format!("{DRAIN}s")));
    let flags = flags.into_iter().map(|(name, value)| format!("--{name}={value}"));
    // Kubernetes replaces $(NAME) in arguments, and $$ by $; requests are meant as they are.
    let recovery = options.recovery.flags(options.protocol).into_iter();
    let recovery = recovery.map(|(name, value)| format!("--{name}={}", value.replace('$', "$$")));
    std::iter::once("sidecar".to_owned()).chain(flags).chain(recovery).collect()
}

/// The container that brings `lockstep exec` to the application.
pub(super) fn installer(options: &Options) -> Node {
    Node::map([
        ("name", Node::text(INSTALLER)),
        ("image", Node::text(&options.image)),
        ("args", Node::list(["exec", "--install", EXEC_DIR].map(Node::text))),
        ("securityContext", restricted()),
        ("volumeMounts", Node::list([mount(EXEC, EXEC_DIR)])),
    ])
}

/// The certificates of whoever this pod is: sources for all, so that the pods are alike whatever their number, and optional,
/// so that they may come later.
pub(super) fn certificates(found: &Found) -> Node {
    let source = |id: u64| {
        let file =
            |name: &&str| Node::map([("key", Node::text(*name)), ("path", Node::text(format!("server/{id}/{name}")))]);
        Node::map([(
            "secret",
            Node::map([
                ("name", Node::text(format!("{}-server-{id}", found.secret_prefix))),
                ("optional", Node::truth(true)),
                ("items", Node::list(FILES.iter().map(file))),
            ]),
        )])
    };
    Node::map([
        ("name", Node::text(PKI)),
        (
            "projected",
            Node::map([("defaultMode", Node::number(KEY_MODE)), ("sources", Node::list((0..IDS).map(source)))]),
        ),
    ])
}

/// The claim for the log and snapshots.
pub(super) fn claim(options: &Options) -> Node {
    let mut spec = Node::map([("accessModes", Node::list([Node::text("ReadWriteOnce")]))]);
    if let Some(class) = &options.storage_class {
        spec.set("storageClassName", Node::text(class));
    }
    let requests = Node::map([("storage", Node::text(&options.storage))]);
    spec.set("resources", Node::map([("requests", requests)]));
    Node::map([("metadata", Node::map([("name", Node::text(DATA))])), ("spec", spec)])
}

/// A look at the sidecar; the port is a number, for the container that is looked at may be another.
pub(super) fn probe(path: &str, period: u64, timeout: u64, failures: u64) -> Node {
    Node::map([
        ("httpGet", http_get(path)),
        ("periodSeconds", Node::number(period)),
        ("timeoutSeconds", Node::number(timeout)),
        ("failureThreshold", Node::number(failures)),
    ])
}

/// A request to the sidecar.
pub(super) fn http_get(path: &str) -> Node {
    Node::map([("path", Node::text(path)), ("port", Node::number(ADMIN_PORT.into()))])
}

/// A volume in a container.
pub(super) fn mount(name: &str, path: &str) -> Node {
    Node::map([("name", Node::text(name)), ("mountPath", Node::text(path))])
}

fn from_pod(name: &str, field: &str) -> Node {
    let source = Node::map([("fieldRef", Node::map([("fieldPath", Node::text(field))]))]);
    Node::map([("name", Node::text(name)), ("valueFrom", source)])
}

fn restricted() -> Node {
    Node::map([
        ("allowPrivilegeEscalation", Node::truth(false)),
        ("capabilities", Node::map([("drop", Node::list([Node::text("ALL")]))])),
        ("readOnlyRootFilesystem", Node::truth(true)),
        ("runAsGroup", Node::number(USER)),
        ("runAsNonRoot", Node::truth(true)),
        ("runAsUser", Node::number(USER)),
        ("seccompProfile", Node::map([("type", Node::text("RuntimeDefault"))])),
    ])
}

#[cfg(test)]
mod tests {
    use super::super::{inject, read::read};
    use crate::cli::Command;

    #[test]
    fn the_sidecar_takes_the_command_line_that_its_container_gets() {
        let manifest = "kind: StatefulSet\nmetadata: {name: shop}\nspec: {replicas: 3, selector: {matchLabels: {app: shop}}, \
                        template: {spec: {containers: [{name: shop, command: [shop], ports: [{containerPort: 80}]}]}}}\n";
        for settings in [&["--protocol", "resp"][..], &["--protocol", "http", "--app-reset-request", "POST /reset"]] {
            let argv = [&["inject", "--file", "-"], settings].concat();
            let Ok(Command::Inject(args)) = crate::parse(&argv) else { panic!("{argv:?} is a good command line") };
            let documents = read(manifest).expect("good YAML");
            let injected = inject(documents, &args.options).expect("nothing is wrong with it");
            let pod = injected.documents[1].at(&["spec", "template", "spec"]).expect("it was there");
            let words: Vec<String> = pod.items("initContainers")[1]
                .items("args")
                .iter()
                .filter_map(|word| word.as_str())
                .map(|word| word.replace("$(POD_NAME)", "shop-2").replace("$(POD_NAMESPACE)", "default"))
                .collect();
            let words: Vec<&str> = words.iter().map(String::as_str).chain(["--id=2"]).collect();
            let Ok(Command::Sidecar(sidecar)) = crate::parse(&words) else { panic!("{:?}", crate::parse(&words)) };
            sidecar.check().expect("the settings go together");
        }
    }
}
