//! Silence and abort (rule 23): a request that the application does not answer, or dies on. That is no local decision:
//! a replica states it, durably, and waits for the ordered outcome.

use super::{AfterDisk, Event, Message, Mutant, Output, Record, Replica, State, To, mutant};
use crate::ids::{Position, Run, Slot};
use crate::quorum::{ELECTORATE_MIN, majority};
use crate::wire::peer::Command;
use crate::wire::{Body, Outcome, Tag};

/// A request without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Silence {
    /// Everything before it was executed; nothing from it on is, until its outcome is known.
    pub at: Position,
    /// Whether it is durable, and so may be said.
    pub stated: bool,
}

impl Replica {
    pub(super) fn on_silent(&mut self, run: Run, slot: Slot, answered: usize, out: &mut Vec<Output>) {
        if run != self.execution.run() {
            return;
        }
        let at = self.unanswered(slot, answered);
        // It may have been answered, here in an earlier life of the process or by a majority: then it is run again.
        let execution = &mut self.execution;
        let ran = slot <= self.settled || slot <= execution.answered || at <= execution.forced;
        if ran || !self.voting || execution.judgement.is_quarantined() {
            return self.restart_app(out);
        }
        execution.silence = Some(Silence { at, stated: false });
        execution.stop();
        out.push(Output::Event(Event::Silent { at }));
        self.persist(Record::Silent { at }, Some(AfterDisk::Silence { at }), out);
    }

    /// The statement is durable: it is made, and the application is brought back to before the request.
    pub(super) fn on_silence_durable(&mut self, at: Position, out: &mut Vec<Output>) {
        let Some(silence) = self.execution.silence.as_mut().filter(|silence| silence.at == at) else { return };
        silence.stated = true;
        self.restart_app(out);
        if let Some((leader, ballot)) = self.followed()
            && self.voting
        {
            let marks = self.marks();
            self.send(To::One(leader), Message::Following { ballot, marks }, out);
        }
        self.consider_abort();
    }

    /// The outcome is known: a majority executed the request, so it is run again, without a limit.
    pub(super) fn settle_silence(&mut self, out: &mut Vec<Output>) {
        let Some(Silence { at, stated }) = self.execution.silence else { return };
        if at >= self.settled_to() {
            return;
        }
        self.execution.silence = None;
        self.execution.forced = at;
        self.persist(Record::Silent { at: Position::default() }, None, out);
        if stated {
            self.execute(out);
        } else {
            // What waits for the statement to be durable finds it gone.
            self.restart_app(out);
        }
    }

    /// So many of a slot's first calls have no time limit.
    pub(super) fn patience(&self, slot: Slot, calls: &[(Tag, u32)]) -> usize {
        if slot <= self.settled || slot <= self.execution.answered {
            return usize::MAX;
        }
        let forced = self.execution.forced;
        calls.iter().take_while(|(_, call)| Position { slot, call: *call } <= forced).count()
    }

    /// The leader orders an abort when a majority of applications fell silent on the same request, and it is not settled.
    /// Where their number is too small for that, or was another one when the request was ordered, a reply may have been given
    /// without that majority: then the abort is an operator's (rule 29).
    pub(super) fn consider_abort(&mut self) {
        let electorate = self.configuration.cluster.electorate();
        let needed = if mutant::on(Mutant::AbortByOne) { 1 } else { majority(electorate) };
        let State::Leader(leading) = &self.state else { return };
        if electorate < ELECTORATE_MIN {
            return;
        }
        let mut silent: Vec<Position> =
            self.heard_of_applications(leading).filter_map(|(_, marks)| marks.silent).collect();
        silent.retain(|at| at.slot > self.configuration.elected);
        silent.sort_unstable();
        let agreed = silent.iter().copied().find(|at| silent.iter().filter(|other| *other == at).count() >= needed);
        if let Some(at) = agreed {
            self.order_abort(at);
        }
    }

    /// An operator's abort, or the majority's.
    pub(super) fn order_abort(&mut self, at: Position) {
        let call = |entry: &super::log::Entry| {
            matches!(entry.batch.requests.get(at.call as usize).map(|request| &request.body), Some(Body::Call(_)))
                && entry.admission.skipped.binary_search(&at.call).is_err()
        };
        let runs = at.slot <= self.log.decided() && self.log.get(at.slot).is_some_and(call);
        if runs && at >= self.settled_to() {
            self.order(Command::Abort { at });
        }
    }

    /// Whether a request was aborted, or never ran.
    pub(super) fn is_skipped(&self, at: Position) -> bool {
        let entry = self.log.get(at.slot).filter(|_| at.slot <= self.log.decided());
        entry.is_some_and(|entry| entry.admission.skipped.binary_search(&at.call).is_ok())
    }

    /// An abort takes effect: the call is undone where it ran, and skipped from now on.
    pub(super) fn abort(&mut self, slot: Slot, at: Position, out: &mut Vec<Output>) {
        let Some(entry) = self.log.get_mut(at.slot).filter(|_| at.slot < slot) else { return };
        let Some(tag) = entry.batch.requests.get(at.call as usize).map(crate::wire::Request::tag) else { return };
        let Err(place) = entry.admission.skipped.binary_search(&at.call) else { return };
        entry.admission.skipped.insert(place, at.call);
        // The replies after it are of a state that is undone.
        self.sessions.unreply(at.slot, &self.config.limits);
        self.sessions.aborted(&tag);
        if self.execution.dumping.as_ref().is_some_and(|dumping| dumping.image.slot >= at.slot) {
            // Its session table has the call as one that ran.
            self.execution.dumping = None;
        }
        if self.execution.silence.is_some_and(|silence| silence.at == at) {
            self.execution.silence = None;
        }
        out.push(Output::Event(Event::Aborted { at, tag }));
        self.reply(tag, at.slot, Outcome::Aborted, out);
        if self.execution.has_begun() && self.execution.sent() >= at.slot {
            self.restart_app(out);
        }
    }
}
