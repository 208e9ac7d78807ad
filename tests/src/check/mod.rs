//! The checkers: one file for each property. They see what crosses a replica's border (records, messages, executions,
//! answers) and nothing of what is inside, so that they cannot share its mistakes.

pub mod agreement;
pub mod ballots;
pub mod bounds;
pub mod connection_order;
pub mod convergence;
pub mod durability;
pub mod enough;
pub mod exactly_once;
pub mod execution;
pub mod history;
pub mod ledger;
pub mod linearizable;
pub mod model;
pub mod promises;
pub mod quorum;
pub mod refusals;
pub mod settled;
pub mod spinning;

use bytes::Bytes;
use execution::Executed;
use history::Call;
use ledger::{Ledger, Values, Vote};
use mesh::client::sender::Answer;
use mesh::ids::{Lsn, Run, Slot};
use mesh::limits::Limits;
use mesh::order::{Operation, Record};
use mesh::wire::Message;
use mesh::wire::peer::Batch;
use model::{CallId, MapOp, Store};
use std::sync::Arc;

/// A property that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {what}")]
pub struct Violation {
    /// Which property.
    pub check: &'static str,
    /// What was seen.
    pub what: String,
}

/// Whether a property holds.
pub type Verdict = Result<(), Violation>;

impl Violation {
    /// A verdict that it does not.
    ///
    /// # Errors
    /// Always.
    pub fn raise(check: &'static str, what: String) -> Verdict {
        Err(Self { check, what })
    }
}

/// All checkers of one run.
#[derive(Debug)]
pub struct Checks {
    values: Values,
    ledgers: Vec<Ledger>,
    voting: Vec<bool>,
    decided: Vec<Slot>,
    agreement: agreement::Agreement,
    quorum: quorum::Quorum,
    ballots: ballots::Ballots,
    execution: execution::Execution,
    once: exactly_once::ExactlyOnce,
    settled: settled::Settled,
    calls: Vec<Call>,
    ordered: Vec<CallId>,
    ordered_slots: Vec<Slot>,
    expected: Vec<Bytes>,
    model: Store,
    limits: Limits,
    // A vote binds when it is durable; where nothing outlives the process, when it is given.
    binds_at_once: bool,
    clock: u64,
}

impl Checks {
    /// For `n` replicas with these limits; `binds_at_once` where a vote is never durable (memory mode).
    #[must_use]
    pub fn new(n: usize, limits: Limits, binds_at_once: bool) -> Self {
        Self {
            values: Values::default(),
            ledgers: (0..n).map(|_| Ledger::default()).collect(),
            voting: vec![true; n],
            decided: vec![Slot(0); n],
            agreement: agreement::Agreement::default(),
            quorum: quorum::Quorum::new(n),
            ballots: ballots::Ballots::default(),
            execution: execution::Execution::new(n),
            once: exactly_once::ExactlyOnce::default(),
            settled: settled::Settled::new(n),
            calls: Vec::new(),
            ordered: Vec::new(),
            ordered_slots: Vec::new(),
            expected: Vec::new(),
            model: Store::default(),
            limits,
            binds_at_once,
            clock: 0,
        }
    }

