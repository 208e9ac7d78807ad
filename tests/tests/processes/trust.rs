//! Certificates that are renewed, revoked, replaced and spoiled under a running service.

use super::binary::{has_redis, lockstep};
use super::hashmap::netcat;
use super::up::{Process, Up};
use super::wait;
use certs::{Facts, Pki};
use lockstep_tests::driver::http;
use lockstep_tests::load;
use mesh::net::{Credentials, Endpoint, LINK_MAX_AGE, LinkKind, NetError, RefusalReason, kept};
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fs;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Clients that each write and read on one connection and stop at the first surprise: an error, or the connection's end.
struct Writers {
    stop: Arc<AtomicBool>,
    counts: Vec<Arc<AtomicU64>>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Writers {
    fn start(up: &Up) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts: Vec<_> = (0..4).map(|_| Arc::new(AtomicU64::new(0))).collect();
        let threads = counts.iter().enumerate().map(|(client, count)| {
            let (to, stop, count) = (up.listen().to_owned(), stop.clone(), count.clone());
            std::thread::spawn(move || {
                let mut link = load::connect(&to).map_err(|error| error.to_string())?;
                let mut ask = |request: String, expected: String| {
                    let mut reply = String::new();
                    let answered =
                        link.get_mut().write_all(request.as_bytes()).and_then(|()| link.read_line(&mut reply));
                    if reply == expected { Ok(()) } else { Err(format!("{request:?}: {answered:?} {reply:?}")) }
                };
                while !stop.load(Ordering::Relaxed) {
                    let number = count.load(Ordering::Relaxed);
                    ask(format!("PUT k{client} {number}\n"), "OK\n".to_owned())?;
                    ask(format!("GET k{client}\n"), format!("VALUE {number}\n"))?;
                    count.store(number + 1, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        let threads = threads.collect();
        Self { stop, counts, threads }
    }

    /// Waits until every one got on.
    fn progress(&self, when: &str) {
        for (count, thread) in self.counts.iter().zip(&self.threads) {
            let from = count.load(Ordering::Relaxed);
            wait::until(&format!("going on {when}"), || {
                let now = count.load(Ordering::Relaxed);
                if now > from + 20 || thread.is_finished() { Ok(()) } else { Err(format!("at {now}")) }
            });
        }
    }

    fn finish(self, up: &Up) {
        self.stop.store(true, Ordering::Relaxed);
        let faults: Vec<_> = self.threads.into_iter().filter_map(|thread| thread.join().unwrap().err()).collect();
        assert!(faults.is_empty(), "{faults:#?}");
        let ingress = up.role("ingress").remove(0).status().unwrap();
        assert_eq!(
            (&ingress["requests"]["refused"], &ingress["requests"]["unknown"]),
            (&0.into(), &0.into()),
            "{ingress}"
        );
    }
}

/// The authority of a running `up`, or another of the same cluster, and where its leaves go.
struct Authority {
    /// A directory of certificates beside that of the service.
    dir: PathBuf,
    pki: Pki,
}

impl Authority {
    /// The one that `up` made, in a directory of its own: it issues everything anew.
    fn of(up: &Up, name: &str) -> Self {
        let dir = up.data_dir().join(name);
        fs::create_dir_all(dir.join("ca/1")).unwrap();
        for file in ["ca.crt", "ca.key"] {
            fs::copy(up.data_dir().join("pki/ca/1").join(file), dir.join("ca/1").join(file)).unwrap();
        }
        Self { pki: Pki::open(&dir).unwrap(), dir }
    }

    /// Another one of the same cluster.
    fn new(up: &Up, name: &str) -> Self {
        let dir = up.data_dir().join(name);
        Self { pki: Pki::init(&dir, "local").unwrap(), dir }
    }

    /// A fresh certificate for every part, in the place of the one that it has; key first, as somebody would who knows
    /// no better.
    fn renew_all(&self, up: &Up) {
        for part in up.processes() {
            let (role, id) = named(&part);
            let fresh = self.pki.issue(role, &id).unwrap();
            let place = leaf(up, &part);
            for (from, file) in [(&fresh.key, "tls.key"), (&fresh.certificate, "tls.crt")] {
                let next = place.join(".next");
                fs::copy(from, &next).unwrap();
                fs::rename(&next, place.join(file)).unwrap();
            }
        }
    }

    fn certificate(&self) -> String {
        fs::read_to_string(self.dir.join("ca/1/ca.crt")).unwrap()
    }

    /// Its revocation list with these serial numbers, as `/status` shows them.
    fn list(&self, number: u64, serials: &[String]) -> String {
        let key = KeyPair::from_pem(&fs::read_to_string(self.dir.join("ca/1/ca.key")).unwrap()).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&self.certificate(), key).unwrap();
        let revoked = |serial: &String| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&bytes(serial)),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&issuer).unwrap().pem().unwrap()
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn named(part: &Process) -> (&'static str, String) {
    let role = match part.role.as_str() {
        "sidecar" => "server",
        "smart-client" => "smart-client",
        _ => "ingress",
    };
    (role, part.id.to_string())
}

fn leaf(up: &Up, part: &Process) -> PathBuf {
    let (role, id) = named(part);
    up.data_dir().join("pki").join(role).join(id)
}

fn put(path: &Path, text: &str) {
    let next = path.with_file_name(".next");
    fs::write(&next, text).unwrap();
    fs::rename(&next, path).unwrap();
}

fn trust(up: &Up, bundle: &str) {
    for part in up.processes() {
        put(&leaf(up, &part).join("ca.crt"), bundle);
    }
}

fn serial(part: &Process) -> String {
    part.status().unwrap()["tls"]["serial"].as_str().unwrap().to_owned()
}

fn metric(part: &Process, name: &str) -> Result<u64, String> {
    let (_, text) = http::get(&part.admin, "/metrics")?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse::<f64>().ok()).map(|value| value as u64).ok_or(format!("no {name} in {text}"))
}

/// Waits until the `tls` that every part shows is as it should be.
fn every_part(up: &Up, what: &str, is: impl Fn(&Process, &serde_json::Value) -> bool) {
    wait::until(what, || {
        for part in up.processes() {
            let tls = part.status()?["tls"].clone();
            if !is(&part, &tls) {
                return Err(format!(
                    "{} {}: {tls}\n{}",
                    part.role,
                    part.id,
                    up.log_of(&format!("{}-{}", part.role, part.id))
                ));
            }
        }
        Ok(())
    });
}

/// What a server says to one with the certificate in `dir`.
fn dial(dir: &Path, to: &Process) -> Result<(), NetError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let any = ([127, 0, 0, 1], 0).into();
        let credentials = Credentials::load(dir, None).unwrap();
        let limits = kept::limits(LINK_MAX_AGE);
        let endpoint = Endpoint::bind(any, credentials, &[], limits, &mut mesh::node::registry()).unwrap();
        endpoint.dial(LinkKind::Submit, to.quic.as_ref().unwrap(), None).await.map(drop)
    })
}

#[test]
fn all_certificates_and_then_the_authority_are_replaced_under_load() {
    let up = Up::start(&[]);
    let writers = Writers::start(&up);
    writers.progress("before");
    let old: Vec<String> = up.processes().iter().map(serial).collect();
    let kept = up.data_dir().join("old");
    fs::create_dir(&kept).unwrap();
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        fs::copy(up.data_dir().join("pki/smart-client/0").join(file), kept.join(file)).unwrap();
    }
    let server = up.role("sidecar").remove(0);
    dial(&kept, &server).unwrap();

