//! Finds what is to be changed, and refuses what would not do what its user expects. Changes nothing.

use super::node::Node;
use super::parts::{ADMIN_PORT, DATA, EXEC, EXEC_DIR, INSTALLER, PKI, QUIC_PORT, SIDECAR};
use super::{Options, Problem};
use crate::parts::adapter;
use crate::parts::recovery::Mode;
use mesh::node::config::Problems;

/// Members of a cluster at most, for there are sources of certificates for so many: ids from 0.
pub(super) const IDS: u64 = 15;
/// What Kubernetes takes where a pod has none, in seconds.
const GRACE: u64 = 30;
/// Sources of volumes that nobody can write to.
const READ_ONLY: [&str; 5] = ["configMap", "secret", "downwardAPI", "projected", "image"];

/// The StatefulSet and its application.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Which document it is.
    pub(super) index: usize,
    /// Its name.
    pub(super) name: String,
    /// Which of the pod's containers is the application.
    pub(super) container: usize,
    /// Where it listens.
    pub(super) port: u16,
    /// Whether `lockstep exec` runs it.
    pub(super) supervise: bool,
    /// Copies.
    pub(super) replicas: u64,
    /// The first ordinal.
    pub(super) start: u64,
    /// Seconds that the pod had for its end.
    pub(super) grace: u64,
    /// The labels that its pods have.
    pub(super) labels: Node,
    /// The cluster's name.
    pub(super) cluster: String,
    /// What the Secrets' names begin with.
    pub(super) secret_prefix: String,
    /// Its namespace, if it names one.
    pub(super) namespace: Option<String>,
    /// The Service that it had, if it had one.
    pub(super) governing: Option<String>,
}

impl Found {
    /// The headless Service that gives its pods their names.
    pub(super) fn service(&self) -> String {
        format!("{}-lockstep", self.name)
    }

    /// The ids that there are at the beginning.
    pub(super) fn ids(&self) -> std::ops::Range<u64> {
        self.start..self.start + self.replicas
    }
}

/// The one StatefulSet among the documents, fit to be changed.
pub(super) fn find(documents: &[Node], options: &Options) -> Result<Found, Problem> {
    check_options(options)?;
    let index = the_only(documents)?;
    let set = &documents[index];
    check_shape(set)?;
    check_fresh(set)?;
    let found = examine(set, index, options)?;
    let mut refusals = Vec::new();
    check_set(set, &found, options, &mut refusals);
    check_names(documents, set, &found, &mut refusals);
    check_ports(set, &found, &mut refusals);
    check_container(set, &found, options, &mut refusals);
    if refusals.is_empty() { Ok(found) } else { Err(Problem::Refused(refusals)) }
}

/// The sidecar would refuse the same, but only in its pod.
fn check_options(options: &Options) -> Result<(), Problem> {
    let mut problems = Problems::default();
    problems.take("--app-connections", adapter::adapter(options.protocol, options.app_connections, options.sizes));
    options.recovery.check(options.protocol, true, &mut problems);
    problems.check(
        options.recovery.mode(options.protocol, true) != Mode::Directory,
        "--snapshot directory: needs an application that the sidecar starts; in a pod use request or command",
    );
    problems.into_result(Some(())).map_err(|error| {
        Problem::Usage(error.to_string().lines().map(|line| line.trim_start_matches("error: ").to_owned()).collect())
    })
}

fn the_only(documents: &[Node]) -> Result<usize, Problem> {
    let of_kind = |kind: &'static str| move |node: &&Node| node.str_at(&["kind"]) == Some(kind);
    let sets: Vec<&Node> = documents.iter().filter(of_kind("StatefulSet")).collect();
    match sets.as_slice() {
        [_] => Ok(documents.iter().position(|node| of_kind("StatefulSet")(&node)).unwrap_or_default()),
        [] if documents.iter().any(|node| of_kind("List")(&node)) => Err(Problem::Refused(vec![
            "there is no StatefulSet beside the List: give its items as documents".to_owned(),
        ])),
        [] => Err(Problem::Refused(vec![
            "there is no StatefulSet in the input: only a StatefulSet gives its pods names that stay".to_owned(),
        ])),
        many => {
            let names: Vec<&str> = many.iter().filter_map(|set| set.str_at(&["metadata", "name"])).collect();
            let text = format!("there are {} StatefulSets, {}: give them one at a time", many.len(), names.join(", "));
            Err(Problem::Refused(vec![text]))
        }
    }
}

