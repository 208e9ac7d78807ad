//! Which SMaRtClient is asked: the less loaded of two, for all requests of a moment, and not one that fails while others
//! answer.
//!
//! A SMaRtClient is *ejected* when an attempt over it ran out of time and since then others have answered and it has
//! not: if all stand still, because the cluster does, none is to blame. It is left alone for a while that doubles with
//! each ejection, and then gets a *probe*: a copy of a request that another one is asked as well, which sessions make
//! harmless. An answer in time brings it back. The last one is never ejected.

use super::Endpoint;
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::Tag;
use std::collections::BTreeMap;

/// The first pause of an ejected one.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the pause doubles at most.
const DOUBLINGS: u32 = 5;
/// One that was fine for so long begins with the first pause again.
const FORGIVEN: Duration = Duration::from_secs(60);
/// How long others must have answered before one is to blame: answers that are on their way arrive in it.
const GRACE: Duration = Duration::from_millis(250);
/// Requests of one moment that go the same way: they share a packet, and a turn of the one that is asked.
const TOGETHER: u32 = 16;
/// A latency that was seen counts half after this long without another sample.
const HALF_LIFE: Duration = Duration::from_secs(5);

/// What is known of a SMaRtClient that a link is up to.
#[derive(Debug)]
struct Known {
    outstanding: u32,
    /// Time to an answer, ns: the newest peak, sinking to the mean of what followed.
    latency: u64,
    sampled: Instant,
    /// Since when others answer and it does not; `Some(None)`: an attempt failed, and nobody has answered since.
    failing: Option<Option<Instant>>,
    ejections: u32,
    /// It is about to stop: only asked where there is no other.
    leaving: bool,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Asked like the others, since then.
    Ready { since: Instant },
    /// Left alone until then.
    Ejected { until: Instant },
    /// It was given this request to see whether it answers.
    Probed { tag: Tag, at: Instant, until: Instant },
}

/// The SMaRtClients that links are up to.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    known: BTreeMap<Endpoint, Known>,
    /// Those that are not ejected.
    ready: Vec<Endpoint>,
    /// Who was chosen last, when, and how many more requests of that moment it gets.
    latest: Option<(Endpoint, Instant, u32)>,
    /// Whether any may be to blame, or has a pause or a probe that ends.
    unsettled: bool,
    /// How often somebody came, left, was ejected or brought back.
    changes: u64,
}

impl Endpoints {
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Those that are asked.
    pub(super) fn ready(&self) -> &[Endpoint] {
        &self.ready
    }

