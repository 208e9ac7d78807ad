//! How a member goes: it tells everybody, hands leadership over, finishes what is in flight. Time is an argument.
//!
//! A stop (SIGTERM) is not argued with. A drain that was asked for on the admin port is: one member at a time. It waits
//! while another one is leaving; of two that begin in the same moment the one with the lower id goes on. It is undone by
//! itself when no stop follows.

use mesh::ids::ReplicaId;
use mesh::time::{Duration, Instant};
use tokio::sync::oneshot;

/// From the announcement to the drain: as long as two that begin together take to hear of each other.
const NOTICE: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub(crate) struct Drain {
    own: ReplicaId,
    state: State,
    /// The process ends when nothing is in flight.
    stop: bool,
    /// It has just begun to go: how things stand now is not known.
    fresh: bool,
    /// Who waits for a drain.
    waiting: Vec<oneshot::Sender<()>>,
    /// How long a drain lasts without a stop.
    lasts: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// This member takes part.
    Here,
    /// The others were told, and may say that they go first.
    Announced { at: Instant },
    /// It hands over what it has.
    Going { until: Instant },
}

/// How things stand around this member.
#[derive(Clone, Debug, Default)]
pub(crate) struct Around {
    /// Others that said that they are leaving, and are not back.
    pub(crate) leaving: Vec<ReplicaId>,
    /// Whether another one is there that could lead.
    pub(crate) successor: bool,
    /// This member does not lead, or nobody else is there to do so.
    pub(crate) handed_over: bool,
    /// Nobody waits for an answer from here that is still to come.
    pub(crate) idle: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Tell everybody that this member is leaving, or that it stays after all.
    Say(bool),
    /// Hand over, and propose nothing more.
    HandOver,
    /// End the process.
    End,
}

impl Drain {
    pub(crate) const fn new(own: ReplicaId, lasts: Duration) -> Self {
        Self { own, state: State::Here, stop: false, fresh: false, waiting: Vec::new(), lasts }
    }

    /// Somebody wants this member drained, and to hear of it.
    pub(crate) fn ask(&mut self, done: oneshot::Sender<()>) {
        self.waiting.push(done);
    }

    /// The process is to end.
    pub(crate) const fn stop(&mut self) {
        self.stop = true;
    }

    /// Whether no request is taken any more.
    pub(crate) const fn stops(&self) -> bool {
        self.stop
    }

    /// Whether there is anything to do or to wait for.
    pub(crate) fn wants(&self) -> bool {
        self.stop || self.is_going() || !self.waiting.is_empty()
    }

    /// Whether this member is on its way out.
    const fn is_going(&self) -> bool {
        !matches!(self.state, State::Here)
    }