/// What is changed later must be of the kind that it should be.
fn check_shape(set: &Node) -> Result<(), Problem> {
    let pod = ["spec", "template", "spec"];
    let below = |key: &'static str| [&pod[..], &[key]].concat();
    let maps = [
        vec!["metadata"],
        vec!["metadata", "annotations"],
        vec!["spec"],
        vec!["spec", "template"],
        pod.to_vec(),
        below("securityContext"),
    ];
    let lists = [vec!["spec", "volumeClaimTemplates"], below("containers"), below("initContainers"), below("volumes")];
    let mut wrong = Vec::new();
    let mut check = |node: Option<&Node>, path: String, is_map: bool| {
        let fits = match node {
            None => true,
            Some(Node::Map(_)) => is_map,
            Some(Node::List(_)) => !is_map,
            Some(_) => false,
        };
        if !fits {
            wrong.push(format!("{path} should be a {}", if is_map { "mapping" } else { "sequence" }));
        }
    };
    for path in maps {
        check(set.at(&path), path.join("."), true);
    }
    for path in lists {
        check(set.at(&path), path.join("."), false);
    }
    for (kind, container) in containers(set) {
        check(Some(container), format!("each of spec.template.spec.{kind}"), true);
        for (key, is_map) in
            [("lifecycle", true), ("ports", false), ("command", false), ("volumeMounts", false), ("env", false)]
        {
            check(container.get(key), format!("{key} of container {}", name_of(container)), is_map);
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Problem::Usage(wrong)) }
}

/// All containers of the pod, each with the list that it is in.
fn containers(set: &Node) -> impl Iterator<Item = (&'static str, &Node)> {
    let pod = set.at(&["spec", "template", "spec"]);
    let of = move |kind: &'static str| pod.into_iter().flat_map(move |pod| pod.items(kind)).map(move |one| (kind, one));
    of("initContainers").chain(of("containers"))
}

fn name_of(node: &Node) -> &str {
    node.str_at(&["name"]).unwrap_or("without a name")
}

/// Whoever injects again has the wrong file in hand; what else is wrong with that one is not worth saying.
fn check_fresh(set: &Node) -> Result<(), Problem> {
    let first = |one: &Node| one.items("args").first().and_then(Node::as_str) == Some("sidecar");
    if containers(set).any(|(_, one)| name_of(one) == SIDECAR && first(one)) {
        let name = set.str_at(&["metadata", "name"]).unwrap_or_default();
        let text = format!("StatefulSet {name} has the sidecar already: inject the manifest that it was made from");
        return Err(Problem::Refused(vec![text]));
    }
    Ok(())
}

/// What is read from the StatefulSet, and the settings that are taken from it.
fn examine(set: &Node, index: usize, options: &Options) -> Result<Found, Problem> {
    let missing = |what: &str| Problem::usage(format!("the StatefulSet has no {what}"));
    let name = set.str_at(&["metadata", "name"]).ok_or_else(|| missing("metadata.name"))?.to_owned();
    let pod = set.at(&["spec", "template", "spec"]).ok_or_else(|| missing("spec.template.spec"))?;
    let labels = [["spec", "selector", "matchLabels"].as_slice(), &["spec", "template", "metadata", "labels"]]
        .into_iter()
        .find_map(|path| set.at(path).filter(|labels| matches!(labels, Node::Map(entries) if !entries.is_empty())))
        .ok_or_else(|| missing("spec.selector.matchLabels"))?;
    let number = |node: &Node, path: &[&str], otherwise: u64| match node.at(path) {
        None => Ok(otherwise),
        Some(value) => {
            value.as_number().ok_or_else(|| Problem::usage(format!("{} should be a number", path.join("."))))
        }
    };
    let chosen = choose(pod.items("containers"), options)?;
    let container = &pod.items("containers")[chosen];
    let cluster = match &options.cluster {
        Some(cluster) => cluster.clone(),
        None => crate::parts::common::cluster_name(&name)
            .map_err(|error| Problem::usage(format!("--cluster is missing, and {name} cannot be it: {error}")))?,
    };
    Ok(Found {
        index,
        container: chosen,
        port: port(container, options)?,
        supervise: supervise(container, options)?,
        replicas: number(set, &["spec", "replicas"], 1)?,
        start: number(set, &["spec", "ordinals", "start"], 0)?,
        grace: number(pod, &["terminationGracePeriodSeconds"], GRACE)?,
        labels: labels.clone(),
        secret_prefix: options.secret_prefix.clone().unwrap_or_else(|| cluster.clone()),
        namespace: set.str_at(&["metadata", "namespace"]).map(str::to_owned),
        governing: set.str_at(&["spec", "serviceName"]).map(str::to_owned),
        cluster,
        name,
    })
}

