//! Leaves as Kubernetes Secrets, one for each part; the keys are the file names.

use crate::error::CertsError;
use crate::files;
use crate::issue::Selection;
use crate::leaf::{Kind, State};
use crate::pki::{AUTHORITIES, Pki};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mesh::names::Identity;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use zeroize::Zeroizing;

/// The revocation lists, as a part finds them beside its certificate.
const REVOCATIONS: &str = "crl.pem";
/// The longest value of a label.
const LABEL_MAX: usize = 63;

impl Pki {
    /// YAML with a Secret for each part selected, named `<cluster>-<role>-<id>`. It has private keys in it.
    ///
    /// # Errors
    /// [`CertsError::Refused`] if there is nothing to show; a leaf that lacks a file, is expired or revoked.
    pub fn secrets(&self, selection: &Selection, namespace: Option<&str>) -> Result<String, CertsError> {
        let is_label = |name: &str| mesh::names::check_cluster(name).is_ok() && !name.contains('.');
        if let Some(namespace) = namespace.filter(|namespace| !is_label(namespace)) {
            return Err(CertsError::Usage(format!("{namespace} is not a namespace: use a DNS label in lower case")));
        }
        let chosen = match selection {
            Selection::These(parts) => {
                parts.iter().map(|(role, id)| self.identity(role, id)).collect::<Result<Vec<_>, _>>()?
            }
            Selection::Due | Selection::All => self.everybody()?,
        };
        if chosen.is_empty() {
            return Err(CertsError::Refused("there are no certificates here yet: issue some first".to_owned()));
        }
        let secrets: Result<Vec<_>, _> = chosen.iter().map(|who| self.secret(who, namespace)).collect();
        Ok(secrets?.join("---\n"))
    }

    /// What the Secret of a part holds: its certificates, their keys, whom to trust and what is revoked, by file name.
    ///
    /// # Errors
    /// A role or id that cannot be; a leaf that lacks a file, is expired or revoked.
    pub fn secret_data(&self, role: &str, id: &str) -> Result<BTreeMap<&'static str, Zeroizing<String>>, CertsError> {
        self.data_of(&self.identity(role, id)?)
    }

    fn data_of(&self, who: &Identity) -> Result<BTreeMap<&'static str, Zeroizing<String>>, CertsError> {
        let dir = self.paths_of(who).dir;
        let state = crate::pki::State::read(&self.dir)?;
        let mut names = vec![AUTHORITIES];
        for kind in Kind::ALL {
            match crate::pki::look(self, &state, who, kind)? {
                Some((found, State::Good | State::Due)) if found.has_key => {
                    names.extend([kind.files().0, kind.files().1]);
                }
                None if kind == Kind::Signing => {}
                found => {
                    let state = found.map_or("missing", |(_, state)| state.as_str());
                    let (role, id, kind) = (who.role, &who.id, kind.as_str());
                    let problem =
                        format!("the {kind} certificate of {role}/{id} is {state} or lacks its key: renew it");
                    return Err(CertsError::Refused(problem));
                }
            }
        }
        let mut data = BTreeMap::new();
        for name in names {
            data.insert(name, Zeroizing::new(files::read(&dir.join(name))?));
        }
        let revocations = files::read_if_there(&self.crl_path())?;
        if !revocations.is_empty() {
            data.insert(REVOCATIONS, Zeroizing::new(revocations));
        }
        Ok(data)
    }

    fn secret(&self, who: &Identity, namespace: Option<&str>) -> Result<String, CertsError> {
        let data = self.data_of(who)?;
        let mut yaml = String::from("apiVersion: v1\nkind: Secret\nmetadata:\n");
        // Writing to a string cannot fail.
        let _ = writeln!(yaml, "  name: {}-{}-{}", who.cluster, who.role, who.id);
        if let Some(namespace) = namespace {
            let _ = writeln!(yaml, "  namespace: \"{namespace}\"");
        }
        let _ = writeln!(yaml, "  labels:\n    app.kubernetes.io/name: lockstep");
        if who.cluster.len() <= LABEL_MAX {
            let _ = writeln!(yaml, "    app.kubernetes.io/instance: \"{}\"", who.cluster);
        }
        let _ = writeln!(yaml, "    app.kubernetes.io/component: {}\ntype: Opaque\ndata:", who.role);
        for (name, text) in &data {
            let _ = writeln!(yaml, "  {name}: {}", STANDARD.encode(text.as_bytes()));
        }
        Ok(yaml)
    }
}