    /// Those that are not.
    pub(super) fn ejected(&self) -> impl Iterator<Item = Endpoint> + '_ {
        let ejected = |known: &Known| !matches!(known.standing, Standing::Ready { .. });
        self.known.iter().filter(move |(_, known)| ejected(known)).map(|(endpoint, _)| *endpoint)
    }

    /// Grows whenever the lists change.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// A link came up. Until it has answered it is taken for as quick as the others.
    pub(super) fn up(&mut self, now: Instant, endpoint: Endpoint) {
        let count = self.known.len().max(1) as u64;
        let latency = self.known.values().map(|known| known.latency / count).sum();
        self.known.entry(endpoint).or_insert_with(|| Known {
            outstanding: 0,
            latency,
            sampled: now,
            failing: None,
            ejections: 0,
            leaving: false,
            standing: Standing::Ready { since: now },
        });
        self.list_ready();
    }

    /// It is about to stop, or stays after all.
    pub(super) fn leaving(&mut self, endpoint: Endpoint, leaving: bool) {
        if let Some(known) = self.known.get_mut(&endpoint) {
            known.leaving = leaving;
            self.list_ready();
        }
    }

    /// Whether another one than this is asked.
    pub(super) fn has_other(&self, than: Endpoint) -> bool {
        self.ready.iter().any(|ready| *ready != than)
    }

    /// A link is gone.
    pub(super) fn down(&mut self, endpoint: Endpoint) {
        self.known.remove(&endpoint);
        self.list_ready();
        if self.ready.is_empty() {
            // Better one that failed lately than none.
            self.pardon_all();
        }
    }

    /// For a request that was not asked yet, or was asked of `last`.
    pub(super) fn choose(&mut self, now: Instant, last: Option<Endpoint>, chance: &mut Rng) -> Option<Endpoint> {
        self.judge(now, chance);
        if last.is_some() {
            return self.draw(now, last, chance);
        }
        if let Some((endpoint, at, left)) = &mut self.latest
            && *at == now
            && *left > 0
            && self.ready.contains(endpoint)
        {
            *left -= 1;
            return Some(*endpoint);
        }
        let drawn = self.draw(now, None, chance)?;
        self.latest = Some((drawn, now, TOGETHER - 1));
        Some(drawn)
    }

    /// The less loaded of two that chance picks (Mitzenmacher, "The power of two choices", 2001), another than `last` if
    /// there is another.
    fn draw(&self, now: Instant, last: Option<Endpoint>, chance: &mut Rng) -> Option<Endpoint> {
        let avoided = last.and_then(|last| self.ready.iter().position(|endpoint| *endpoint == last));
        let able = self.ready.len() - usize::from(avoided.is_some());
        if able == 0 {
            return self.ready.first().copied();
        }
        // Of the ready ones without the avoided one, two different ones.
        let mut draw = |among: usize| usize::try_from(chance.below(among as u64)).unwrap_or_default();
        let nth = |index: usize| self.ready[index + usize::from(avoided.is_some_and(|avoided| index >= avoided))];
        let first = draw(able);
        if able == 1 {
            return Some(nth(first));
        }
        let second = draw(able - 1);
        let second = second + usize::from(second >= first);
        let (first, second) = (nth(first), nth(second));
        Some(if self.load(now, second) < self.load(now, first) { second } else { first })
    }

    /// One that is to be probed with the request `tag` now.
    pub(super) fn probe(&mut self, now: Instant, tag: Tag, patience: Duration) -> Option<Endpoint> {
        if !self.unsettled {
            return None;
        }
        let due = |known: &Known| matches!(known.standing, Standing::Ejected { until } if until <= now);
        let (endpoint, known) = self.known.iter_mut().find(|(_, known)| due(known))?;
        known.standing = Standing::Probed { tag, at: now, until: now + patience };
        Some(*endpoint)
    }

    /// A request was sent to it.
    pub(super) fn asked(&mut self, endpoint: Endpoint) {
        if let Some(known) = self.known.get_mut(&endpoint) {
            known.outstanding += 1;
        }
    }

    /// A request is not waited for any more.
    pub(super) fn released(&mut self, endpoint: Endpoint) {
        if let Some(known) = self.known.get_mut(&endpoint) {
            known.outstanding = known.outstanding.saturating_sub(1);
        }
    }

    /// It is well and has too much to do: as little is given to it as to a slow one.
    pub(super) fn busy(&mut self, now: Instant, endpoint: Endpoint, patience: Duration) {
        if let Some(known) = self.known.get_mut(&endpoint) {
            known.sample(now, patience);
        }
    }

    /// It answered, after `took`. However late: it answers. That it is slow its latency says.
    pub(super) fn answered(&mut self, now: Instant, endpoint: Endpoint, took: Duration) {
        let Some(known) = self.known.get_mut(&endpoint) else { return };
        known.sample(now, took);
        known.failing = None;
        if self.unsettled {
            // Once in a while, and few are known.
            for (other, known) in &mut self.known {
                if *other != endpoint && known.failing == Some(None) {
                    known.failing = Some(Some(now));
                }
            }
        }
    }

    /// It answered the request `tag`, which may have been a probe. True if that brought it back.
    pub(super) fn told(&mut self, now: Instant, endpoint: Endpoint, tag: Tag) -> bool {
        let Some(known) = self.known.get_mut(&endpoint) else { return false };
        let Standing::Probed { tag: probe, at, until } = known.standing else { return false };
        if probe != tag || until < now {
            return false;
        }
        known.sample(now, now.since(at));
        known.failing = None;
        known.standing = Standing::Ready { since: now };
        self.list_ready();
        true
    }

    /// An attempt over it came to nothing.
    pub(super) fn failed(&mut self, now: Instant, endpoint: Endpoint, waited: Duration) {
        let Some(known) = self.known.get_mut(&endpoint) else { return };
        known.sample(now, waited);
        known.failing.get_or_insert(None);
        self.unsettled = true;
    }

    /// It was caught at a lie: it is ejected at once, unless it is the last one. False: it is.
    pub(super) fn lied(&mut self, now: Instant, endpoint: Endpoint, chance: &mut Rng) -> bool {
        let others = self.has_other(endpoint);
        if others && let Some(known) = self.known.get_mut(&endpoint) {
            known.eject(now, chance);
            self.list_ready();
        }
        others
    }

    /// Ejects whoever is to blame, and whoever did not answer its probe again.
    fn judge(&mut self, now: Instant, chance: &mut Rng) {
        if !self.unsettled {
            return;
        }
        let mut ready = self.ready.len();
        let mut changed = false;
        for known in self.known.values_mut() {
            let outdone = matches!(known.failing, Some(Some(since)) if since + GRACE <= now);
            let out = match known.standing {
                Standing::Ready { .. } if known.leaving || !outdone || ready <= 1 => false,
                Standing::Ready { since } => {
                    ready -= 1;
                    if now.since(since) >= FORGIVEN {
                        known.ejections = 0;
                    }
                    true
                }
                Standing::Ejected { .. } => false,
                Standing::Probed { until, .. } => until <= now,
            };
            if out {
                changed = true;
                known.eject(now, chance);
            }
        }
        if changed {
            self.list_ready();
        } else {
            let settled = |known: &Known| known.failing.is_none() && matches!(known.standing, Standing::Ready { .. });
            self.unsettled = !self.known.values().all(settled);
        }
    }

    fn pardon_all(&mut self) {
        for known in self.known.values_mut() {
            known.failing = None;
            known.standing = Standing::Ready { since: Instant::ZERO };
        }
        self.list_ready();
    }

    fn list_ready(&mut self) {
        self.changes += 1;
        self.ready.clear();
        self.unsettled = false;
        for (endpoint, known) in &self.known {
            if matches!(known.standing, Standing::Ready { .. }) {
                self.ready.extend((!known.leaving).then_some(*endpoint));
                self.unsettled |= known.failing.is_some();
            } else {
                self.unsettled = true;
            }
        }
        if self.ready.is_empty() {
            // Better one that is about to stop than none.
            self.ready.extend(self.known.iter().filter(|(_, known)| known.leaving).map(|(endpoint, _)| *endpoint));
        }
    }

    fn load(&self, now: Instant, endpoint: Endpoint) -> u64 {
        self.known.get(&endpoint).map_or(u64::MAX, |known| {
            let halvings = now.since(known.sampled).as_nanos() / HALF_LIFE.as_nanos();
            let latency = known.latency.checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX)).unwrap_or(0);
            (u64::from(known.outstanding) + 1).saturating_mul(latency.max(1))
        })
    }
}

