//! Native clients with sessions of their own: each keeps on its disk the session's name, the next number and the request
//! in doubt, dies at any moment with everything else, and takes the session up again by what it kept.

use super::World;
use super::event::Event;
use crate::check::model::{CallId, MapOp};
use crate::check::{Verdict, Violation};
use bytes::Bytes;
use mesh::client::SessionName;
use mesh::client::own::{InvokeError, NotRun, OwnSession, Settled, Unknown};
use mesh::client::sender::{Answer, Carried, Input, Refused};
use mesh::ids::{ClientId, Seq};
use mesh::time::Duration;
use mesh::wire::client::Unknown as Told;
use mesh::wire::{Request, Tag};

/// What a native client keeps on its disk.
#[derive(Clone, Debug)]
struct Kept {
    name: SessionName,
    next: Seq,
    /// The request of that number, from before it is sent until its end is known.
    doubt: Option<(CallId, Bytes)>,
}

/// What it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Opening(ClientId),
    Invoking,
    /// Settling: the cancel.
    Cancelling,
    /// Settling: what became of the request.
    Asking,
    Closing,
}

/// One native client.
#[derive(Debug)]
pub struct Native {
    /// Its name in the history; a new one with each session.
    connection: u64,
    kept: Option<Kept>,
    own: Option<OwnSession>,
    doing: Option<(Tag, Doing)>,
}

impl Native {
    /// It waits for nothing, and nothing is in doubt.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.doing.is_none() && !self.is_in_doubt()
    }

    /// Whether a request is in doubt.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.doubt.is_some())
    }

    /// Only its disk is left.
    pub(super) fn crash(&mut self) {
        self.own = None;
        self.doing = None;
    }
}

impl World {
    /// One that has done nothing yet.
    pub(super) fn new_native(&mut self) -> Native {
        self.connections += 1;
        Native { connection: self.connections, kept: None, own: None, doing: None }
    }

    pub(super) fn plan_native(&mut self, sender: usize, native: usize) {
        let after = Duration::from_micros(100) + self.native_chance.duration(self.options.workload.think_max);
        let event = Event::Native { sender, life: self.senders[sender].life, native };
        self.queue.push(self.now + after, event);
    }

    /// A native client looks what it can do.
    pub(super) fn on_native(&mut self, sender: usize, native: usize) -> Verdict {
        self.plan_native(sender, native);
        let (crashes, settles, closes) = {
            let chance = &mut self.native_chance;
            (chance.chance(30), chance.chance(400), chance.chance(20))
        };
        let state = &mut self.senders[sender].natives[native];
        if crashes && !self.healed {
            let doing = state.doing;
            state.crash();
            self.counters.native_crashes += 1;
            // Its requests go on for a while or not, as its last packets did.
            return match doing {
                Some((tag, _)) => self.step_sender(sender, Input::Drop(tag)),
                None => Ok(()),
            };
        }
        if state.doing.is_some() {
            return Ok(());
        }
        let Some(own) = &state.own else { return self.take_up(sender, native) };
        if own.in_doubt().is_some() {
            let cancel = if settles { own.cancel() } else { None };
            return match cancel {
                Some(request) => self.carry(sender, native, request, Doing::Cancelling),
                None => self.invoke(sender, native),
            };
        }
        if self.healed || self.calls_left == 0 {
            return Ok(());
        }
        if closes && let Ok(request) = own.close() {
            return self.carry(sender, native, request, Doing::Closing);
        }
        self.calls_left -= 1;
        self.call_natively(sender, native)
    }

    /// Takes a session up by what the disk has, or opens one.
    fn take_up(&mut self, sender: usize, native: usize) -> Verdict {
        let state = &mut self.senders[sender].natives[native];
        state.own = match &state.kept {
            Some(Kept { name, next, doubt: Some((_, bytes)) }) => {
                self.counters.native_doubts += 1;
                Some(OwnSession::resume_in_doubt(*name, *next, bytes.clone()))
            }
            Some(Kept { name, next, doubt: None }) => Some(OwnSession::resume_settled(*name, *next)),
            None if self.healed || self.calls_left == 0 => None,
            None => {
                let chance = u128::from(self.native_chance.next_u64());
                let window = self.native_chance.between(1, 8) as u16;
                let (client, owner) = self.opener(sender, chance);
                return self.carry(sender, native, Request::open(client, window, owner), Doing::Opening(client));
            }
        };
        Ok(())
    }

    fn draw_op(&mut self) -> MapOp {
        let chance = &mut self.native_chance;
        let key = chance.below(self.options.workload.keys);
        self.values += 1;
        match chance.below(10) {
            0..=4 => MapOp::Put(key, self.values),
            5..=7 => MapOp::Get(key),
            8 => MapOp::Remove(key),
            _ => MapOp::Size,
        }
    }

    fn call_natively(&mut self, sender: usize, native: usize) -> Verdict {
        let connection = self.senders[sender].natives[native].connection;
        let op = self.draw_op();
        let call = self.checks.on_call(connection, op.clone(), false);
        self.counters.calls += 1;
        let bytes = op.encode(call, 0);
        self.trace.line(self.now, format_args!("native {connection} calls {} {op:?}", call.0));
        let state = &mut self.senders[sender].natives[native];
        if let Some(kept) = &mut state.kept {
            kept.doubt = Some((call, bytes));
        }
        self.invoke(sender, native)
    }

