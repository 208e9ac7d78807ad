//! The trial of a malicious SMaRtClient: a real cluster, an ingress that is pointed at the malicious one and an honest one,
//! clients whose every reply is known beforehand. What each behaviour came to is judged by what the clients saw, by what
//! the applications hold afterwards, and by what the parts counted.

mod counted;
mod parts;
mod table;
mod victims;

pub use table::table;

use super::Wish;
use crate::driver::{Up, lives};
use anyhow::{Context, ensure};
use certs::Pki;
use counted::Counted;
use parts::{Ingress, Malicious, until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use victims::{Ledger, Word};

/// The clients of a trial, by the last letter of their keys: none is another's with its last bit changed, so that an altered
/// request counts up a counter of nobody's.
const CLIENTS: [char; 6] = ['b', 'd', 'f', 'h', 'j', 'l'];
/// Calls after which a trial has seen enough, all clients together, if the malicious one misbehaved so often by then.
const CALLS: u64 = 300;
const DONE: u64 = 10;
/// Calls after which it ends all the same: one that fails is soon left alone.
const CALLS_MOST: u64 = 4000;
/// A trial whose calls mostly fail ends all the same.
const LONGEST: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// Calls that must succeed once the malicious one is gone.
const AFTERWARDS: u64 = 20;

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `lockstep`.
    pub lockstep: PathBuf,
    /// The application: `misbehave`, which does not.
    pub application: PathBuf,
    /// `malicious`.
    pub malicious: PathBuf,
}

/// What a behaviour came to.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What the malicious one was told to do.
    pub wishes: Vec<Wish>,
    /// How often it did, by behaviour, and what it heard.
    pub did: Value,
    /// Calls that were answered rightly.
    pub answered: u64,
    /// Wrong replies that reached clients; some of them in words.
    pub wrong: u64,
    /// The first of them.
    pub surprises: Vec<String>,
    /// Calls without a reply.
    pub failed: u64,
    /// Requests that were executed and that no client sent so, or not so often.
    pub forged: u64,
    /// Requests that were answered and not executed.
    pub lost: u64,
    /// What the parts counted meanwhile.
    pub counted: BTreeMap<String, u64>,
}

impl Verdict {
    /// How often it misbehaved.
    #[must_use]
    pub fn done(&self) -> u64 {
        let done = |did: &Value| did["done"].as_u64();
        self.did.as_object().map_or(0, |did| did.values().filter_map(done).sum())
    }

    /// How much was counted under names that begin so: `sidecar rejected`.
    #[must_use]
    pub fn counted(&self, name: &str) -> u64 {
        self.counted.iter().filter(|(counted, _)| counted.starts_with(name)).map(|(_, count)| count).sum()
    }
}

/// A cluster on which behaviours are tried, one after the other.
pub struct Bench {
    programs: Programs,
    up: Up,
    pki: Pki,
    signatures: bool,
    trials: u32,
    least: u64,
}

impl Bench {
    /// Starts one, with signatures on requests and replies or without.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(programs: Programs, signatures: bool) -> anyhow::Result<Self> {
        let mut arguments =
            vec!["--smart-clients", "1", "--protocol", "line", "--app-timeout", "2s", "--deadline", "30s"];
        arguments.extend(["--snapshot-dump-request", "DUMP", "--snapshot-load-request", "LOAD"]);
        arguments.extend(["--app-empty-request", "SIZE", "--app-empty-reply", "0"]);
        if signatures {
            arguments.extend(["--signatures", "required"]);
        }
        let application = programs.application.to_str().context("a path that is text")?.to_owned();
        arguments.extend(["--", &application, "{port}", "{dir}"]);
        let end = Instant::now() + Duration::from_secs(90);
        let up = Up::start(Command::new(&programs.lockstep), &arguments, || Instant::now() >= end)?;
        let pki = Pki::open(&up.data_dir().join("pki"))?;
        Ok(Self { programs, up, pki, signatures, trials: 0, least: 1 })
    }

    /// From now on a trial goes on until the malicious one has misbehaved so often, if time allows.
    pub fn insist(&mut self, least: u64) {
        self.least = least;
    }

    /// Has a new malicious SMaRtClient misbehave for a while, beside the honest one.
    ///
    /// # Errors
    /// Not what it did, which is in the verdict; but a cluster that does not go on as before once it is gone: a process that
    /// ended, a service that does not answer, applications that differ.
    pub fn try_out(&mut self, wishes: &[Wish]) -> anyhow::Result<Verdict> {
        self.trials += 1;
        let (trial, pids) = (self.trials, self.up.pids());
        let before = (self.dump()?, self.count(None));
        let malicious = Malicious::start(&self.programs, &self.up, &self.pki, &format!("malice-{trial}"), wishes)?;
        let mut honest: Vec<String> = self.up.role("smart-client").into_iter().filter_map(|part| part.quic).collect();
        honest.push(malicious.quic.clone());
        let id = format!("trial-{trial}");
        let mut ingress = Ingress::start(&self.programs, &self.up, &self.pki, &id, &honest, self.signatures)?;
        let (ledgers, did) = work(&ingress.listen, trial, malicious, self.least)?;
        let after = self.count(Some(&ingress));
        go_on(&ingress.listen, trial)?;
        ensure!(ingress.lives(), "the ingress ended: see {id}.log");
        ensure!(pids == self.up.pids() && pids.into_iter().all(lives), "a process of the cluster ended");
        let mut verdict = Verdict {
            wishes: wishes.to_vec(),
            did,
            answered: ledgers.iter().map(|ledger| ledger.answered).sum(),
            wrong: ledgers.iter().map(|ledger| ledger.wrong).sum(),
            surprises: ledgers.iter().flat_map(|ledger| ledger.surprises.clone()).take(3).collect(),
            failed: ledgers.iter().map(|ledger| ledger.failed).sum(),
            forged: 0,
            lost: 0,
            counted: counted::since(&before.1, &after),
        };
        judge(&mut verdict, &ledgers, trial, &before.0, &self.dump()?);
        Ok(verdict)
    }

    /// What all applications hold, once they hold the same.
    fn dump(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        until("all applications hold the same", || {
            let mut dumps = Vec::new();
            for sidecar in self.up.role("sidecar") {
                let (_, address) = sidecar.app.ok_or("a sidecar has no application")?;
                dumps.push(ask(&address, "DUMP\n").map_err(|error| format!("{address}: {error}"))?);
            }
            let same = dumps.windows(2).all(|pair| pair[0] == pair[1]);
            let counts = |dump: &String| {
                let pairs = dump.trim_end().split(',').filter_map(|pair| pair.split_once('='));
                pairs.filter_map(|(key, count)| Some((key.to_owned(), count.parse().ok()?))).collect()
            };
            dumps.first().filter(|_| same).map(counts).ok_or_else(|| format!("{dumps:?}"))
        })
    }

    fn count(&self, ingress: Option<&Ingress>) -> Counted {
        let mut counted = Counted::new();
        for process in self.up.processes().iter().filter(|process| process.role != "ingress") {
            counted::add(&mut counted, &process.role, &process.admin);
        }
        if let Some(ingress) = ingress {
            counted::add(&mut counted, "ingress", &ingress.process.admin);
        }
        counted
    }
}

