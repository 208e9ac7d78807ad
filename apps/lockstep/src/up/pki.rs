//! Certificates for everything that `up` runs, made where they are missing.

use super::args::Settings;
use super::plan::Plan;
use super::state::Role;
use anyhow::Context;
use certs::Pki;
use std::path::PathBuf;

/// The id of `up` itself, as an operator.
const OPERATOR: &str = "up";
/// The id of the native client that `lockstep call` is.
const CLIENT: &str = "0";

/// Makes what is missing. Returns the directory of the operator's certificate.
pub(crate) fn prepare(settings: &Settings, plan: &Plan) -> anyhow::Result<PathBuf> {
    let pki = if plan.pki.exists() { Pki::open(&plan.pki) } else { Pki::init(&plan.pki, &settings.cluster) };
    let pki = pki.with_context(|| format!("certificates in {}", plan.pki.display()))?;
    let parts = plan.parts.iter().map(|part| {
        let role = if part.role == Role::Sidecar { "server" } else { part.role.as_str() };
        (role, part.id.to_string())
    });
    // The one inside the ingress has a certificate of its own.
    let inside = (settings.smart_clients == 0).then(|| ("smart-client", "0".to_owned()));
    for (role, id) in parts.chain(inside).chain([("client", CLIENT.to_owned()), ("admin", OPERATOR.to_owned())]) {
        pki.ensure(role, &id).with_context(|| format!("certificate of {role}/{id}"))?;
        if settings.signatures.any() && matches!(role, "server" | "ingress" | "client") {
            pki.ensure_signing(role, &id).with_context(|| format!("signing certificate of {role}/{id}"))?;
        }
    }
    Ok(plan.pki.join("admin").join(OPERATOR))
}
