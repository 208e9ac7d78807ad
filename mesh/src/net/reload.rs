//! New certificates, authorities and revocations while the process runs. The files are looked at every two seconds: a
//! look costs less than a watch that must follow the symlinks of Kubernetes, and no event can be missed.
//!
//! A new set is used only when it is whole and good; until then the old one stays.

use super::endpoint::Shared;
use super::error::NetError;
use super::files::Files;
use super::identity::Credentials;
use super::live::unix_now;
use super::tls::Tls;
use crate::node::{Registry, grid};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use rustls::pki_types::UnixTime;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks at the files.
pub const POLL: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(2) };

/// Files that do not fit together for this long are not just being written.
const SETTLE: Duration = if cfg!(test) { Duration::from_millis(500) } else { Duration::from_secs(5) };

/// `tls_reloads_total`.
#[derive(Clone, Debug)]
pub struct Reloads {
    /// New sets that are used now.
    pub ok: Counter,
    /// New sets that were not taken.
    pub failed: Counter,
}

impl Reloads {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let reloads = Family::<[(&'static str, &'static str); 1], Counter>::default();
        registry.register(
            "tls_reloads",
            "Changed sets of certificate, key, authorities and revocations",
            reloads.clone(),
        );
        let of = |result| reloads.get_or_create_owned(&[("result", result)]);
        Self { ok: of("ok"), failed: of("failed") }
    }
}

/// What files were found to hold, look by look: says each content that stays bad once.
#[derive(Debug)]
pub struct Changes {
    used: blake3::Hash,
    bad: Option<Bad>,
}

#[derive(Debug)]
struct Bad {
    content: blake3::Hash,
    since: Instant,
    said: bool,
}

impl Changes {
    /// Beginning with the content that is in use.
    #[must_use]
    pub const fn new(used: blake3::Hash) -> Self {
        Self { used, bad: None }
    }

    /// One look. `Some(Ok)`: a new set to use. `Some(Err)`: one that stays bad, to be said. A content that was said is
    /// still tried at each look: what makes it bad may be outside of it, as the clock.
    ///
    /// # Errors
    /// None of its own: those of `attempt`.
    pub fn look<T, E>(
        &mut self,
        content: blake3::Hash,
        attempt: impl FnOnce() -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        if content == self.used {
            self.bad = None;
            return None;
        }
        let error = match attempt() {
            Ok(new) => {
                *self = Self::new(content);
                return Some(Ok(new));
            }
            Err(error) => error,
        };
        let known = self.bad.take().filter(|bad| bad.content == content);
        let bad = self.bad.insert(known.unwrap_or_else(|| Bad { content, since: Instant::now(), said: false }));
        if bad.said || bad.since.elapsed() < SETTLE {
            return None;
        }
        bad.said = true;
        Some(Err(error))
    }
}

/// Follows the files until the endpoint is closed.
pub(super) async fn follow(shared: Arc<Shared>) {
    let mut changes = Changes::new(shared.tls().credentials.fingerprint);
    let mut due_said = shared.tls().credentials.is_due(unix_now());
    loop {
        grid::sleep(POLL).await;
        let old = shared.tls();
        let files = old.credentials.files.clone();
        // A file system that hangs must not hang this process.
        let Ok((content, read)) = tokio::task::spawn_blocking(move || read(&files)).await else { continue };
        match changes.look(content, || take(read, &old)) {
            None => {}
            Some(Ok(new)) => {
                due_said = false;
                let role = shared.identity().role;
                let new = Arc::new(new);
                shared.replace(new.clone(), &old);
                shared.live.judge_all(&new, &shared.metrics, role).await;
            }
            Some(Err(error)) => {
                shared.metrics.reloads.failed.inc();
                tracing::error!(
                    expires_at = old.credentials.expires_at(),
                    "new certificate files are not used, the old ones stay: {error}"
                );
            }
        }
        let credentials = &shared.tls().credentials;
        if credentials.is_due(unix_now()) && !due_said {
            due_said = true;
            credentials.warn_if_due(unix_now());
        }
    }
}

/// What the files hold now, and what tells it from other contents.
fn read(files: &Files) -> (blake3::Hash, Result<Credentials, NetError>) {
    match files.read() {
        Ok(contents) => (contents.fingerprint(), Credentials::parse(files, &contents)),
        Err(error) => (blake3::hash(error.to_string().as_bytes()), Err(error)),
    }
}

fn take(read: Result<Credentials, NetError>, old: &Tls) -> Result<Tls, NetError> {
    let new = read?;
    new.check_successor(&old.credentials, UnixTime::now())?;
    Tls::new(new)
}