impl Known {
    fn eject(&mut self, now: Instant, chance: &mut Rng) {
        let pause = PAUSE * (1 << self.ejections.min(DOUBLINGS));
        self.ejections += 1;
        // Jitter, so that those that were ejected together are not probed together.
        self.standing = Standing::Ejected { until: now + pause + chance.duration(pause / 4) };
    }

    /// A peak counts at once, so that one that stalls is avoided at once; it is forgotten slowly.
    fn sample(&mut self, now: Instant, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.latency = if took > self.latency { took } else { self.latency - self.latency / 8 + took / 8 };
        self.sampled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClientId, Generation, Seq, Slot};
    use crate::wire::Kind;

    const A: Endpoint = Endpoint(0);
    const B: Endpoint = Endpoint(1);
    const PATIENCE: Duration = Duration::from_secs(1);
    const QUICK: Duration = Duration::from_millis(2);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn tag(seq: u64) -> Tag {
        Tag { client: ClientId(1), opened: Generation::FIRST.at(Slot(1)), seq: Seq(seq), kind: Kind::Call }
    }

    fn both() -> (Endpoints, Rng) {
        let mut endpoints = Endpoints::default();
        endpoints.up(at(0), A);
        endpoints.up(at(0), B);
        (endpoints, Rng::from_seed(1))
    }

