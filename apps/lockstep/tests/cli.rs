//! The program as scripts see it: exit codes, and what is said where. Starts nothing that stays.

use std::path::PathBuf;
use std::process::{Command, Output};

fn lockstep(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lockstep")).args(arguments).output().expect("the program runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("lockstep-cli-{}-{name}", std::process::id()))
}

#[test]
fn the_version_has_a_commit() {
    let output = lockstep(&["--version"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with(concat!("lockstep ", env!("CARGO_PKG_VERSION"), " (")), "{text}");
    assert_eq!(code(&output), 0);
}

#[test]
fn help_is_there_at_every_level_and_names_the_environment() {
    for part in ["up", "sidecar", "smart-client", "ingress", "bootstrap", "status", "call", "hashmap"] {
        let output = lockstep(&[part, "--help"]);
        assert_eq!(code(&output), 0, "{part}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("LOCKSTEP_"), "{part}");
    }
}

#[test]
fn wrong_usage_is_reported_whole_and_exits_with_2() {
    let output = lockstep(&["sidecar", "--protocol", "gopher", "--quic", "nowhere:x", "--drain-timeout", "soon"]);
    assert_eq!(code(&output), 2);
    let text = stderr(&output);
    for setting in ["--protocol", "--quic", "--drain-timeout", "--cluster is missing", "--seeds is missing"] {
        assert!(text.contains(setting), "{setting} in {text}");
    }
    assert_eq!(code(&lockstep(&["fly"])), 2);
    assert_eq!(code(&lockstep(&[])), 2);
}

#[test]
fn a_certificate_authority_is_never_made_twice() {
    let dir = scratch("pki");
    let shown = dir.to_str().expect("an ASCII path");
    assert_eq!(code(&lockstep(&["certs", "init", "--cluster", "test", "--dir", shown])), 0);
    assert_eq!(code(&lockstep(&["certs", "issue", "server", "0", "--dir", shown])), 0);
    assert!(dir.join("server/0/tls.crt").exists());
    assert_eq!(code(&lockstep(&["certs", "init", "--cluster", "test", "--dir", shown])), 3);
    assert_eq!(code(&lockstep(&["certs", "issue", "emperor", "0", "--dir", shown])), 2);
    assert_eq!(code(&lockstep(&["certs", "init", "--cluster", "Not A Name"])), 2);
    std::fs::remove_dir_all(&dir).expect("it is ours");
}

#[test]
fn a_cluster_that_is_not_there_is_not_healthy() {
    // A port that was free a moment ago, and that nobody else will take on this address.
    let free = std::net::TcpListener::bind("127.9.8.7:0").and_then(|listener| listener.local_addr()).expect("loopback");
    let output = lockstep(&["status", "-o", "json", "--admin", &free.to_string()]);
    assert_eq!(code(&output), 5);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let document: serde_json::Value = serde_json::from_str(&text).expect("one JSON document");
    assert_eq!(document["healthy"], false);
    assert_eq!(document["unknown"][0]["admin"], free.to_string());
    assert_eq!(code(&lockstep(&["status", "--data-dir", "/nowhere/at/all"])), 5);
}

#[test]
fn a_directory_that_is_not_ours_is_refused() {
    let dir = scratch("foreign");
    std::fs::create_dir_all(dir.join("letters")).expect("the temporary directory can be written");
    let output = lockstep(&["up", "--listen", "127.0.0.1:0", "--data-dir", dir.to_str().expect("an ASCII path")]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    std::fs::remove_dir_all(&dir).expect("it is ours");
}

#[test]
fn what_is_no_snapshot_is_invalid_and_who_is_meant_must_be_said() {
    let dir = scratch("snapshot");
    std::fs::create_dir_all(&dir).expect("the temporary directory can be written");
    let file = dir.join("00000000000000000007.snapshot");
    std::fs::write(&file, b"neither long enough nor a snapshot, but longer than a trailer").expect("written");
    let path = file.to_str().expect("a name");
    let verified = lockstep(&["snapshot", "verify", path]);
    assert_eq!(code(&verified), 4);
    assert!(stderr(&verified).contains("does not check out"), "{}", stderr(&verified));
    let member = dir.join("member");
    let restored = lockstep(&["snapshot", "restore", path, "--data-dir", member.to_str().expect("a name")]);
    assert_eq!(code(&restored), 4);
    assert!(!member.exists(), "nothing is made for a snapshot that is none");
    let nobody = lockstep(&["snapshot", "save"]);
    assert_eq!(code(&nobody), 2);
    assert!(stderr(&nobody).contains("--seeds"), "{}", stderr(&nobody));
    assert_eq!(code(&lockstep(&["abort", "first"])), 2);
    std::fs::remove_dir_all(&dir).expect("it is ours");
}

#[test]
fn a_journal_that_is_not_there_or_of_another_version_is_said_to_be() {
    let dir = scratch("journal");
    std::fs::create_dir_all(&dir).expect("the temporary directory can be written");
    let shown = dir.to_str().expect("an ASCII path");
    for command in ["dump", "verify"] {
        let output = lockstep(&["journal", command, "--data-dir", shown]);
        assert_eq!(code(&output), 1);
        assert!(stderr(&output).contains("there is no journal in"), "{}", stderr(&output));
    }
    std::fs::write(dir.join("journal"), b"LOCKSTEP\x01\0\0\0").expect("the temporary directory can be written");
    let output = lockstep(&["journal", "verify", "--data-dir", shown]);
    assert!(stderr(&output).contains("format version 1"), "{}", stderr(&output));
    std::fs::remove_dir_all(&dir).expect("it is ours");
}

#[test]
fn a_journal_of_which_nothing_checks_out_is_shown_as_damaged() {
    let dir = scratch("damaged-journal");
    let journal = dir.join("server-0/journal");
    std::fs::create_dir_all(&journal).expect("the temporary directory can be written");
    std::fs::write(journal.join(format!("{:020}", 7)), [7; 5000]).expect("the temporary directory can be written");
    let output = lockstep(&["journal", "verify", "--data-dir", dir.to_str().expect("an ASCII path")]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert!(stderr(&output).contains("is damaged in segment 7: its header"), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("damaged"));
    std::fs::remove_dir_all(&dir).expect("it is ours");
}