    /// When [`Self::steps`] is to be called at the latest.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Here => None,
            State::Going { .. } if self.fresh => Some(Instant::ZERO),
            State::Announced { at } => Some(at),
            State::Going { until } => (!self.stop).then_some(until),
        }
    }

    /// What is to be done now. To be called after every turn, and to be obeyed.
    pub(crate) fn steps(&mut self, now: Instant, around: &Around) -> Vec<Step> {
        // Whoever gave up asks again.
        self.waiting.retain(|waiting| !waiting.is_closed());
        let mut steps = Vec::new();
        self.fresh = false;
        match self.state {
            State::Here | State::Announced { .. } if self.stop => {
                if self.state == State::Here {
                    steps.push(Step::Say(true));
                }
                self.go(now, &mut steps);
            }
            State::Here if self.waiting.is_empty() => {}
            // There is nothing that could be handed over.
            State::Here if !around.successor => self.done(),
            State::Here if around.leaving.is_empty() => {
                self.state = State::Announced { at: now + NOTICE };
                steps.push(Step::Say(true));
            }
            State::Here => {}
            State::Announced { .. } if around.leaving.iter().any(|other| *other < self.own) => {
                self.state = State::Here;
                steps.push(Step::Say(false));
            }
            State::Announced { at } if at <= now => self.go(now, &mut steps),
            State::Announced { .. } => {}
            State::Going { until } if until <= now && !self.stop => {
                tracing::warn!("no stop followed the drain: this member takes part again");
                self.state = State::Here;
                steps.push(Step::Say(false));
            }
            State::Going { .. } => {}
        }
        let handed_over = matches!(self.state, State::Going { .. }) && around.handed_over && around.idle;
        if handed_over && !self.fresh {
            self.done();
            steps.extend(self.stop.then_some(Step::End));
        }
        steps
    }

    fn go(&mut self, now: Instant, steps: &mut Vec<Step>) {
        tracing::info!("draining: leadership is handed over");
        self.state = State::Going { until: now + self.lasts };
        self.fresh = true;
        steps.push(Step::HandOver);
    }

    fn done(&mut self) {
        for waiting in self.waiting.drain(..) {
            // Who does not listen any more asks again.
            let _ = waiting.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: ReplicaId = ReplicaId(1);
    const LASTS: Duration = Duration::from_secs(60);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn leading() -> Around {
        Around { successor: true, idle: true, ..Around::default() }
    }

    fn leaving(other: u32) -> Around {
        Around { leaving: vec![ReplicaId(other)], ..leading() }
    }

    fn asked() -> (Drain, oneshot::Receiver<()>) {
        let mut drain = Drain::new(OWN, LASTS);
        let (done, waits) = oneshot::channel();
        drain.ask(done);
        (drain, waits)
    }

    #[test]
    fn a_drain_is_announced_then_handed_over_and_done_when_nothing_is_in_flight() {
        let (mut drain, mut waits) = asked();
        assert_eq!(drain.steps(at(0), &leading()), [Step::Say(true)]);
        assert_eq!(drain.steps(at(20), &leading()), []);
        assert_eq!(drain.steps(at(50), &leading()), [Step::HandOver]);
        assert_eq!(drain.steps(at(51), &leading()), [], "it leads still");
        let busy = Around { handed_over: true, idle: false, ..leading() };
        assert_eq!(drain.steps(at(52), &busy), []);
        assert!(waits.try_recv().is_err());
        assert_eq!(drain.steps(at(53), &Around { idle: true, ..busy }), []);
        assert!(waits.try_recv().is_ok());
    }

    #[test]
    fn it_is_undone_when_no_stop_follows_and_ends_the_process_when_one_does() {
        for stop in [false, true] {
            let (mut drain, _waits) = asked();
            drain.steps(at(0), &leading());
            drain.steps(at(50), &leading());
            let over = Around { handed_over: true, ..leading() };
            assert_eq!(drain.steps(at(60), &over), []);
            if stop {
                drain.stop();
                assert_eq!(drain.steps(at(1000), &over), [Step::End], "it was handed over before");
            } else {
                assert_eq!(drain.steps(at(59_000), &over), []);
                assert_eq!(drain.steps(at(60_050), &over), [Step::Say(false)]);
                assert!(!drain.is_going());
            }
        }
    }

    #[test]
    fn one_member_goes_at_a_time() {
        let (mut drain, _waits) = asked();
        assert_eq!(drain.steps(at(0), &leaving(2)), [], "the other one first");
        assert_eq!(drain.steps(at(100), &leading()), [Step::Say(true)]);
        // Both began in the same moment.
        assert_eq!(drain.steps(at(110), &leaving(2)), [], "the other one gives way");
        assert_eq!(drain.steps(at(120), &leaving(0)), [Step::Say(false)]);
        assert_eq!(drain.steps(at(500), &leaving(0)), []);
        assert_eq!(drain.steps(at(600), &leading()), [Step::Say(true)]);
    }

    #[test]
    fn where_nobody_else_can_lead_it_is_over_at_once_and_nobody_is_told() {
        let (mut drain, mut waits) = asked();
        assert_eq!(drain.steps(at(0), &Around { successor: false, ..leading() }), []);
        assert!(waits.try_recv().is_ok() && !drain.is_going());
    }

    #[test]
    fn a_stop_is_not_argued_with() {
        let mut drain = Drain::new(OWN, LASTS);
        drain.stop();
        assert_eq!(drain.steps(at(0), &leaving(0)), [Step::Say(true), Step::HandOver]);
        assert_eq!(drain.steps(at(90_000), &leaving(0)), [], "as long as it leads");
        assert_eq!(drain.steps(at(90_001), &Around { handed_over: true, ..leaving(0) }), [Step::End]);
    }

    #[test]
    fn who_does_not_wait_any_longer_is_forgotten() {
        let (mut drain, waits) = asked();
        assert_eq!(drain.steps(at(0), &leaving(0)), []);
        drop(waits);
        assert_eq!(drain.steps(at(10), &leading()), []);
    }
}