/// Which container is the application.
fn choose(containers: &[Node], options: &Options) -> Result<usize, Problem> {
    let names: Vec<&str> = containers.iter().map(name_of).collect();
    match (&options.container, names.as_slice()) {
        (Some(wanted), _) => names.iter().position(|name| name == wanted).ok_or_else(|| {
            Problem::usage(format!("--container: there is no container {wanted}, only {}", names.join(", ")))
        }),
        (None, []) => Err(Problem::usage("the StatefulSet has no containers")),
        (None, [_]) => Ok(0),
        (None, many) => Err(Problem::usage(format!(
            "--container is missing: which of the containers {} is the application?",
            many.join(", ")
        ))),
    }
}

fn port(container: &Node, options: &Options) -> Result<u16, Problem> {
    if let Some(port) = options.app_port {
        return Ok(port);
    }
    let tcp = |port: &&Node| port.str_at(&["protocol"]).unwrap_or("TCP") == "TCP";
    let ports: Vec<Option<u16>> = container
        .items("ports")
        .iter()
        .filter(tcp)
        .map(|port| port.get("containerPort").and_then(Node::as_number).and_then(|port| u16::try_from(port).ok()))
        .collect();
    match ports.as_slice() {
        [Some(port)] => Ok(*port),
        declared => Err(Problem::usage(format!(
            "--app-port is missing: container {} declares {} TCP ports, so say where it listens",
            name_of(container),
            declared.len()
        ))),
    }
}

fn supervise(container: &Node, options: &Options) -> Result<bool, Problem> {
    let has_command = !container.items("command").is_empty();
    match options.supervise {
        Some(true) if !has_command => Err(Problem::usage(format!(
            "--supervise: container {} has no command, and what its image starts is not known here: write it as its \
             command",
            name_of(container)
        ))),
        wish => Ok(wish.unwrap_or(has_command)),
    }
}

/// The StatefulSet itself.
fn check_set(set: &Node, found: &Found, options: &Options, refusals: &mut Vec<String>) {
    let mut refuse = |holds: bool, text: String| {
        if holds {
            refusals.push(text);
        }
    };
    let replicas = found.replicas;
    refuse(
        replicas == 0,
        "replicas: 0: say how many copies there shall be; an odd number, 3 to survive the loss of one".to_owned(),
    );
    refuse(
        replicas != 0 && replicas.is_multiple_of(2) && !options.allow_even,
        format!(
            "replicas: {replicas} survive the loss of no more than {} do: choose an odd number, or --allow-even",
            replicas.saturating_sub(1)
        ),
    );
    refuse(
        found.start.saturating_add(replicas) > IDS,
        format!("replicas: their numbers must be from 0 to {}: choose fewer, or an earlier ordinals.start", IDS - 1),
    );
    refuse(
        set.at(&["spec", "template", "spec", "hostNetwork"]).is_some_and(Node::is_true),
        "hostNetwork: copies on one machine would share its ports: remove it".to_owned(),
    );
    let service = found.service();
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits =
        service.len() <= 63 && service.chars().all(label) && service.starts_with(|c: char| c.is_ascii_lowercase());
    refuse(
        !fits,
        format!(
            "the name {}: a Service {service} is needed beside it, and cannot have that name: rename the StatefulSet to \
             54 or fewer of a-z, 0-9 and -, beginning with a letter",
            found.name
        ),
    );
}

