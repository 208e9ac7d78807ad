//! A cluster's certificates as a file says them, and what is missing made.
//!
//! ```toml
//! cluster = "shop"
//! signing = true
//! lifetime = "30d"
//! server = 3                              # server/0, server/1, server/2
//! ingress = ["edge-a", "edge-b"]
//! client = { names = ["till"], lifetime = "7d", sans = ["till.shop.example"] }
//! ```

use crate::error::CertsError;
use crate::files;
use crate::issue::{Action, Change, failed};
use crate::leaf::{self, Kind, San, State, Wanted};
use crate::pki::{Locked, Pki, Setup};
use mesh::names::{DEFAULT_TRUST_DOMAIN, Identity, Role};
use serde::Deserialize;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// Parts of a role that a file may ask for: more is a slip of the finger.
const PARTS_MAX: u32 = 10_000;

/// Reads a duration as people write it.
pub type ParseDuration = fn(&str) -> Result<Duration, String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    cluster: String,
    #[serde(alias = "trust_domain")]
    trust_domain: Option<String>,
    #[serde(default)]
    signing: bool,
    lifetime: Option<String>,
    #[serde(alias = "ca_lifetime")]
    ca_lifetime: Option<String>,
    server: Option<Parts>,
    #[serde(alias = "smart_client")]
    smart_client: Option<Parts>,
    ingress: Option<Parts>,
    client: Option<Parts>,
    admin: Option<Parts>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Parts {
    Count(u32),
    Names(Vec<String>),
    Table(Table),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    count: Option<u32>,
    #[serde(default)]
    names: Vec<String>,
    lifetime: Option<String>,
    signing: Option<bool>,
    #[serde(default)]
    sans: Vec<String>,
}

/// What a file asks for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The authority, if there is none yet.
    pub setup: Setup,
    leaves: Vec<(Identity, Vec<Wanted>)>,
}

impl Plan {
    /// Reads a file.
    ///
    /// # Errors
    /// [`CertsError::Unusable`] for a file that cannot be read, an unknown key, a name or duration that cannot be.
    pub fn read(path: &Path, parse_duration: ParseDuration) -> Result<Self, CertsError> {
        let text = files::read(path)?;
        Self::parse(&text, parse_duration)
            .map_err(|problem| CertsError::Usage(format!("{}: {problem}", path.display())))
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str, parse_duration: ParseDuration) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|problem| problem.to_string())?;
        let duration = |name: &str, text: &Option<String>| {
            let parsed = text.as_deref().map(parse_duration).transpose();
            parsed.map_err(|problem| format!("{name}: {problem}"))
        };
        let lifetime = duration("lifetime", &file.lifetime)?.unwrap_or(leaf::LIFETIME);
        let mut setup = Setup::new(&file.cluster);
        setup.trust_domain = file.trust_domain.unwrap_or_else(|| DEFAULT_TRUST_DOMAIN.to_owned());
        setup.lifetime = duration("ca-lifetime", &file.ca_lifetime)?.unwrap_or(setup.lifetime);
        let roles = [
            (Role::Server, file.server),
            (Role::SmartClient, file.smart_client),
            (Role::Ingress, file.ingress),
            (Role::Client, file.client),
            (Role::Admin, file.admin),
        ];
        let mut leaves = Vec::new();
        for (role, parts) in roles {
            let table = match parts {
                None => continue,
                Some(Parts::Count(count)) => Table { count: Some(count), ..Table::default() },
                Some(Parts::Names(names)) => Table { names, ..Table::default() },
                Some(Parts::Table(table)) => table,
            };
            let lifetime = duration(role.as_str(), &table.lifetime)?.unwrap_or(lifetime);
            let sans: Result<Vec<San>, _> = table.sans.iter().map(|san| San::from_str(san)).collect();
            let sans = sans.map_err(|problem| format!("{role}: {problem}"))?;
            let count = table.count.unwrap_or(0);
            if count > PARTS_MAX {
                return Err(format!("{role}: {count} parts are more than {PARTS_MAX}"));
            }
            for id in (0..count).map(|number| number.to_string()).chain(table.names) {
                let who = Identity::new(&file.cluster, role, &id);
                let who = who.map_err(|problem| format!("{role}/{id}: {problem}"))?;
                let kinds = if table.signing.unwrap_or(file.signing) { &Kind::ALL[..] } else { &[Kind::Tls] };
                let wanted = kinds.iter().map(|kind| Wanted { kind: *kind, lifetime, sans: sans.clone() });
                leaves.push((who, wanted.collect()));
            }
        }
        Ok(Self { setup, leaves })
    }
}

impl Plan {
    /// Roles and ids of everybody in it.
    pub fn parts(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.leaves.iter().map(|(who, _)| (who.role.to_string(), who.id.clone()))
    }
}

impl Pki {
    /// Issues what a plan asks for and is missing, due or expired, and leaves everything else alone: what is good, what
    /// was revoked, and who is not in the plan. Goes on when one fails, and says so.
    ///
    /// # Errors
    /// [`CertsError::OtherCluster`]; the file system's.
    pub fn apply(&self, plan: &Plan) -> Result<Vec<Change>, CertsError> {
        if plan.setup.cluster != self.cluster() {
            let (found, wanted) = (self.cluster().to_owned(), plan.setup.cluster.clone());
            return Err(CertsError::OtherCluster { dir: self.dir.clone(), found, wanted });
        }
        let mut locked = self.locked()?;
        let mut changes = Vec::new();
        for (who, wanted) in &plan.leaves {
            match locked.apply_part(who, wanted) {
                Ok(more) => changes.extend(more),
                Err(problem) => changes.push(failed(who, &problem)),
            }
        }
        for who in self.everybody()? {
            if !plan.leaves.iter().any(|(planned, _)| *planned == who) {
                let what = format!("{}/{}", who.role, who.id);
                changes.push(Change::new(Action::Kept, what).because("it is not in the file: revoke it if it is gone"));
            }
        }
        changes.extend(locked.write_crl_if_stale()?);
        Ok(changes)
    }
}

impl Locked<'_> {
    fn apply_part(&mut self, who: &Identity, wanted: &[Wanted]) -> Result<Vec<Change>, CertsError> {
        let (mut due, mut kept) = (Vec::new(), Vec::new());
        for wanted in wanted {
            let what = format!("{}/{} {}", who.role, who.id, wanted.kind.as_str());
            match self.look(who, wanted.kind)? {
                Some((_, State::Revoked)) => {
                    let reason = "it is revoked: `lockstep certs renew` with its name brings its holder back";
                    kept.push(Change::new(Action::Kept, what).because(reason));
                }
                Some((found, State::Good)) if found.sans() == wanted.sans => {
                    kept.push(Change::new(Action::Kept, what).until(&found.facts.serial, found.facts.not_after));
                }
                _ => due.push(wanted.clone()),
            }
        }
        Ok([kept, self.put(who, &due)?].concat())
    }
}
