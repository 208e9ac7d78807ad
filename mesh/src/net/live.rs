//! The links that live, and how long: sampled for the metrics, judged again when trust changes, closed when the
//! certificate at the other end has run out.

use super::error::{Refusal, RefusalReason, RefusedBy};
use super::identity::Named;
use super::link::{CLOSE_ORDERLY, LinkInner, Side};
use super::metrics::Metrics;
use super::refusal::{close_code, printable, reason_of};
use super::tls::Tls;
use crate::names::Role;
use crate::node::Quiet;
use crate::rng::Rng;
use quinn::Connection;
use rustls::pki_types::CertificateDer;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// A link is not replaced before it is this old because a certificate nears its end.
const YOUNG: Duration = Duration::from_secs(60);
/// Within this time after a new certificate of ours all links that we keep are replaced, not all at once.
const RENEWAL_SPREAD: Duration = Duration::from_secs(3);
/// Links of one kind that one identity may have opened to us. The pods of a Deployment share one, and so do the calls of
/// a script.
pub(super) const LINKS_OF_IDENTITY: usize = 256;
/// Whoever opens links at will must not fill the log.
static TOO_MANY: Quiet = Quiet::new();
/// Links that are judged before others get a turn.
const JUDGED_AT_ONCE: usize = 32;

/// How long one link is to live.
#[derive(Debug)]
pub(super) struct Term {
    /// When the certificate at the other end expires, Unix time.
    not_after: i64,
    /// When the link should be replaced.
    replace_at: Instant,
    /// When it is closed although nobody replaced it.
    close_at: Option<Instant>,
    /// Counts our new certificates since.
    renewals: watch::Receiver<u64>,
    /// How long after one of them.
    hesitation: Duration,
}

impl Term {
    pub(super) async fn is_due(&self) {
        let mut renewals = self.renewals.clone();
        tokio::select! {
            () = sleep_until(self.replace_at) => {}
            Ok(()) = renewals.changed() => sleep(self.hesitation).await,
        }
    }
}

/// All links of an endpoint that live.
#[derive(Debug)]
pub(super) struct Live {
    links: Mutex<Vec<Weak<LinkInner>>>,
    renewals: watch::Sender<u64>,
    max_age: Duration,
    chance: Mutex<Rng>,
}

impl Live {
    pub(super) fn new(max_age: Duration, seed: u64) -> Self {
        let (renewals, _) = watch::channel(0);
        Self { links: Mutex::default(), renewals, max_age, chance: Mutex::new(Rng::from_seed(seed)) }
    }

    /// Taken before a handshake's certificate is chosen: none that comes later is missed.
    pub(super) fn renewals(&self) -> watch::Receiver<u64> {
        self.renewals.subscribe()
    }

    /// We have a new certificate.
    pub(super) fn renewed(&self) {
        self.renewals.send_modify(|count| *count += 1);
    }

    /// How long a link from now on is to live: the last fifth of its age is left to chance, so that links that came up
    /// together are not replaced together.
    pub(super) fn term(&self, side: Side, named: &Named, renewals: watch::Receiver<u64>) -> Term {
        let now = Instant::now();
        let (age, hesitation) = {
            let mut chance = lock(&self.chance);
            (self.max_age - chance.duration(self.max_age / 5), chance.duration(RENEWAL_SPREAD))
        };
        let left = u64::try_from(named.not_after.saturating_sub(unix_now())).unwrap_or_default();
        let replace_in = age.min((Duration::from_secs(left) / 2).max(YOUNG));
        // Whoever does not replace it is no program of ours, or an old one.
        let close_at = (side == Side::Accepted).then(|| now.checked_add(self.max_age.saturating_mul(2))).flatten();
        let replace_at = now.checked_add(replace_in).unwrap_or(now + super::LINK_MAX_AGE);
        Term { not_after: named.not_after, replace_at, close_at, renewals, hesitation }
    }

    /// One more. Of what one identity opened to us the oldest goes when it has too many: one certificate must not take
    /// the places of all.
    pub(super) fn add(&self, link: &Arc<LinkInner>) {
        let same: Vec<_> = self
            .all()
            .into_iter()
            .filter(|other| {
                other.side() == Side::Accepted
                    && (other.kind(), other.peer()) == (link.kind(), link.peer())
                    && other.connection().close_reason().is_none()
            })
            .collect();
        if link.side() == Side::Accepted && same.len() >= LINKS_OF_IDENTITY {
            if let Some(suppressed) = TOO_MANY.may_speak() {
                tracing::warn!(peer = %link.peer(), links = same.len(), suppressed, "one identity has too many links: its oldest is closed");
            }
            same[0].connection().close(CLOSE_ORDERLY, b"too many links of one identity");
        }
        lock(&self.links).push(Arc::downgrade(link));
    }

    /// Every two seconds: observes every link, and closes those whose time is over.
    pub(super) fn sample(&self, metrics: &Metrics, our_role: Role) {
        let (now, unix) = (Instant::now(), unix_now());
        for link in self.all() {
            metrics.observe(link.rtt());
            link.count_losses();
            let term = link.term();
            if link.connection().close_reason().is_some() {
                continue;
            }
            if unix > term.not_after {
                let detail = format!("the certificate of {} expired while the link lived", link.peer());
                refuse(&link, RefusalReason::Expired, &detail, metrics, our_role);
            } else if term.close_at.is_some_and(|at| now >= at) {
                tracing::info!(peer = %link.peer(), "a link that is too old is closed");
                link.connection().close(CLOSE_ORDERLY, b"this link is too old: dial again");
            }
        }
    }

    /// Judges every link by what is trusted now, and closes those whose other end is not.
    pub(super) async fn judge_all(&self, tls: &Tls, metrics: &Metrics, our_role: Role) {
        for (count, link) in self.all().into_iter().enumerate() {
            judge(&link, tls, metrics, our_role);
            if count % JUDGED_AT_ONCE == JUDGED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn all(&self) -> Vec<Arc<LinkInner>> {
        let mut all = Vec::new();
        lock(&self.links).retain(|link| {
            all.extend(link.upgrade());
            link.strong_count() > 0
        });
        all
    }
}

/// Closes a link if its other end would not be accepted today. False: it was closed.
pub(super) fn judge(link: &LinkInner, tls: &Tls, metrics: &Metrics, our_role: Role) -> bool {
    if link.connection().close_reason().is_some() {
        return false;
    }
    let chain = chain_of(link.connection()).unwrap_or_default();
    match tls.judge(link.side(), link.peer(), &chain) {
        Ok(()) => true,
        Err(error) => {
            refuse(link, reason_of(&error), &error.to_string(), metrics, our_role);
            false
        }
    }
}

/// Closes a link and says and counts why.
pub(super) fn refuse(link: &LinkInner, reason: RefusalReason, detail: &str, metrics: &Metrics, our_role: Role) {
    let text = format!("{reason}: {detail}");
    link.connection().close(close_code(reason), text.as_bytes());
    let refusal =
        Refusal { reason, by: RefusedBy::Us, claims: Some(link.peer().clone()), detail: printable(detail.as_bytes()) };
    metrics.refused(&refusal, link.connection().remote_address().ip(), Some(link.kind()), our_role);
}

/// The certificates that the other end presented.
fn chain_of(connection: &Connection) -> Option<Vec<CertificateDer<'static>>> {
    connection.peer_identity()?.downcast().ok().map(|chain| *chain)
}

/// The system's clock: Unix time, seconds.
#[must_use]
pub fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(now).unwrap_or(i64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