    /// Sends the request that the disk has, for the first time or again.
    fn invoke(&mut self, sender: usize, native: usize) -> Verdict {
        let state = &mut self.senders[sender].natives[native];
        let doubt = state.kept.as_ref().and_then(|kept| kept.doubt.clone());
        let (Some(own), Some((_, bytes))) = (&mut state.own, doubt) else { return Ok(()) };
        match own.invoke(bytes) {
            Ok(request) => self.carry(sender, native, request, Doing::Invoking),
            Err(why) => Violation::raise("native", format!("its own request is refused: {why}")),
        }
    }

    fn carry(&mut self, sender: usize, native: usize, request: Request, doing: Doing) -> Verdict {
        self.senders[sender].natives[native].doing = Some((request.tag(), doing));
        let patience = Duration::from_millis(20)
            + if self.demanding {
                Duration::from_secs(10)
            } else {
                self.native_chance.duration(self.options.workload.deadline_max)
            };
        let deadline = self.senders[sender].clock.local(self.now) + patience;
        self.step_sender(sender, Input::Carry { request, deadline })
    }

    /// What a native client had carried has ended.
    pub(super) fn on_carried(&mut self, sender: usize, tag: Tag, end: Carried) -> Verdict {
        let natives = &mut self.senders[sender].natives;
        let waits = |native: &Native| native.doing.is_some_and(|(waiting, _)| waiting == tag);
        let Some(native) = natives.iter().position(waits) else {
            return Violation::raise("native", format!("nobody waits for {tag:?}, and it ended with {end:?}"));
        };
        let state = &mut natives[native];
        let Some((_, doing)) = state.doing.take() else { return Ok(()) };
        if let Doing::Opening(client) = doing {
            if let Ok(own) = OwnSession::opened(client, end) {
                state.kept = Some(Kept { name: own.name(), next: own.next(), doubt: None });
                state.own = Some(own);
            }
            return Ok(());
        }
        let Some(own) = &mut state.own else { return Ok(()) };
        let answer = match doing {
            Doing::Opening(_) | Doing::Invoking => own.invoked(end),
            Doing::Cancelling => match own.cancelled(end) {
                Ok(request) => return self.carry(sender, native, request, Doing::Asking),
                Err(why) => Err(why.into()),
            },
            Doing::Asking => {
                self.counters.native_settled += 1;
                match own.settled(end) {
                    Ok(Settled::Executed(reply)) => Ok(reply),
                    Ok(Settled::NotRun(why)) => Err(why.into()),
                    Err(why) => Err(why.into()),
                }
            }
            Doing::Closing => {
                if OwnSession::closed(end).is_ok() {
                    self.begin_anew(sender, native);
                }
                return Ok(());
            }
        };
        self.on_native_answer(sender, native, answer)
    }

    /// The request in doubt has an end, or none yet.
    fn on_native_answer(&mut self, sender: usize, native: usize, answer: Result<Bytes, InvokeError>) -> Verdict {
        let tight = self.options.tight;
        let lost = |why: &Unknown| match why {
            Unknown::SessionGone => Some(Told::SessionGone),
            Unknown::TooOld => Some(Told::TooOld),
            // Where bounds are tight, a lost reply may be kept nowhere.
            Unknown::Deadline if tight && self.demanding => Some(Told::Deadline),
            _ => None,
        };
        let (answer, is_over) = match answer {
            Ok(reply) => (Answer::Reply(reply), false),
            Err(InvokeError::NotRun(NotRun::Refused(why))) => (Answer::Refused(why), false),
            Err(InvokeError::Unknown(Unknown::OtherBody)) => {
                return Violation::raise("native", "its number was used with another request".to_owned());
            }
            Err(InvokeError::Unknown(why)) => match lost(&why) {
                Some(told) => (Answer::Unknown(told), true),
                None => return Ok(()),
            },
            Err(InvokeError::NotRun(why)) => {
                return Violation::raise("native", format!("its own request is refused: {why}"));
            }
        };
        let state = &mut self.senders[sender].natives[native];
        let Some(kept) = &mut state.kept else { return Ok(()) };
        let Some((call, _)) = kept.doubt.take() else { return Ok(()) };
        if let Some(own) = &state.own {
            kept.next = own.next();
        }
        self.trace.line(self.now, format_args!("native call {} ends with {answer:?}", call.0));
        match &answer {
            Answer::Reply(_) => self.counters.native_replies += 1,
            Answer::Refused(Refused::Cancelled) => self.counters.native_cancelled += 1,
            Answer::Refused(_) => self.counters.refused += 1,
            Answer::Unknown(_) => self.counters.unknown += 1,
        }
        if is_over {
            self.begin_anew(sender, native);
        }
        self.checks.on_answer(call, answer)
    }

    /// Its session is gone.
    fn begin_anew(&mut self, sender: usize, native: usize) {
        self.senders[sender].natives[native] = self.new_native();
    }
}