/// Names that are ours.
fn check_names(documents: &[Node], set: &Node, found: &Found, refusals: &mut Vec<String>) {
    for (_, one) in containers(set).filter(|(_, one)| [SIDECAR, INSTALLER].contains(&name_of(one))) {
        refusals.push(format!("container {}: Lockstep's own has this name: rename it", name_of(one)));
    }
    let pod = set.at(&["spec", "template", "spec"]);
    let volumes = pod.into_iter().flat_map(|pod| pod.items("volumes")).map(name_of);
    let spec = set.get("spec");
    let claims = spec.into_iter().flat_map(|spec| spec.items("volumeClaimTemplates"));
    let claims = claims.filter_map(|claim| claim.str_at(&["metadata", "name"]));
    for name in volumes.chain(claims).filter(|name| [DATA, PKI, EXEC].contains(name)) {
        refusals.push(format!("volume {name}: Lockstep's own has this name: rename it"));
    }
    let service = found.service();
    let is_there = |node: &&Node| {
        node.str_at(&["kind"]) == Some("Service") && node.str_at(&["metadata", "name"]) == Some(service.as_str())
    };
    if documents.iter().find(is_there).is_some() {
        refusals.push(format!("Service {service}: Lockstep's own has this name: rename it, or leave it out"));
    }
}

/// Ports of the pod, which all its containers share.
fn check_ports(set: &Node, found: &Found, refusals: &mut Vec<String>) {
    if found.port == ADMIN_PORT {
        refusals.push(format!(
            "the application listens on {ADMIN_PORT}/TCP, where the sidecar answers probes: let it listen elsewhere"
        ));
        return;
    }
    for (_, container) in containers(set) {
        for port in container.items("ports") {
            let number = port.get("containerPort").and_then(Node::as_number);
            let protocol = port.str_at(&["protocol"]).unwrap_or("TCP");
            let taken = [(QUIC_PORT, "UDP"), (ADMIN_PORT, "TCP")];
            if taken.iter().any(|(ours, of)| number == Some(u64::from(*ours)) && protocol == *of) {
                refusals.push(format!(
                    "container {} listens on {}/{protocol}, where the sidecar does: let it listen elsewhere",
                    name_of(container),
                    number.unwrap_or_default()
                ));
            }
        }
    }
}

/// The application's container.
fn check_container(set: &Node, found: &Found, options: &Options, refusals: &mut Vec<String>) {
    let Some(pod) = set.at(&["spec", "template", "spec"]) else { return };
    let container = &pod.items("containers")[found.container];
    let name = name_of(container);
    for (what, path) in [("livenessProbe", vec!["livenessProbe"]), ("preStop hook", vec!["lifecycle", "preStop"])] {
        if container.at(&path).is_some() && !options.replace_probes {
            refusals.push(format!(
                "container {name} has a {what}, and Lockstep needs its place: remove it, or give --replace-probes"
            ));
        }
    }
    let at = |mount: &Node| mount.str_at(&["mountPath"]).map(|path| path.trim_end_matches('/') == EXEC_DIR);
    if found.supervise && container.items("volumeMounts").iter().any(|mount| at(mount) == Some(true)) {
        refusals.push(format!(
            "container {name} mounts something at {EXEC_DIR}, where Lockstep's own is: mount it elsewhere"
        ));
    }
    let reset = options.state_in_volume_is_reset || options.recovery.has_reset_request();
    let written = written(pod, container);
    if !written.is_empty() && !reset {
        refusals.push(format!(
            "container {name} can write to the volume {}: what it keeps there outlives a restart, and Lockstep must be able \
             to begin anew. Mount it readOnly or remove it; or name the request that empties the application with \
             --app-reset-request; or give --state-in-volume-is-reset if it begins empty whenever it starts",
            written.join(", ")
        ));
    }
}

/// The volumes that a container can write to.
fn written<'a>(pod: &Node, container: &'a Node) -> Vec<&'a str> {
    let read_only = |mount: &Node| {
        let source = pod.items("volumes").iter().find(|volume| volume.get("name") == mount.get("name"));
        mount.get("readOnly").is_some_and(Node::is_true)
            || source.is_some_and(|source| READ_ONLY.iter().any(|kind| source.get(kind).is_some()))
    };
    let mounts = container.items("volumeMounts").iter().filter(|mount| !read_only(mount));
    mounts.chain(container.items("volumeDevices")).map(name_of).collect()
}