    let first = Authority::of(&up, "renewed");
    first.renew_all(&up);
    every_part(&up, "renewed", |_, tls| !old.iter().any(|old| tls["serial"] == *old));
    writers.progress("with new certificates");
    put(&up.data_dir().join("pki/crl.pem"), &first.list(101, &old));
    every_part(&up, "told of the revocation", |_, tls| tls["crl_number"] == 101);
    let refused = dial(&kept, &server);
    assert!(
        matches!(&refused, Err(NetError::Refused { refusal, .. }) if refusal.reason == RefusalReason::Revoked),
        "{refused:?}"
    );
    writers.progress("after the old certificates were revoked");

    let second = Authority::new(&up, "rotated");
    trust(&up, &(first.certificate() + &second.certificate()));
    every_part(&up, "trusting both", |_, tls| tls["bundle_sha256"].as_array().is_some_and(|all| all.len() == 2));
    let renewed: Vec<String> = up.processes().iter().map(serial).collect();
    second.renew_all(&up);
    put(&up.data_dir().join("pki/crl.pem"), &(first.list(102, &old) + &second.list(103, &[])));
    every_part(&up, "of the new authority", |_, tls| !renewed.iter().any(|old| tls["serial"] == *old));
    writers.progress("while both are trusted");
    trust(&up, &second.certificate());
    every_part(&up, "trusting the new one only", |_, tls| {
        tls["bundle_sha256"].as_array().is_some_and(|all| all.len() == 1)
    });
    writers.progress("after the rotation");
    put(&kept.join("ca.crt"), &second.certificate());
    let refused = dial(&kept, &server);
    assert!(
        matches!(&refused, Err(NetError::Refused { refusal, .. }) if refusal.reason == RefusalReason::UnknownCa),
        "{refused:?}"
    );
    for part in up.processes() {
        assert!(metric(&part, "lockstep_tls_reloads_total{result=\"ok\"}").unwrap() >= 4, "{part:?}");
        assert_eq!(metric(&part, "lockstep_tls_reloads_total{result=\"failed\"}").unwrap(), 0, "{part:?}");
    }
    writers.finish(&up);
}

