//! `lockstep inject` as its user sees it: manifests in, manifests out, each a fixed function of the other; and what is refused,
//! with the sentence that says what to do.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn inject(input: &str, arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(["inject", "--file", "-"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    // Who refuses the settings does not read.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("the program ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject").join(name)
}

/// A change is made on purpose: with `LOCKSTEP_BLESS=1` the file is written.
fn compare(name: &str, found: &str) {
    let path = file(name);
    if std::env::var_os("LOCKSTEP_BLESS").is_some() {
        std::fs::write(&path, found).expect("the sources can be written");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(found, expected, "{name} is not as it was; LOCKSTEP_BLESS=1 if that is meant");
}

/// `NAME.yaml` becomes `NAME.expected.yaml`, and `NAME.note.txt` is said.
fn golden(name: &str, arguments: &[&str]) {
    let input = std::fs::read_to_string(file(&format!("{name}.yaml"))).expect("a readable input");
    let arguments = [&["--image", "lockstep:test"], arguments].concat();
    let output = inject(&input, &arguments);
    let note = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{note}");
    compare(&format!("{name}.expected.yaml"), &text(&output.stdout));
    compare(&format!("{name}.note.txt"), &note);
    let again = inject(&text(&output.stdout), &arguments);
    assert_eq!(again.status.code(), Some(3), "{}", text(&again.stderr));
    assert!(text(&again.stderr).contains("has the sidecar already: inject the manifest"), "{}", text(&again.stderr));
    assert!(again.stdout.is_empty());
}

#[test]
fn stock_redis_without_a_command_has_the_liveness_probe_for_its_resets() {
    golden("redis", &["--protocol", "resp"]);
}

#[test]
fn a_service_with_a_command_is_supervised() {
    golden("supervised", &["--protocol", "http", "--cluster", "shop.example", "--app-connections", "shared"]);
}

#[test]
fn of_several_containers_the_named_one_is_the_application() {
    let arguments = ["--container", "store", "--app-port", "4000", "--replace-probes", "--supervise=false"];
    golden("containers", &[&["--protocol", "line", "--secret-prefix", "certificates"], &arguments[..]].concat());
}

#[test]
fn other_documents_stay_as_they_are_and_in_their_order() {
    golden("documents", &["--protocol", "length", "--durability", "async"]);
}

#[test]
fn a_writable_volume_goes_with_a_reset() {
    let reset = ["--app-reset-request", "RESET $HOME $(POD_NAME)", "--app-empty-request", "COUNT"];
    let storage = ["--app-empty-reply", "0", "--storage", "20Gi", "--storage-class", "fast", "--allow-even"];
    golden("volume", &[&["--protocol", "line"], &reset[..], &storage].concat());
}

/// A StatefulSet with one of its lines changed.
fn changed(from: &str, to: &str) -> String {
    let input = std::fs::read_to_string(file("redis.yaml")).expect("a readable input");
    assert!(input.contains(from), "{from}");
    input.replace(from, to)
}

fn refused(input: &str, arguments: &[&str], code: i32, sentence: &str) {
    let output = inject(input, &[&["--protocol", "resp"], arguments].concat());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(sentence), "\"{sentence}\" is not in:\n{said}");
    assert!(output.stdout.is_empty(), "nothing is printed that could be applied");
}