/// Lets clients call until enough was seen, and ends the malicious one; what they saw, and what it did.
fn work(address: &str, trial: u32, malicious: Malicious, least: u64) -> anyhow::Result<(Vec<Ledger>, Value)> {
    let word = Word::default();
    std::thread::scope(|scope| {
        let clients: Vec<_> = CLIENTS
            .map(|client| {
                let word = &word;
                scope.spawn(move || victims::run(address, format!("{trial}-{client}"), word))
            })
            .into_iter()
            .collect();
        let end = Instant::now() + LONGEST;
        let enough = || match word.calls.load(Ordering::Relaxed) {
            ..CALLS => false,
            CALLS..CALLS_MOST => malicious.done() >= DONE.max(least),
            CALLS_MOST.. => malicious.done() >= least,
        };
        while Instant::now() < end && !enough() {
            std::thread::sleep(LOOK);
        }
        // It is there to the end of the last call.
        word.stop.store(true, Ordering::Relaxed);
        let ledgers: Option<Vec<_>> = clients.into_iter().map(|client| client.join().ok()).collect();
        Ok((ledgers.context("a client's thread ended")?, malicious.end()?))
    })
}

/// Without the malicious one everything is as it was.
fn go_on(address: &str, trial: u32) -> anyhow::Result<()> {
    let word = Word::default();
    std::thread::scope(|scope| {
        let client = scope.spawn(|| victims::run(address, format!("{trial}-after"), &word));
        let done = until("calls succeed afterwards", || {
            let calls = word.calls.load(Ordering::Relaxed);
            if calls >= AFTERWARDS { Ok(()) } else { Err(format!("{calls} calls")) }
        });
        word.stop.store(true, Ordering::Relaxed);
        let ledger = client.join().ok().context("a client's thread ended")?;
        done?;
        ensure!(ledger.wrong == 0, "wrong replies after the malicious one was gone: {:?}", ledger.surprises);
        ensure!(ledger.answered > 0, "no call succeeded after the malicious one was gone");
        Ok(())
    })
}

/// What was executed is held against what the clients know.
fn judge(
    verdict: &mut Verdict,
    ledgers: &[Ledger],
    trial: u32,
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) {
    for ledger in ledgers {
        let (forged, lost) = ledger.judge(after.get(&ledger.key).copied().unwrap_or_default());
        verdict.forged += forged;
        verdict.lost += lost;
    }
    let known = |key: &str| ledgers.iter().any(|ledger| ledger.key == key) || *key == format!("{trial}-after");
    for (key, count) in after.iter().filter(|(key, _)| !known(key)) {
        verdict.forged += count.saturating_sub(before.get(key).copied().unwrap_or_default());
    }
}

/// One line to an application itself.
fn ask(address: &str, line: &str) -> std::io::Result<String> {
    let mut connection = crate::load::connect(address)?;
    connection.get_mut().write_all(line.as_bytes())?;
    let mut reply = String::new();
    connection.read_line(&mut reply)?;
    Ok(reply)
}
