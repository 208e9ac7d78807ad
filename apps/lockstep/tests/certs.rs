//! `lockstep certs` as scripts see it, and OpenSSL's opinion of what it makes.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory that goes away.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lockstep-certs-cli-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary directory can be written");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("an ASCII path").to_owned()
    }

    /// Runs `lockstep certs` with this directory as the current one: the authority is in `pki` there.
    fn certs(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
        command.arg("certs").args(words).current_dir(&self.0).output().expect("the program runs")
    }

    fn well(&self, words: &[&str]) -> String {
        let output = self.certs(words);
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.well(&[words, &["-o", "json"]].concat())).expect("one JSON document")
    }

    /// What it says when it ends with `code`.
    fn fails(&self, code: i32, words: &[&str]) -> String {
        let output = self.certs(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", stderr(&output));
        stderr(&output)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn write_secret(path: &str, text: &str) {
    fs::write(path, text).expect("the temporary directory can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("it is ours");
}

/// Runs OpenSSL; `None` where there is none, which `LOCKSTEP_REQUIRE_OPENSSL=1` makes an error.
fn openssl(words: &[&str]) -> Option<Output> {
    match Command::new("openssl").args(words).output() {
        Ok(output) => Some(output),
        Err(problem) => {
            assert!(std::env::var_os("LOCKSTEP_REQUIRE_OPENSSL").is_none(), "openssl cannot be run: {problem}");
            eprintln!("skipped: openssl cannot be run: {problem}");
            None
        }
    }
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_command_has_its_exit_codes_and_says_what_to_do() {
    let dir = Dir::new("codes");
    assert!(dir.fails(1, &["issue", "server", "0"]).contains("certs init"));
    dir.well(&["init", "--cluster", "shop"]);
    assert!(dir.fails(3, &["init", "--cluster", "shop"]).contains("nothing was changed"));
    dir.well(&["issue", "server", "0", "--signing", "--san", "shop.example,192.0.2.1"]);
    assert!(dir.fails(3, &["issue", "server", "0"]).contains("certs renew"));
    dir.fails(2, &["issue", "emperor", "0"]);
    dir.fails(2, &["issue", "server", "1", "--san", "server-2.shop.lockstep"]);
    dir.fails(2, &["renew", "server"]);
    dir.fails(2, &["revoke"]);
    dir.fails(3, &["renew", "server/7"]);
    dir.fails(3, &["revoke", "server/7"]);
    dir.well(&["verify", "pki/server/0/tls.crt", "pki/server/0/signing.crt", "pki/server/0/ca.crt"]);
    dir.fails(4, &["verify", "pki/server/0/tls.key"]);
    // Two seconds of five minutes that began five minutes ago.
    dir.well(&["issue", "client", "brief", "--lifetime", "2s"]);
    let about_to = dir.certs(&["verify", "pki/client/brief/tls.crt", "-o", "json"]);
    let code = about_to.status.code();
    assert!(code == Some(5) || code == Some(4), "due, or expired on a slow machine: {}", stderr(&about_to));
    dir.well(&["revoke", "server/0"]);
    assert!(dir.fails(4, &["verify", "pki/server/0/tls.crt"]).contains("1 of 1"));
    dir.fails(3, &["secret", "server/0"]);
    dir.well(&["renew", "server/0"]);
    dir.well(&["verify", "pki/server/0/tls.crt"]);
    assert_eq!(dir.well(&["renew", "--lifetime", "90d", "client/brief"]).matches("renewed").count(), 1);
    assert!(dir.well(&["secret", "server/0", "--namespace", "prod"]).contains("kind: Secret"));
    fs::set_permissions(dir.path("pki/ca/1/ca.key"), fs::Permissions::from_mode(0o644)).expect("it is ours");
    assert!(dir.fails(4, &["crl"]).contains("chmod 0600"));
}

#[test]
fn modes_are_tight_whatever_the_umask() {
    let dir = Dir::new("modes");
    let script = "umask 000; \"$0\" certs init --cluster c && \"$0\" certs issue server 0 --signing";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_lockstep")]).current_dir(&dir.0);
    assert!(shell.output().expect("a shell").status.success());
    let mode = |name: &str| fs::metadata(dir.path(name)).expect("it was made").mode() & 0o777;
    for key in ["pki/ca/1/ca.key", "pki/server/0/tls.key", "pki/server/0/signing.key"] {
        assert_eq!(mode(key), 0o600, "{key}");
    }
    assert_eq!(mode("pki/ca/1"), 0o700);
    dir.well(&["renew", "server/0"]);
    assert_eq!(mode("pki/server/0/signing.key"), 0o600);
}

#[test]
fn a_cluster_from_a_file_lives_through_a_rotation() {
    let dir = Dir::new("rotation");
    let file = "cluster = \"shop\"\nsigning = true\nserver = 3\nsmart-client = 1\ningress = [\"edge\"]\n";
    fs::write(dir.path("cluster.toml"), file).expect("the temporary directory can be written");
    let made = dir.json(&["apply", "-f", "cluster.toml"]);
    assert_eq!(made["changes"].as_array().map(Vec::len), Some(10));
    assert!(dir.well(&["apply", "-f", "cluster.toml"]).lines().all(|line| line.starts_with("kept")));
    dir.well(&["rotate-ca", "start"]);
    dir.fails(3, &["rotate-ca", "start"]);
    let refused = dir.fails(3, &["rotate-ca", "finish"]);
    assert!(refused.contains("certs renew ingress/edge server/0 server/1 server/2 smart-client/0"), "{refused}");
    dir.well(&["renew", "--all"]);
    let status = dir.json(&["rotate-ca", "status"]);
    assert_eq!((&status["rotating"], &status["issuing"]), (&true.into(), &2.into()));
    assert!(status["authorities"][0]["live"].as_array().is_some_and(Vec::is_empty), "{status}");
    dir.well(&["rotate-ca", "finish"]);
    let listed = dir.json(&["list"]);
    let all = listed["certificates"].as_array().expect("a list");
    assert_eq!(all.len(), 10);
    for leaf in all {
        assert_eq!((&leaf["state"], &leaf["ca"], &leaf["present"]), (&"good".into(), &2.into(), &true.into()));
        for key in ["role", "id", "kind", "serial", "not_before", "not_after"] {
            assert!(leaf[key].is_string(), "{key} in {leaf}");
        }
    }
    dir.well(&["rotate-ca", "abort"]);
    assert!(dir.well(&["list"]).contains("smart-client"));
}

#[test]
fn the_passphrase_comes_from_a_flag_or_the_environment() {
    let dir = Dir::new("passphrase");
    write_secret(&dir.path("phrase"), "open sesame\n");
    write_secret(&dir.path("wrong"), "open barley\n");
    dir.well(&["init", "--cluster", "c", "--passphrase-file", "phrase"]);
    assert!(dir.fails(2, &["issue", "server", "0"]).contains("--passphrase-file"));
    assert!(dir.fails(4, &["issue", "server", "0", "--passphrase-file", "wrong"]).contains("another passphrase"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
    command.args(["certs", "issue", "server", "0"]).env("LOCKSTEP_PASSPHRASE_FILE", "phrase").current_dir(&dir.0);
    assert!(command.status().expect("the program runs").success());
    let Some(key) = openssl(&[
        "pkey",
        "-in",
        &dir.path("pki/ca/1/ca.key"),
        "-noout",
        "-text",
        "-passin",
        &format!("file:{}", dir.path("phrase")),
    ]) else {
        return;
    };
    assert!(text(&key).contains("prime256v1"), "{}", text(&key));
    let wrong = openssl(&["pkey", "-in", &dir.path("pki/ca/1/ca.key"), "-noout", "-passin", "pass:x"]);
    assert!(wrong.is_some_and(|output| !output.status.success()));
}

#[test]
fn openssl_believes_what_is_good_and_nothing_else() {
    let dir = Dir::new("openssl-verify");
    dir.well(&["init", "--cluster", "shop"]);
    dir.well(&["issue", "server", "0", "--signing", "--san", "shop.example,192.0.2.1"]);
    dir.well(&["issue", "ingress", "edge"]);
    dir.well(&["rotate-ca", "start"]);
    dir.well(&["issue", "admin", "ann"]);
    dir.well(&["revoke", "ingress/edge"]);
    let verify = |file: &str, more: &[&str]| {
        let (bundle, crl, file) = (dir.path("pki/bundle.crt"), dir.path("pki/crl.pem"), dir.path(file));
        // Strict: RFC 5280's word on every extension.
        let words = ["verify", "-x509_strict", "-CAfile", &bundle, "-CRLfile", &crl, "-crl_check"];
        openssl(&[&words[..], more, &[&file]].concat())
    };
    let Some(first) = verify("pki/server/0/tls.crt", &["-purpose", "sslserver"]) else { return };
    text(&first);
    let is_well = |output: Option<Output>| output.is_some_and(|output| output.status.success());
    assert!(is_well(verify("pki/server/0/tls.crt", &["-purpose", "sslclient"])));
    assert!(is_well(verify("pki/admin/ann/tls.crt", &["-purpose", "sslclient"])), "from the new authority");
    assert!(is_well(verify("pki/server/0/signing.crt", &[])));
    assert!(!is_well(verify("pki/server/0/signing.crt", &["-purpose", "sslclient"])), "not for TLS");
    assert!(!is_well(verify("pki/server/0/signing.crt", &["-purpose", "sslserver"])), "not for TLS");
    assert!(!is_well(verify("pki/admin/ann/tls.crt", &["-purpose", "sslserver"])), "an operator is no server");
    let revoked = verify("pki/ingress/edge/tls.crt", &[]).expect("it ran before");
    assert!(!revoked.status.success() && stderr(&revoked).contains("revoked"), "{}", stderr(&revoked));
    for key in ["pki/server/0/tls.key", "pki/server/0/signing.key"] {
        text(&openssl(&["pkey", "-in", &dir.path(key), "-noout", "-check"]).expect("it ran before"));
    }
    let list = text(&openssl(&["crl", "-in", &dir.path("pki/crl.pem"), "-noout", "-text"]).expect("it ran before"));
    assert!(list.contains("X509v3 CRL Number") && list.contains("Next Update"), "{list}");
}

/// The value after `name:` or `name=` in OpenSSL's text.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let at = text.find(name).unwrap_or_else(|| panic!("{name} in {text}")) + name.len();
    text[at..].trim_start_matches([' ', ':', '=', '\n']).lines().next().unwrap_or_default().trim()
}

fn unix(date: &str) -> String {
    let output = Command::new("date").args(["-u", "-d", date, "+%Y-%m-%dT%H:%M:%SZ"]).output().expect("date runs");
    text(&output).trim().to_owned()
}

fn compare(dir: &Dir, file: &str) {
    let path = dir.path(file);
    let ours = dir.json(&["inspect", file])["blocks"][0].clone();
    let Some(theirs) = openssl(&[
        "x509",
        "-in",
        &path,
        "-noout",
        "-text",
        "-serial",
        "-subject",
        "-issuer",
        "-dates",
        "-fingerprint",
        "-sha256",
    ]) else {
        return;
    };
    let theirs = text(&theirs);
    let plain = |hex: &str| hex.replace(':', "").to_lowercase();
    assert_eq!(ours["serial"], plain(field(&theirs, "serial=")).trim_start_matches("00"), "{file}");
    assert_eq!(ours["sha256"], plain(field(&theirs, "sha256 Fingerprint=")));
    assert_eq!(ours["subject"], field(&theirs, "\nsubject=").replace(" = ", "="));
    assert_eq!(ours["issuer"], field(&theirs, "\nissuer=").replace(" = ", "="));
    assert_eq!(ours["not_before"], unix(field(&theirs, "notBefore=")));
    assert_eq!(ours["not_after"], unix(field(&theirs, "notAfter=")));
    assert_eq!(ours["subject_key_id"], plain(field(&theirs, "X509v3 Subject Key Identifier")));
    assert_eq!(theirs.contains("CA:TRUE, pathlen:0"), ours["ca"] == true && ours["path_len"] == 0);
    if ours["ca"] != true {
        assert_eq!(ours["authority_key_id"], plain(field(&theirs, "X509v3 Authority Key Identifier")));
    }
    let names = field(&theirs, "X509v3 Subject Alternative Name");
    let all = ["uris", "dns_names", "ip_addresses"].map(|key| ours[key].as_array().expect("a list").clone()).concat();
    assert_eq!(names.split(", ").count(), all.len(), "{names}");
    for name in all {
        assert!(names.contains(name.as_str().expect("text")), "{name} in {names}");
    }
    let usage = field(&theirs, "X509v3 Key Usage: critical");
    let expected = if ours["ca"] == true { "Certificate Sign, CRL Sign" } else { "Digital Signature" };
    assert_eq!(usage, expected);
    let (key, algorithm) = match ours["key"].as_str() {
        Some("Ed25519") => ("Ed25519", "ED25519"),
        Some("ECDSA P-256") => ("ECDSA P-256", "id-ecPublicKey"),
        other => panic!("{other:?}"),
    };
    assert_eq!(field(&theirs, "Public Key Algorithm").to_lowercase(), algorithm.to_lowercase(), "{key}");
    if ours["kind"] == "signing" {
        assert_eq!(field(&theirs, "X509v3 Extended Key Usage"), "1.3.6.1.5.5.7.3.36");
        assert_eq!(ours["extended_key_usage"], serde_json::json!(["1.3.6.1.5.5.7.3.36"]));
    } else if ours["kind"] == "tls" {
        let usage = field(&theirs, "X509v3 Extended Key Usage");
        assert_eq!(usage, "TLS Web Client Authentication, TLS Web Server Authentication");
        assert_eq!(ours["extended_key_usage"], serde_json::json!(["clientAuth", "serverAuth"]));
    }
}

#[test]
fn openssl_reads_the_same_as_inspect_shows() {
    let dir = Dir::new("openssl-text");
    dir.well(&["init", "--cluster", "shop.main", "--trust-domain", "example.org"]);
    dir.well(&["issue", "server", "12", "--signing", "--san", "shop.example,192.0.2.1"]);
    for file in ["pki/ca/1/ca.crt", "pki/server/12/tls.crt", "pki/server/12/signing.crt"] {
        compare(&dir, file);
    }
    let leaf = dir.json(&["inspect", "pki/server/12/tls.crt"])["blocks"][0].clone();
    assert_eq!((&leaf["role"], &leaf["id"], &leaf["cluster"]), (&"server".into(), &"12".into(), &"shop.main".into()));
    assert_eq!(leaf["uris"][0], "spiffe://example.org/cluster/shop.main/server/12");
    assert!(Path::new(&dir.path("pki/crl.pem")).exists());
    let key = dir.json(&["inspect", "pki/server/12/tls.key"]);
    assert_eq!(key["blocks"][0], serde_json::json!({"type": "private-key", "encrypted": false}));
    dir.fails(1, &["inspect", "pki/nobody.crt"]);
}