#[test]
fn who_could_keep_state_beyond_a_restart_is_refused() {
    let mounts = |source: &str, mount: &str| {
        let volume = format!("      volumes:\n      - name: kept\n        {source}\n      containers:\n");
        let input = changed("      containers:\n", &volume);
        let mount =
            format!("        volumeMounts:\n        - {{name: kept, mountPath: /kept{mount}}}\n        ports:\n");
        input.replace("        ports:\n", &mount)
    };
    let sentence = "container redis can write to the volume kept: what it keeps there outlives a restart";
    for source in ["emptyDir: {}", "persistentVolumeClaim: {claimName: kept}", "hostPath: {path: /kept}"] {
        refused(&mounts(source, ""), &[], 3, sentence);
    }
    refused(&mounts("emptyDir: {}", ", readOnly: false"), &[], 3, "--state-in-volume-is-reset");
    let goes = |input: &str, arguments: &[&str]| {
        let output = inject(input, &[&["--protocol", "resp"], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    };
    goes(&mounts("emptyDir: {}", ", readOnly: true"), &[]);
    goes(&mounts("configMap: {name: kept}", ""), &[]);
    goes(&mounts("emptyDir: {}", ""), &["--state-in-volume-is-reset"]);
    goes(&mounts("emptyDir: {}", ""), &["--app-reset-request", "FLUSHALL"]);
}

#[test]
fn names_ports_and_probes_that_are_ours_are_refused() {
    let own = |more: &str| changed("        ports:\n", &format!("        {more}\n        ports:\n"));
    let probe =
        "container redis has a livenessProbe, and Lockstep needs its place: remove it, or give --replace-probes";
    refused(&own("livenessProbe: {tcpSocket: {port: 6379}}"), &[], 3, probe);
    refused(&own("lifecycle: {preStop: {sleep: {seconds: 5}}}"), &[], 3, "container redis has a preStop hook");
    let port = |text: &str| changed("containerPort: 6379", text);
    refused(&port("containerPort: 9400"), &[], 3, "listens on 9400/TCP, where the sidecar answers probes");
    let quic = port("containerPort: 6379\n        - {containerPort: 7500, protocol: UDP}");
    refused(&quic, &[], 3, "container redis listens on 7500/UDP, where the sidecar does");
    let beside = |more: &str| changed("      containers:\n", &format!("      {more}\n      containers:\n"));
    let container = beside("initContainers: [{name: lockstep, image: other}]");
    refused(&container, &[], 3, "container lockstep: Lockstep's own has this name: rename it");
    let volume = beside("volumes: [{name: lockstep-pki, emptyDir: {}}]");
    refused(&volume, &[], 3, "volume lockstep-pki: Lockstep's own has this name");
    let claim =
        changed("  replicas: 3\n", "  replicas: 3\n  volumeClaimTemplates: [{metadata: {name: lockstep-data}}]\n");
    refused(&claim, &[], 3, "volume lockstep-data: Lockstep's own has this name");
    let service = format!("{}---\nkind: Service\nmetadata: {{name: redis-lockstep}}\n", changed("", ""));
    refused(&service, &[], 3, "Service redis-lockstep: Lockstep's own has this name");
    let at = own("volumeMounts: [{name: x, mountPath: /lockstep/, readOnly: true}]\n        command: [redis-server]");
    refused(&at, &[], 3, "container redis mounts something at /lockstep");
    refused(
        &beside("hostNetwork: true"),
        &[],
        3,
        "hostNetwork: copies on one machine would share its ports: remove it",
    );
}

#[test]
fn a_number_of_replicas_that_helps_nobody_is_refused() {
    let replicas = |text: &str| changed("replicas: 3", text);
    refused(
        &replicas("replicas: 4"),
        &[],
        3,
        "replicas: 4 survive the loss of no more than 3 do: choose an odd number",
    );
    refused(&replicas("replicas: 0"), &["--allow-even"], 3, "replicas: 0: say how many copies there shall be");
    refused(&replicas("replicas: 17"), &[], 3, "their numbers must be from 0 to 14");
    refused(&replicas("replicas: 3\n  ordinals: {start: 13}"), &[], 3, "or an earlier ordinals.start");
    refused(&replicas("replicas: three"), &[], 2, "spec.replicas should be a number");
}

#[test]
fn everything_that_is_refused_is_said_at_once() {
    let input = changed("      containers:\n", "      hostNetwork: true\n      containers:\n");
    let output = inject(&input.replace("replicas: 3", "replicas: 4"), &["--protocol", "resp"]);
    let said = text(&output.stderr);
    assert!(said.contains("error: replicas: 4") && said.contains("error: hostNetwork"), "{said}");
}

#[test]
fn one_stateful_set_there_must_be() {
    refused("kind: Deployment\n", &[], 3, "there is no StatefulSet in the input");
    refused("kind: List\nitems: []\n", &[], 3, "give its items as documents");
    refused("", &[], 3, "there is no StatefulSet in the input");
    let two = "kind: StatefulSet\nmetadata: {name: a}\n---\nkind: StatefulSet\nmetadata: {name: b}\n";
    refused(two, &[], 3, "there are 2 StatefulSets, a, b: give them one at a time");
    let name = changed("  name: redis\n", "  name: re.dis\n");
    refused(&name, &[], 3, "a Service re.dis-lockstep is needed beside it, and cannot have that name");
}

#[test]
fn what_is_missing_or_unreadable_is_wrong_usage() {
    let redis = changed("", "");
    refused("a: 1\nb: [\n", &[], 2, "line 3: this is no YAML");
    refused("a: 1\nb: 2\na: 3\n", &[], 2, "line 3: a is there twice");
    let second = changed("      containers:\n", "      containers:\n      - {name: second, image: other}\n");
    refused(&second, &[], 2, "--container is missing: which of the containers second, redis is the application?");
    refused(&redis, &["--container", "valkey"], 2, "--container: there is no container valkey, only redis");
    let ports = changed("containerPort: 6379", "containerPort: 6379\n        - containerPort: 6380");
    refused(&ports, &[], 2, "--app-port is missing: container redis declares 2 TCP ports");
    refused(&redis, &["--supervise"], 2, "--supervise: container redis has no command");
    refused(&redis, &["--snapshot", "directory"], 2, "in a pod use request or command");
    refused(&redis, &["--snapshot", "command"], 2, "give both --snapshot-dump-command and --snapshot-load-command");
    let stateless = inject(&redis, &["--protocol", "http", "--app-connections", "per-session"]);
    assert_eq!(stateless.status.code(), Some(2));
    assert!(text(&stateless.stderr).contains("error: --app-connections: "), "{}", text(&stateless.stderr));
    refused(&redis, &["--storage", "much"], 2, "\"much\" is no size of a volume");
    refused(&changed("      containers:\n", "      volumes: all\n      containers:\n"), &[], 2, "should be a sequence");
    let output = inject(&redis, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--protocol"), "{}", text(&output.stderr));
}

#[test]
fn the_image_is_that_of_this_version_unless_another_is_named() {
    let output = inject(&changed("", ""), &["--protocol", "resp"]);
    let image = concat!("image: lockstep:", env!("CARGO_PKG_VERSION"), "\n");
    assert!(text(&output.stdout).contains(image), "{}", text(&output.stdout));
}
