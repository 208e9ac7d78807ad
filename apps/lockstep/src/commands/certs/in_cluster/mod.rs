//! `lockstep certs in-cluster`: the certificates of a cluster on Kubernetes, kept in Secrets that are there already.
//!
//! The directory that the other commands work in is one Secret, the authority's; each part's certificate is one of its own.
//! A run unpacks the directory, does what is missing or due, stores the directory, and only then hands out what is new: so a
//! run that ends anywhere is followed by one that goes on, and of two at the same time one begins again (the Secret's version).
//! It may be started at any time, again and again. What it waits for it learns from the parts themselves.

mod parts;

use super::failure;
use super::output::say_changes;
use crate::exit::{Exit, Failure};
use crate::kubernetes::{Api, Patched, Secret};
use crate::parts::common::{Logging, cluster_name};
use crate::up::output::Format;
use anyhow::Context;
use certs::{Access, Action, Change, Pki, Plan, Revoke, Rotation, Selection, State, pack, unpack};
use mesh::node::human::{format_duration, parse_positive_duration};
use parts::{Parts, normal};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The key of the authority's Secret.
const STATE: &str = "pki.json";
/// Where the number of the last renewal of everything is kept, in the directory.
const RENEWAL: &str = "renewal";

/// Settings.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the cluster: DNS labels
    #[arg(long, value_name = "NAME", value_parser = cluster_name)]
    cluster: String,
    /// How the Secrets' names begin: PREFIX-certs for the authority, PREFIX-ROLE-ID for a part. They must be there: this
    /// command reads and patches them, and makes none
    #[arg(long, value_name = "PREFIX")]
    prefix: String,
    /// Servers, witnesses counted: server/0 and on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=31))]
    servers: u32,
    /// Native clients
    #[arg(long, value_name = "ID,…", value_delimiter = ',')]
    clients: Vec<String>,
    /// Also certificates for signatures
    #[arg(long)]
    signing: bool,
    /// How long certificates live
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = parse_positive_duration)]
    lifetime: Duration,
    /// The number of the authority that is to be trusted alone: a higher one than now replaces it, step by step, each when
    /// every part that runs has taken up the one before
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    authority: u32,
    /// A higher number than that of the last time renews every certificate
    #[arg(long, value_name = "N", default_value_t = 0)]
    renewal: u32,
    /// Parts whose certificates are to be revoked. Who is revoked and not named here gets a new one
    #[arg(long, value_name = "ROLE/ID,…", value_delimiter = ',', value_parser = super::args::part)]
    revoked: Vec<(String, String)>,
    /// Admin ports of all parts: HOST:PORT, each address of a name is asked
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true)]
    parts: Vec<String>,
    /// How long it may take until all is as it should be: beyond that the next run goes on
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = parse_positive_duration)]
    wait: Duration,
    #[command(flatten)]
    logging: Logging,
}

/// How far a look got.
enum Pass {
    /// All is as it should be.
    Settled,
    /// For somebody.
    Waits(String),
    /// There is more to do at once.
    Again,
}