    /// Replica `who` asks to persist a record.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_persist(&mut self, who: usize, lsn: Lsn, record: &Record) -> Verdict {
        let ledger = &mut self.ledgers[who];
        if ledger.append(lsn, record, &mut self.values).is_err() {
            return Violation::raise("promises", format!("replica {who} numbers a record {lsn}, out of sequence"));
        }
        match record {
            Record::Accepted { slot, ballot, batch } => {
                let value = self.values.id(batch);
                let durable_already = self.binds_at_once && self.voting[who];
                if durable_already { self.quorum.on_vote(who, *slot, *ballot, value) } else { Ok(()) }
            }
            Record::Decided { slot } => self.on_decided_upto(who, *slot),
            Record::Promised { .. } => Ok(()),
        }
    }

    fn on_decided_upto(&mut self, who: usize, upto: Slot) -> Verdict {
        let mut slot = self.decided[who].next();
        while slot <= upto {
            let Some(vote) = self.ledgers[who].last(slot) else {
                return Violation::raise("agreement", format!("replica {who} decided slot {slot} without a value"));
            };
            self.agreement.on_decided(who, slot, vote.value)?;
            self.quorum.on_decided(who, slot, vote.value)?;
            self.decided[who] = slot;
            slot = slot.next();
        }
        Ok(())
    }

    /// Replica `who`'s records up to `lsn` are durable.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_persisted(&mut self, who: usize, lsn: Lsn) -> Verdict {
        let votes = self.ledgers[who].persisted(lsn);
        self.on_votes(who, &votes)
    }

    fn on_votes(&mut self, who: usize, votes: &[Vote]) -> Verdict {
        if self.binds_at_once || !self.voting[who] {
            return Ok(());
        }
        votes.iter().try_for_each(|vote| self.quorum.on_vote(who, vote.slot, vote.ballot, vote.value))
    }

    /// Replica `who`'s process ended with `keep` records left.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_crash(&mut self, who: usize, keep: usize) -> Verdict {
        self.execution.on_crash(who);
        let votes = self.ledgers[who].restart(keep);
        self.decided[who] = self.ledgers[who].decided();
        self.on_votes(who, &votes)
    }

    /// Replica `who` starts again without its votes.
    pub fn on_amnesia(&mut self, who: usize) {
        self.voting[who] = false;
    }

    /// Replica `who` sends a message.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_send(&mut self, who: usize, message: &Message) -> Verdict {
        promises::on_send(who, self.voting[who], &self.ledgers[who], &self.quorum, message)?;
        match message {
            Message::Prepare { ballot } => self.ballots.on_leader(who, *ballot),
            Message::Accept { ballot, slot, decided, batch } => {
                self.ballots.on_leader(who, *ballot)?;
                let value = self.values.id(batch);
                self.ballots.on_proposal(*ballot, *slot, value)?;
                self.quorum.on_proposal(*slot, *ballot, value)?;
                self.quorum.on_mark(who, *decided)?;
                bounds::on_proposal(who, *slot, batch, &self.limits)?;
                self.settled.on_mark(who, batch.settled, self.execution.order())
            }
            Message::Heartbeat { ballot, decided, settled, .. } => {
                self.ballots.on_leader(who, *ballot)?;
                self.quorum.on_mark(who, *decided)?;
                self.settled.on_mark(who, *settled, self.execution.order())
            }
            Message::Promise { decided, settled, .. } => {
                self.quorum.on_mark(who, *decided)?;
                self.settled.on_mark(who, *settled, self.execution.order())
            }
            Message::Accepted { marks, .. } | Message::Following { marks, .. } => {
                self.quorum.on_mark(who, marks.decided)
            }
            Message::Fetched { from, entries, decided } => self.on_fetched(who, *from, entries, *decided),
            _ => Ok(()),
        }
    }

    fn on_fetched(
        &mut self,
        who: usize,
        from: Slot,
        entries: &[(mesh::ids::Ballot, Arc<Batch>)],
        decided: Slot,
    ) -> Verdict {
        self.quorum.on_mark(who, decided)?;
        let mut slot = from;
        for (_, batch) in entries {
            let value = self.values.id(batch);
            self.quorum.on_decided(who, slot, value)?;
            slot = slot.next();
        }
        Ok(())
    }

    /// Replica `who` resets its application.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_reset(&mut self, who: usize, run: Run) -> Verdict {
        self.execution.on_reset(who, run)
    }

    /// Replica `who` hands a slot to its application, which then has `outstanding` of them.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_execute(&mut self, who: usize, run: Run, executed: Executed, outstanding: usize) -> Verdict {
        bounds::on_execute(who, outstanding, &self.limits)?;
        let slot = executed.slot;
        let Some(value) = self.quorum.chosen(slot) else {
            return Violation::raise("quorum", format!("replica {who} executes slot {slot}, which has no majority"));
        };
        self.in_its_batch(who, &executed, value)?;
        let calls: Vec<Bytes> = executed.operations.iter().filter_map(call_bytes).cloned().collect();
        if !self.execution.on_execute(who, run, executed)? {
            return Ok(());
        }
        for bytes in calls {
            let Some((_, call)) = MapOp::decode(&bytes) else {
                return Violation::raise("execution", format!("slot {slot} executes what nobody called: {bytes:?}"));
            };
            self.once.on_ordered(call, self.ordered.len())?;
            self.ordered.push(call);
            self.ordered_slots.push(slot);
            self.expected.push(self.model.execute(&bytes));
        }
        Ok(())
    }

    /// The calls that run are calls of the slot's batch, of the sessions that they name, in its order.
    fn in_its_batch(&self, who: usize, executed: &Executed, value: ledger::ValueId) -> Verdict {
        let mut requests = self.values.batch(value).requests.iter();
        for operation in &executed.operations {
            let Operation::Call { session, bytes } = operation else { continue };
            let found = requests.any(|request| {
                let body = matches!(&request.body, mesh::wire::Body::Call(body) if body == bytes);
                body && (request.client, request.opened) == *session
            });
            if !found {
                let what = format!("replica {who} executes {bytes:?} in slot {}: not in its batch", executed.slot);
                return Violation::raise("execution", what);
            }
        }
        Ok(())
    }

    /// Replica `who`'s application has executed a slot.
    pub fn on_executed(&mut self, who: usize, slot: Slot) {
        self.settled.on_executed(who, slot);
    }

    /// A client calls.
    pub fn on_call(&mut self, connection: u64, op: MapOp, oversized: bool) -> CallId {
        self.clock += 1;
        self.calls.push(Call { connection, op, called: self.clock, returned: None, oversized });
        CallId(self.calls.len() as u64 - 1)
    }

    /// A call ends.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_answer(&mut self, id: CallId, answer: Answer) -> Verdict {
        self.clock += 1;
        let place = self.once.place(id);
        let call = &mut self.calls[id.0 as usize];
        if let Some((_, before)) = &call.returned {
            return Violation::raise("linearizable", format!("call {} was answered twice, first {before:?}", id.0));
        }
        call.returned = Some((self.clock, answer));
        match (&call.returned, place) {
            (Some((_, Answer::Reply(got))), Some(place)) => {
                if *got != self.expected[place] {
                    let what = format!("call {} {:?}: {got:?}, model: {:?}", id.0, call.op, self.expected[place]);
                    return Violation::raise("linearizable", what);
                }
                let slot = self.ordered_slots[place];
                let chosen = self.quorum.chosen(slot);
                // Where nothing is durable, a majority that once had it is all that can be asked for.
                if self.binds_at_once { Ok(()) } else { durability::on_acknowledged(slot, chosen, &self.ledgers) }
            }
            (Some((_, Answer::Reply(_))), None) => {
                Violation::raise("linearizable", format!("call {} ({:?}) was answered and did not run", id.0, call.op))
            }
            (Some((_, Answer::Refused(why))), Some(_)) => {
                Violation::raise("refusals", format!("call {} is refused ({why}) and ran", id.0))
            }
            _ => Ok(()),
        }
    }

    /// Whatever can only be judged at the end.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn at_end(&self) -> Verdict {
        linearizable::check(&self.calls, &self.ordered)?;
        refusals::check(&self.calls, &self.ordered)?;
        connection_order::check(&self.calls, &self.ordered)
    }

    /// The state after the agreed order.
    #[must_use]
    pub fn model(&self) -> &Store {
        &self.model
    }

    /// Slots that somebody decided.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.agreement.slots()
    }

    /// Slots of the agreed order with something to execute.
    #[must_use]
    pub fn executed_slots(&self) -> usize {
        self.execution.order().len()
    }

    /// Records in replica `who`'s journal, as seen from outside.
    #[must_use]
    pub fn journal_len(&self, who: usize) -> usize {
        self.ledgers[who].len()
    }
}

fn call_bytes(operation: &Operation) -> Option<&Bytes> {
    match operation {
        Operation::Call { bytes, .. } => Some(bytes),
        Operation::End { .. } => None,
    }
}