    fn chosen(endpoints: &mut Endpoints, now: Instant, chance: &mut Rng) -> Vec<Endpoint> {
        let mut chosen: Vec<_> = (0..50).filter_map(|_| endpoints.choose(now, None, chance)).collect();
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    /// Mutants: a run without an end; one that outlasts its moment or its SMaRtClient.
    #[test]
    fn requests_of_one_moment_go_the_same_way_sixteen_at_a_time() {
        let (mut endpoints, mut chance) = both();
        let mut run = |endpoints: &mut Endpoints, now: Instant, count: usize| {
            let mut run = Vec::new();
            for _ in 0..count {
                run.extend(endpoints.choose(now, None, &mut chance).inspect(|chosen| endpoints.asked(*chosen)));
            }
            run
        };
        let first = run(&mut endpoints, at(1), 32);
        assert!(first[..16].iter().all(|chosen| *chosen == first[0]), "{first:?}");
        let other = if first[0] == A { B } else { A };
        assert_eq!(first[16..], [other; 16], "it has less to do");
        let second = run(&mut endpoints, at(2), 1)[0];
        endpoints.asked(second);
        assert_ne!(run(&mut endpoints, at(3), 1)[0], second, "another moment");
        let third = run(&mut endpoints, at(4), 1)[0];
        endpoints.down(third);
        assert_ne!(run(&mut endpoints, at(4), 1)[0], third, "its link is gone");
    }

    #[test]
    fn the_less_loaded_of_two_is_asked_and_another_than_last_time() {
        let (mut endpoints, mut chance) = both();
        endpoints.answered(at(1), A, QUICK);
        endpoints.answered(at(1), B, QUICK * 20);
        assert_eq!(chosen(&mut endpoints, at(1), &mut chance), [A]);
        assert_eq!(endpoints.choose(at(1), Some(A), &mut chance), Some(B));
        for _ in 0..30 {
            endpoints.asked(A);
        }
        assert_eq!(chosen(&mut endpoints, at(2), &mut chance), [B], "it has thirty to answer first");
        assert_eq!(chosen(&mut endpoints, at(60_000), &mut chance), [B], "an old peak is forgotten");
        endpoints.down(B);
        assert_eq!(endpoints.choose(at(1), Some(A), &mut chance), Some(A), "there is no other");
    }

    #[test]
    fn nobody_is_to_blame_while_nobody_answers() {
        let (mut endpoints, mut chance) = both();
        endpoints.failed(at(1000), A, PATIENCE);
        endpoints.failed(at(1000), B, PATIENCE);
        endpoints.choose(at(60_000), None, &mut chance);
        assert_eq!(endpoints.ejected().count(), 0);
        // The cluster goes on: both answer, one a little later.
        endpoints.answered(at(60_000), A, QUICK);
        endpoints.choose(at(60_100), None, &mut chance);
        endpoints.answered(at(60_200), B, QUICK);
        endpoints.choose(at(61_000), None, &mut chance);
        assert_eq!(endpoints.ejected().count(), 0);
    }

    /// `A` fails, `B` answers.
    fn eject(endpoints: &mut Endpoints, now: u64, chance: &mut Rng) {
        endpoints.failed(at(now), A, PATIENCE);
        endpoints.answered(at(now), B, QUICK);
        endpoints.choose(at(now + 250), None, chance);
        assert_eq!(endpoints.ejected().collect::<Vec<_>>(), [A]);
    }

    #[test]
    fn who_fails_while_others_answer_is_left_alone_and_comes_back_by_a_probe() {
        let (mut endpoints, mut chance) = both();
        eject(&mut endpoints, 1000, &mut chance);
        assert_eq!(chosen(&mut endpoints, at(1300), &mut chance), [B]);
        assert_eq!(endpoints.probe(at(2000), tag(1), PATIENCE), None, "not yet");
        assert_eq!(endpoints.probe(at(2500), tag(1), PATIENCE), Some(A));
        assert_eq!(endpoints.probe(at(2500), tag(2), PATIENCE), None, "one at a time");
        assert!(!endpoints.told(at(2600), A, tag(2)) && !endpoints.told(at(2600), B, tag(1)));
        assert!(endpoints.told(at(2600), A, tag(1)));
        assert_eq!(endpoints.ready().len(), 2);
    }

    #[test]
    fn the_pause_doubles_until_it_has_been_well_for_long() {
        let (mut endpoints, mut chance) = both();
        eject(&mut endpoints, 1000, &mut chance);
        assert_eq!(endpoints.probe(at(2500), tag(1), PATIENCE), Some(A));
        endpoints.choose(at(3500), None, &mut chance);
        assert!(!endpoints.told(at(3501), A, tag(1)), "too late");
        assert_eq!(endpoints.probe(at(5400), tag(2), PATIENCE), None);
        assert_eq!(endpoints.probe(at(6000), tag(2), PATIENCE), Some(A));
        assert!(endpoints.told(at(6001), A, tag(2)));
        eject(&mut endpoints, 70_000, &mut chance);
        assert_eq!(endpoints.probe(at(71_500), tag(3), PATIENCE), Some(A));
    }

    /// Mutant: a liar that waits for others to answer first is the quickest and is asked for nearly everything.
    #[test]
    fn a_liar_is_ejected_at_once_and_for_longer_each_time() {
        let (mut endpoints, mut chance) = both();
        assert!(endpoints.lied(at(10), A, &mut chance));
        assert_eq!(chosen(&mut endpoints, at(10), &mut chance), [B]);
        assert_eq!(endpoints.probe(at(1500), tag(1), PATIENCE), Some(A));
        assert!(endpoints.told(at(1501), A, tag(1)), "it tells the truth when it is watched");
        assert!(endpoints.lied(at(1600), A, &mut chance));
        assert_eq!(endpoints.probe(at(3500), tag(2), PATIENCE), None);
        assert_eq!(endpoints.probe(at(4200), tag(2), PATIENCE), Some(A));
        assert!(!endpoints.lied(at(4200), B, &mut chance), "somebody has to be asked");
        assert_eq!(endpoints.ready().len(), 1);
    }

    #[test]
    fn the_last_one_is_never_ejected() {
        let (mut endpoints, mut chance) = both();
        eject(&mut endpoints, 1000, &mut chance);
        endpoints.failed(at(1300), B, PATIENCE);
        endpoints.answered(at(1300), A, QUICK);
        endpoints.choose(at(2000), None, &mut chance);
        assert_eq!(endpoints.ejected().collect::<Vec<_>>(), [A]);
        endpoints.down(B);
        assert_eq!(endpoints.choose(at(2000), None, &mut chance), Some(A), "better than none");
    }
}