/// Does it.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    args.logging.init()?;
    let api = Api::of_pod()?;
    let work = Work { plan: plan(&args)?, api, args };
    let end = Instant::now() + work.args.wait;
    let mut last = String::new();
    loop {
        let now = match work.pass().await {
            Ok(Pass::Settled) => {
                tracing::info!("every certificate is as it should be");
                return Ok(());
            }
            Ok(Pass::Again) => continue,
            Ok(Pass::Waits(what)) => what,
            Err(problem) if problem.exit() == Exit::Failed => format!("{problem}"),
            Err(problem) => return Err(problem),
        };
        if now != last {
            tracing::info!("{now}");
            last = now;
        }
        if Instant::now() >= end {
            let time = format_duration(work.args.wait);
            return Err(Failure::new(Exit::Unhealthy, format!("not done within {time}: {last}. The next run goes on")));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// As `lockstep certs apply` reads it from a file.
fn plan(args: &Args) -> Result<Plan, Failure> {
    let mut text =
        format!("cluster = {:?}\nserver = {{ count = {}, signing = {} }}\n", args.cluster, args.servers, args.signing);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "lifetime = \"{}s\"", args.lifetime.as_secs());
    let _ = writeln!(text, "smart-client = [\"0\"]\nadmin = [\"0\"]");
    let _ = writeln!(text, "ingress = {{ names = [\"0\"], signing = {} }}", args.signing);
    let _ = writeln!(text, "client = {{ names = {:?}, signing = {} }}", args.clients, args.signing);
    Plan::parse(&text, parse_positive_duration).map_err(|problem| Failure::new(Exit::Usage, problem))
}

struct Work {
    args: Args,
    plan: Plan,
    api: Api,
}

impl Work {
    async fn pass(&self) -> Result<Pass, Failure> {
        let name = self.name("certs");
        let stored = self.secret(&name).await?;
        let dir = Scratch::new()?;
        match stored.data.get(STATE) {
            Some(document) => {
                unpack(std::str::from_utf8(document).context("the authority's Secret is no text")?, dir.path())
                    .map_err(failure)?;
            }
            None => {
                if let Some(waits) = self.may_begin().await? {
                    return Ok(Pass::Waits(waits));
                }
            }
        }
        let pki = Access::new(dir.path()).open_or_init(&self.plan.setup).map_err(failure)?;
        let pass = self.advance(&pki, dir.path()).await?;
        let document = pack(dir.path()).map_err(failure)?.into_bytes();
        if stored.data.get(STATE) != Some(&document) {
            let data = BTreeMap::from([(STATE.to_owned(), document)]);
            if self.api.put(&name, &stored, &data, true).await? == Patched::Conflict {
                tracing::info!("another run changed the authority's Secret meanwhile: beginning again");
                return Ok(Pass::Again);
            }
        }
        self.hand_out(&pki).await?;
        Ok(pass)
    }

    /// A new authority is made only where nobody can trust another one.
    async fn may_begin(&self) -> Result<Option<String>, Failure> {
        let parts = Parts::ask(&self.args.parts).await;
        if let Some(part) = parts.trusting().first() {
            return Ok(Some(format!(
                "the Secret {} is empty, and {part} still uses a certificate of an older authority: it was emptied (`helm \
                 upgrade --force` does that), or an older release still ends. No new authority is made while anybody trusts \
                 one that is lost. Put a copy of the Secret back; without one, end every pod of this release at the same \
                 time, and a new authority is made. No data is lost by that",
                self.name("certs")
            )));
        }
        if !parts.silent.is_empty() {
            return Ok(Some(format!(
                "whether anybody trusts an older authority is asked of {}",
                parts.silent.join(", ")
            )));
        }
        Ok(None)
    }

    /// The next steps, as far as they can be taken now.
    async fn advance(&self, pki: &Pki, dir: &Path) -> Result<Pass, Failure> {
        let mut rotation = pki.rotation().map_err(failure)?;
        if rotation.starting {
            say(&pki.rotation_start(None).map_err(failure)?);
            rotation = pki.rotation().map_err(failure)?;
        }
        if rotation.rotating {
            return self.rotate(pki, &rotation).await;
        }
        say(&pki.apply(&self.plan).map_err(failure)?);
        self.revoke(pki)?;
        self.renew_all(pki, dir)?;
        if rotation.issuing >= self.args.authority {
            return Ok(Pass::Settled);
        }
        say(&pki.rotation_start(None).map_err(failure)?);
        Ok(Pass::Again)
    }

    /// Two authorities: the older one goes when nobody needs it.
    async fn rotate(&self, pki: &Pki, rotation: &Rotation) -> Result<Pass, Failure> {
        let newest = rotation.authorities.last().context("there is no authority")?;
        let parts = Parts::ask(&self.args.parts).await;
        let strangers = parts.without_trust_in(&newest.sha256);
        if !strangers.is_empty() {
            return Ok(Pass::Waits(format!(
                "authority {} is not trusted yet by {}",
                newest.number,
                strangers.join(", ")
            )));
        }
        say(&pki.apply(&self.plan).map_err(failure)?);
        let listed = pki.list(false).map_err(failure)?;
        let older = listed.iter().filter(|leaf| leaf.present && leaf.ca != Some(newest.number));
        let older: BTreeSet<_> = older
            .filter(|leaf| leaf.state != Some(State::Revoked))
            .map(|leaf| (leaf.role.clone(), leaf.id.clone()))
            .collect();
        if !older.is_empty() {
            say(&pki.renew(&Selection::These(older.into_iter().collect()), None).map_err(failure)?);
            return Ok(Pass::Again);
        }
        let mut serials = BTreeMap::<String, BTreeSet<String>>::new();
        for leaf in listed.iter().filter(|leaf| leaf.present) {
            let serials = serials.entry(format!("{}/{}", leaf.role, leaf.id)).or_default();
            serials.extend(leaf.serial.as_deref().map(normal));
        }
        let outdated = parts.without(&serials);
        if !outdated.is_empty() {
            return Ok(Pass::Waits(format!(
                "certificates of the older authority are in use by {}",
                outdated.join(", ")
            )));
        }
        say(&pki.rotation_finish().map_err(failure)?);
        Ok(Pass::Again)
    }

    fn revoke(&self, pki: &Pki) -> Result<(), Failure> {
        let mut back = BTreeSet::new();
        for leaf in pki.list(false).map_err(failure)?.into_iter().filter(|leaf| leaf.present) {
            let part = (leaf.role, leaf.id);
            match (self.args.revoked.contains(&part), leaf.state == Some(State::Revoked)) {
                (true, false) => {
                    let (role, id) = part;
                    say(&pki.revoke(&Revoke::Part { role, id }).map_err(failure)?);
                }
                (false, true) => drop(back.insert(part)),
                (true, true) | (false, false) => {}
            }
        }
        if !back.is_empty() {
            say(&pki.renew(&Selection::These(back.into_iter().collect()), None).map_err(failure)?);
        }
        Ok(())
    }

    fn renew_all(&self, pki: &Pki, dir: &Path) -> Result<(), Failure> {
        let path = dir.join(RENEWAL);
        let last = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0u32);
        if self.args.renewal > last {
            say(&pki.renew(&Selection::All, None).map_err(failure)?);
        }
        if self.args.renewal != last {
            std::fs::write(&path, self.args.renewal.to_string()).context("cannot note the renewal")?;
        }
        Ok(())
    }

    /// Makes every part's Secret what its certificate is. A revoked one keeps what it has.
    async fn hand_out(&self, pki: &Pki) -> Result<(), Failure> {
        for (role, id) in self.plan.parts() {
            let data = match pki.secret_data(&role, &id) {
                Ok(data) => data,
                Err(_) if self.args.revoked.contains(&(role.clone(), id.clone())) => continue,
                Err(problem) => return Err(failure(problem)),
            };
            let data = data.into_iter().map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())).collect();
            let name = self.name(&format!("{role}-{id}"));
            let stored = self.secret(&name).await?;
            if stored.data != data {
                self.api.put(&name, &stored, &data, false).await?;
                tracing::info!(secret = %name, "written");
            }
        }
        Ok(())
    }

    fn name(&self, rest: &str) -> String {
        format!("{}-{rest}", self.args.prefix)
    }

    async fn secret(&self, name: &str) -> anyhow::Result<Secret> {
        let found = self.api.secret(name).await?;
        found.with_context(|| {
            format!("there is no Secret {name}: the chart makes it, without data; `helm upgrade` puts it back")
        })
    }
}

/// What was done, and what could not be.
fn say(changes: &[Change]) {
    let told: Vec<Change> = changes.iter().filter(|change| change.action != Action::Kept).cloned().collect();
    if !told.is_empty() {
        say_changes(Format::Text, &told);
    }
}

/// A directory of this process, gone with it. On Kubernetes it is in memory.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let number = mesh::node::seed().context("no randomness from the system")?[0];
        let path = std::env::temp_dir().join(format!("lockstep-certs-{number:016x}"));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