/// The same with the commands that people use, and with keys that sign: every new session is opened with new ones.
#[test]
fn the_commands_renew_rotate_and_revoke_under_load_and_signatures() {
    let up = Up::start(&["--signatures"]);
    let pki = up.data_dir().join("pki");
    let certs = |words: &[&str]| {
        let mut command = Command::new(lockstep());
        let output = command.arg("certs").args(words).arg("--dir").arg(&pki).stdin(Stdio::null()).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let well = |words: &[&str]| {
        let (well, said) = certs(words);
        assert!(well, "{words:?}: {said}");
    };
    // Of the files of each part: servers announce a key for two seconds before they sign with it.
    let all_use_what_is_there = |when: &str| {
        let serial = |path| Facts::of(&CertificateDer::from_pem_file(path).unwrap()).unwrap().serial.to_uppercase();
        every_part(&up, when, |part, tls| {
            let place = leaf(&up, part);
            let signs = part.role == "smart-client" || tls["signing_serial"] == serial(place.join("signing.crt"));
            signs && tls["serial"] == serial(place.join("tls.crt"))
        });
    };
    let writers = Writers::start(&up);
    writers.progress("before");
    well(&["renew", "--all"]);
    all_use_what_is_there("renewed");
    writers.progress("with new certificates");
    well(&["rotate-ca", "start"]);
    every_part(&up, "trusting both", |_, tls| tls["bundle_sha256"].as_array().is_some_and(|all| all.len() == 2));
    let (finished, why) = certs(&["rotate-ca", "finish"]);
    assert!(!finished && why.contains("renew"), "{why}");
    well(&["renew", "--all"]);
    all_use_what_is_there("of the new authority");
    writers.progress("while both are trusted");
    well(&["rotate-ca", "finish"]);
    every_part(&up, "trusting the new one only", |_, tls| {
        tls["bundle_sha256"].as_array().is_some_and(|all| all.len() == 1)
    });
    writers.progress("after the rotation");
    // A session of a new connection is opened with the newest key, and believed.
    assert_eq!(netcat(up.listen(), "PUT new 1\nGET new\n").unwrap(), "OK\nVALUE 1\n");
    well(&["revoke", "smart-client/1"]);
    let revoked = up.role("smart-client").remove(1);
    wait::until("cut off", || {
        let status = revoked.status()?;
        let up = |peer: &serde_json::Value| peer["up"] == true;
        if status["peers"].as_array().ok_or("it has peers")?.iter().any(up) { Err(status.to_string()) } else { Ok(()) }
    });
    writers.progress("without the one that was revoked");
    for part in up.processes() {
        assert_eq!(metric(&part, "lockstep_tls_reloads_total{result=\"failed\"}").unwrap(), 0, "{part:?}");
    }
    let ingress = up.role("ingress").remove(0);
    assert_eq!(ingress.status().unwrap()["signature_failures"], 0);
    writers.finish(&up);
}

#[test]
fn a_revoked_smart_client_loses_its_live_links_and_the_service_goes_on_without_it() {
    let up = Up::start(&[]);
    let writers = Writers::start(&up);
    writers.progress("before");
    let revoked = up.role("smart-client").remove(0);
    let list = Authority::of(&up, "list").list(1, &[serial(&revoked)]);
    put(&up.data_dir().join("pki/crl.pem"), &list);
    wait::until("cut off", || {
        let status = revoked.status()?;
        let peers = status["peers"].as_array().ok_or("it has peers")?;
        let cut = |peer: &serde_json::Value| {
            peer["up"] == false && peer["error"].as_str().is_some_and(|error| error.contains("revoked"))
        };
        if peers.iter().all(cut) { Ok(()) } else { Err(status.to_string()) }
    });
    for sidecar in up.role("sidecar") {
        let count = metric(&sidecar, "lockstep_links_refused_total{reason=\"revoked\"}").unwrap();
        assert!(count >= 1, "{sidecar:?}");
    }
    writers.progress("without it");
    assert!(up.log_of("smart-client-0").contains("our own certificate is revoked"), "{}", up.log_of("smart-client-0"));
    writers.finish(&up);
}

#[test]
fn a_bad_certificate_that_is_put_in_place_is_not_used_and_it_is_said_and_counted() {
    let up = Up::start(&[]);
    let writers = Writers::start(&up);
    let part = up.role("sidecar").remove(0);
    let (before, place) = (serial(&part), leaf(&up, &part));
    let good = fs::read_to_string(place.join("tls.crt")).unwrap();
    put(&place.join("tls.crt"), "rubbish");
    let failed = "lockstep_tls_reloads_total{result=\"failed\"}";
    wait::until("counted", || match metric(&part, failed)? {
        1 => Ok(()),
        other => Err(other.to_string()),
    });
    assert_eq!(serial(&part), before);
    let log = up.log_of("sidecar-0");
    assert!(log.contains("new certificate files are not used") && log.contains("tls.crt"), "{log}");
    writers.progress("with the old one");
    put(&place.join("tls.crt"), &good);
    writers.progress("with the old one back in place");
    assert_eq!(metric(&part, failed).unwrap(), 1);
    writers.finish(&up);
}

#[test]
fn links_are_replaced_before_they_are_too_old_and_no_request_fails() {
    let up = Up::start(&["--link-max-age", "4s"]);
    let writers = Writers::start(&up);
    // Two links of the ingress, three of each SMaRtClient, two of each sidecar: each replaced twice.
    let parts = [("ingress-0", "link is up", 6), ("smart-client-0", "link is up", 9), ("sidecar-0", "linked", 6)];
    wait::until("replaced", || {
        let counts = parts.map(|(part, words, _)| up.log_of(part).matches(words).count());
        let enough = counts.iter().zip(parts).all(|(count, (_, _, least))| *count >= least);
        if enough { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    writers.progress("on newer links");
    writers.finish(&up);
    for part in ["ingress-0", "smart-client-0", "smart-client-1"] {
        assert!(!up.log_of(part).contains("link is gone"), "{part}: {}", up.log_of(part));
    }
}

/// `lockstep check`: its exit code, and what it says of each thing in JSON.
fn check(arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
    let mut command = Command::new(lockstep());
    let output = command.args(["check", "-o", "json"]).args(arguments).stdin(Stdio::null()).output().unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), said)
}

#[test]
fn check_finds_a_healthy_installation_healthy_and_names_what_is_wrong_and_what_mends_it() {
    let up = Up::start(&[]);
    let dir = up.data_dir();
    let (code, said) = check(&["--data-dir", dir.to_str().unwrap(), "--wait", "1m"]);
    assert_eq!((code, &said["healthy"]), (Some(0), &true.into()), "{said}");
    let names: Vec<_> = said["checks"].as_array().unwrap().iter().filter_map(|check| check["name"].as_str()).collect();
    for name in
        ["certificate of server/2", "certificate of ingress/0", "sidecar 0", "smart-client 1", "ingress 0", "service"]
    {
        assert!(names.contains(&name), "{name}: {said}");
    }
    let pki = dir.join("pki");
    fs::rename(pki.join("server/0"), pki.join("server/swap")).unwrap();
    fs::rename(pki.join("server/1"), pki.join("server/0")).unwrap();
    fs::rename(pki.join("server/swap"), pki.join("server/1")).unwrap();
    let list = Authority::of(&up, "list").list(1, &[serial(&up.role("ingress").remove(0))]);
    put(&pki.join("crl.pem"), &list);
    let (code, said) = check(&["--pki", pki.to_str().unwrap()]);
    assert_eq!((code, &said["healthy"]), (Some(4), &false.into()), "{said}");
    let of = |name: &str| {
        let checks = said["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {said}"))
    };
    assert_eq!(of("certificate of server/0")["label"], "wrong_id");
    assert_eq!(of("certificate of ingress/0")["label"], "revoked");
    let hint = of("certificate of ingress/0")["hint"].as_str().unwrap();
    assert!(hint.contains("lockstep certs renew ingress/0"), "{hint}");
    let (code, said) = check(&["--admin", "127.0.0.1:9"]);
    assert_eq!(code, Some(5), "{said}");
}

#[test]
fn swapped_secrets_and_swapped_volumes_are_noticed_at_the_start() {
    let mut up = Up::start(&["--data-dir", unique("swapped").to_str().unwrap()]);
    assert_eq!(netcat(up.listen(), "PUT a 1\n").unwrap(), "OK\n");
    let dir = up.data_dir();
    assert!(up.stop().success());
    let start = |id: &str, secret: &str, volume: &str| {
        let mut command = Command::new(lockstep());
        command.args(["sidecar", "--cluster", "local", "--id", id, "--protocol", "line", "--admin", "127.0.0.1:0"]);
        command.args(["--quic", "127.0.0.1:0", "--seeds", "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3", "--pki"]);
        command.arg(dir.join("pki/server").join(secret)).arg("--data-dir").arg(dir.join(format!("server-{volume}")));
        command.args(["--app", "127.0.0.1:9"]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success(), "{id} {secret} {volume}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = start("0", "1", "0");
    assert!(said.contains("server/1 of cluster local") && said.contains("server/0 of cluster local"), "{said}");
    let said = start("0", "0", "1");
    assert!(said.contains("member 1 of cluster local") && said.contains("member 0 of cluster local"), "{said}");
    drop(up);
    fs::remove_dir_all(&dir).unwrap();
}

fn unique(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("lockstep-trust-{name}-{}", std::process::id()))
}

#[test]
fn redis_clients_may_speak_tls() {
    if !has_redis("redis_clients_may_speak_tls") {
        return;
    }
    let help = Command::new("redis-cli").arg("--help").output().unwrap();
    if ![help.stdout, help.stderr].iter().any(|text| String::from_utf8_lossy(text).contains("--tls")) {
        println!("SKIPPED redis_clients_may_speak_tls: this redis-cli has no TLS");
        return;
    }
    let dir = unique("tls");
    let pki = Pki::init(&dir, "outside").unwrap();
    let paths = pki.issue("server", "0").unwrap();
    let [certificate, key] = [&paths.certificate, &paths.key].map(|path| path.to_str().unwrap());
    let up = super::redis::start(&["--tls-cert", certificate, "--tls-key", key]);
    let (_, port) = up.listen().rsplit_once(':').unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["-p", port, "--tls", "--sni", "server-0.outside.lockstep", "--cacert"]);
        let output = command.arg(&paths.authorities).args(words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    assert_eq!(run(&["SET", "greeting", "hello"]), "OK");
    assert_eq!(run(&["GET", "greeting"]), "hello");
    let status = up.role("ingress").remove(0).status().unwrap();
    assert!(status["listen_tls"]["serial"].is_string(), "{status}");
    drop(up);
    fs::remove_dir_all(&dir).unwrap();
}
