//! The checkers: one file for each property. They see what crosses a replica's border (records, messages, executions,
//! answers) and nothing of what is inside, so that they cannot share its mistakes.

pub mod abort;
pub mod agreement;
pub mod ballots;
pub mod bounds;
pub mod connection_order;
pub mod convergence;
pub mod cut;
pub mod divergence;
pub mod durability;
pub mod enough;
pub mod exactly_once;
pub mod execution;
pub mod history;
pub mod ledger;
pub mod lineage;
pub mod linearizable;
pub mod membership;
pub mod model;
pub mod promises;
pub mod quorum;
pub mod reads;
pub mod refusals;
pub mod settled;
pub mod spinning;

use bytes::Bytes;
use execution::Executed;
use history::Call;
use ledger::{Ledger, Values, Vote};
use mesh::client::sender::Answer;
use mesh::config::ClusterConfig;
use mesh::ids::{Life, Lsn, Position, Run, Slot};
use mesh::limits::Limits;
use mesh::order::{Image, Operation, Record};
use mesh::wire::Message;
use mesh::wire::peer::{Batch, Command, Marks};
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
    decided: Vec<Slot>,
    // Replicas that lost something, within the budget of faults, and did not get it back yet.
    damaged: Vec<bool>,
    agreement: agreement::Agreement,
    quorum: quorum::Quorum,
    ballots: ballots::Ballots,
    membership: membership::Membership,
    execution: execution::Execution,
    once: exactly_once::ExactlyOnce,
    settled: settled::Settled,
    abort: abort::Abort,
    lineage: lineage::Lineage,
    cut: cut::Cut,
    divergence: divergence::Divergence,
    calls: Vec<Call>,
    ordered: Vec<(CallId, Slot)>,
    expected: Vec<Bytes>,
    model: Store,
    limits: Limits,
    // A vote binds when it is durable; where nothing outlives the process, when it is given.
    binds_at_once: bool,
    clock: u64,
}

impl Checks {
    /// For `n` replicas with these limits, of which some are members from the beginning; `binds_at_once` where a vote is
    /// never durable (memory mode).
    #[must_use]
    pub fn new(n: usize, cluster: &ClusterConfig, limits: Limits, binds_at_once: bool) -> Self {
        Self {
            values: Values::default(),
            ledgers: (0..n).map(|_| Ledger::default()).collect(),
            decided: vec![Slot(0); n],
            damaged: vec![false; n],
            agreement: agreement::Agreement::default(),
            quorum: quorum::Quorum::default(),
            ballots: ballots::Ballots::default(),
            membership: membership::Membership::new(n, cluster),
            execution: execution::Execution::new(n),
            once: exactly_once::ExactlyOnce::default(),
            settled: settled::Settled::new(n),
            abort: abort::Abort::default(),
            lineage: lineage::Lineage::default(),
            cut: cut::Cut::new(n),
            divergence: divergence::Divergence::new(n),
            calls: Vec::new(),
            ordered: Vec::new(),
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
                if self.binds_at_once { self.on_vote(who, *slot, *ballot, value) } else { Ok(()) }
            }
            Record::Decided { slot } => self.on_decided_upto(who, *slot),
            Record::Jumped { .. }
            | Record::Promised { .. }
            | Record::Silent { .. }
            | Record::Superseded
            | Record::Restarted { .. } => Ok(()),
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
        if self.binds_at_once {
            return Ok(());
        }
        votes.iter().try_for_each(|vote| self.on_vote(who, vote.slot, vote.ballot, vote.value))
    }

    fn on_vote(&mut self, who: usize, slot: Slot, ballot: mesh::ids::Ballot, value: ledger::ValueId) -> Verdict {
        let life = self.membership.life(who);
        self.quorum.on_vote((who, life), slot, (ballot, value), &self.membership)?;
        while let Some(slot) = self.quorum.advance(&self.membership)? {
            self.on_command(slot)?;
        }
        Ok(())
    }

    /// What the cluster ordered for itself in a slot takes effect.
    fn on_command(&mut self, slot: Slot) -> Verdict {
        let Some(value) = self.quorum.chosen(slot) else { return Ok(()) };
        match self.values.batch(value).command {
            Some(Command::Configure { against, change }) => {
                self.membership.on_change(slot, against, &change);
                Ok(())
            }
            Some(Command::Abort { at }) if at.slot < slot => self.on_abort(at),
            _ => Ok(()),
        }
    }

    /// The call is taken out of the agreed order.
    fn on_abort(&mut self, at: Position) -> Verdict {
        if !self.execution.on_abort(at) {
            return Ok(());
        }
        let order = self.execution.order();
        let index = order.partition_point(|executed| executed.slot < at.slot);
        let aborted = order.get(index).filter(|executed| executed.slot == at.slot).and_then(|executed| {
            let place = executed.places.iter().position(|place| *place == Some(at.call))?;
            call_bytes(&executed.operations[place])
        });
        let Some((_, call)) = aborted.and_then(|bytes| MapOp::decode(bytes)) else { return Ok(()) };
        self.abort.on_abort(call, at, &self.calls)?;
        self.lineage.on_abort(at.slot)?;
        self.order_anew()
    }

    fn order_anew(&mut self) -> Verdict {
        self.once = exactly_once::ExactlyOnce::default();
        self.ordered.clear();
        self.expected.clear();
        self.model = Store::default();
        let order = self.execution.order().iter();
        let left = order.flat_map(|e| e.left(self.execution.aborted()).map(|operation| (e.slot, operation)));
        for (slot, operation) in left {
            let Some(bytes) = call_bytes(operation) else { continue };
            let Some((_, call)) = MapOp::decode(bytes) else { continue };
            self.once.on_ordered(call, self.ordered.len())?;
            self.ordered.push((call, slot));
            self.expected.push(self.model.execute(bytes));
        }
        Ok(())
    }

    /// Replica `who`'s process ended with `keep` records left, of all that its journal ever had.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_crash(&mut self, who: usize, keep: usize) -> Verdict {
        self.execution.on_crash(who);
        let votes = self.ledgers[who].restart(keep);
        self.decided[who] = self.ledgers[who].decided();
        self.on_votes(who, &votes)
    }

    /// The end of replica `who`'s journal was found torn and cut: so many records are left, of all it ever had.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_torn(&mut self, who: usize, keep: usize) -> Verdict {
        self.on_crash(who, keep)
    }

    /// Replica `who` begins another life with an empty journal.
    pub fn on_new_life(&mut self, who: usize, life: Life) {
        self.membership.on_life(who, life);
        self.ledgers[who] = Ledger::default();
        self.decided[who] = Slot(0);
    }

    /// Replica `who` goes on behind a snapshot.
    pub fn on_image(&mut self, who: usize, slot: Slot) {
        self.decided[who] = self.decided[who].max(slot);
    }

    /// Replica `who`'s journal lets go of the first of all its records, so many of them.
    pub fn on_journal_cut(&mut self, who: usize, records: usize) {
        self.ledgers[who].cut(records);
    }

    /// What replica `who` has of snapshots (as it knows, and in truth), whether it is damaged, and whether its application
    /// holds anything of a wrong answer.
    pub fn on_health(&mut self, who: usize, (known, whole): (Slot, Slot), damaged: bool, tainted: bool) {
        self.cut.on_snapshots(who, known, whole);
        self.damaged[who] = damaged;
        self.divergence.on_state(who, tainted);
    }

    /// Replica `who` sends a message.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_send(&mut self, who: usize, message: &Message) -> Verdict {
        self.membership.on_send(who, self.decided[who], self.quorum.prefix(), message)?;
        promises::on_send(who, self.cut.whole()[who], &self.ledgers[who], &self.quorum, message)?;
        match message {
            Message::Prepare { ballot, .. } => self.ballots.on_leader(who, *ballot),
            Message::Accept { ballot, slot, decided, batch, .. } => {
                self.ballots.on_leader(who, *ballot)?;
                let value = self.values.id(batch);
                self.ballots.on_proposal(*ballot, *slot, value)?;
                self.quorum.on_proposal(*slot, *ballot, value)?;
                self.quorum.on_mark(who, *decided)?;
                bounds::on_proposal(who, *slot, batch, &self.limits)?;
                self.settled.on_mark(who, batch.settled, &self.execution, &self.membership)
            }
            Message::Heartbeat { ballot, decided, settled, covered, .. } => {
                self.ballots.on_leader(who, *ballot)?;
                self.quorum.on_mark(who, *decided)?;
                self.cut.on_covered(who, *covered, &self.membership)?;
                self.settled.on_mark(who, *settled, &self.execution, &self.membership)
            }
            Message::Promise { decided, settled, .. } => {
                self.quorum.on_mark(who, *decided)?;
                self.settled.on_mark(who, *settled, &self.execution, &self.membership)
            }
            Message::Accepted { marks, .. } | Message::Following { marks, .. } | Message::Confirmed { marks, .. } => {
                self.on_marks(who, marks)
            }
            Message::ReadIndexed { ballot, decided, settled, .. } => {
                self.ballots.on_leader(who, *ballot)?;
                self.quorum.on_mark(who, *decided)?;
                self.settled.on_mark(who, *settled, &self.execution, &self.membership)
            }
            Message::Fetched { from, entries, decided } => self.on_fetched(who, *from, entries, *decided),
            _ => Ok(()),
        }
    }

    fn on_marks(&mut self, who: usize, marks: &Marks) -> Verdict {
        self.quorum.on_mark(who, marks.decided)?;
        self.abort.on_marks(who, marks, &self.ledgers[who])?;
        self.cut.on_mark(who, marks.snapshot)
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

    /// Replica `who` resets its application, to the state after the slot `after`.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_reset(&mut self, who: usize, run: Run, after: Slot) -> Verdict {
        self.execution.on_reset(who, run, after)
    }

    /// Replica `who`'s application begins with this state, after the slot `after`.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_restored(&mut self, who: usize, after: Slot, state: &Store, tainted: bool) -> Verdict {
        self.settled.on_executed(who, after);
        self.divergence.on_restored(who, tainted);
        if tainted { Ok(()) } else { self.lineage.on_restored(who, after, state, &self.execution) }
    }

    /// Replica `who` asks for a snapshot.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_dump(&mut self, who: usize, image: &Image) -> Verdict {
        if !image.hollow && !self.execution.is_exactly_at(who, image.slot) {
            let handed = self.execution.handed(who);
            let what = format!("replica {who} snapshots slot {}, its application was handed {handed}", image.slot);
            return Violation::raise("lineage", what);
        }
        self.settled.on_mark(who, image.slot, &self.execution, &self.membership)
    }

    /// Replica `who` has stored a snapshot, its own or a peer's.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_snapshot(&mut self, who: usize, slot: Slot, state: &Store, tainted: bool) -> Verdict {
        if tainted { Ok(()) } else { self.lineage.on_snapshot(who, slot, state, &self.execution) }
    }

    /// Replica `who` cuts its log; behind a snapshot that it fetched because its log does not reach that far, or its own.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_cut(&mut self, who: usize, through: Slot, fetched: bool) -> Verdict {
        if fetched {
            // What the journal has below is of no use any more, even if that snapshot was lost meanwhile.
            self.decided[who] = self.decided[who].max(through);
        } else {
            self.cut.on_cut(who, through)?;
            self.on_decided_upto(who, through)?;
            self.cut.on_covered(who, through, &self.membership)?;
        }
        self.settled.on_mark(who, through, &self.execution, &self.membership)
    }

    /// Replica `who` finds that its application differs.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_diverged(&mut self, who: usize) -> Verdict {
        self.divergence.on_diverged(who)
    }

    /// Replica `who` finds that no majority agrees.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_no_agreement(&mut self, who: usize) -> Verdict {
        self.divergence.on_no_agreement((who, self.decided[who]), &self.membership)
    }

    /// Replica `who` says that another life has taken its place.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_superseded(&mut self, who: usize) -> Verdict {
        self.membership.on_superseded(who)
    }

    /// Replica `who` hands a slot to its application, which then has `outstanding` of them.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_execute(
        &mut self,
        who: usize,
        run: Run,
        (slot, time): (Slot, u64),
        operations: Vec<Operation>,
        outstanding: usize,
    ) -> Verdict {
        bounds::on_execute(who, outstanding, &self.limits)?;
        let Some(value) = self.quorum.chosen(slot) else {
            return Violation::raise("quorum", format!("replica {who} executes slot {slot}, which has no majority"));
        };
        let places = self.places(who, slot, &operations, value)?;
        let executed = Executed { slot, time, operations, places };
        let calls: Vec<Bytes> = executed.left(self.execution.aborted()).filter_map(call_bytes).cloned().collect();
        if !self.execution.on_execute(who, run, executed)? {
            return Ok(());
        }
        for bytes in calls {
            let Some((_, call)) = MapOp::decode(&bytes) else {
                return Violation::raise("execution", format!("slot {slot} executes what nobody called: {bytes:?}"));
            };
            self.once.on_ordered(call, self.ordered.len())?;
            self.ordered.push((call, slot));
            self.expected.push(self.model.execute(&bytes));
        }
        Ok(())
    }

    /// The calls that run are calls of the slot's batch, of the sessions that they name, in its order: their places in it.
    fn places(
        &self,
        who: usize,
        slot: Slot,
        operations: &[Operation],
        value: ledger::ValueId,
    ) -> Result<Vec<Option<u32>>, Violation> {
        let mut requests = (0u32..).zip(&self.values.batch(value).requests);
        let mut places = Vec::with_capacity(operations.len());
        for operation in operations {
            let Operation::Call { session, bytes } = operation else {
                places.push(None);
                continue;
            };
            let found = requests.find(|(_, request)| {
                let body = matches!(&request.body, mesh::wire::Body::Call(body) if body == bytes);
                body && (request.client, request.opened) == *session
            });
            let Some((place, _)) = found else {
                let what = format!("replica {who} executes {bytes:?} in slot {slot}: not in its batch");
                return Err(Violation { check: "execution", what });
            };
            places.push(Some(place));
        }
        Ok(places)
    }

    /// Where a call of the agreed order is, by its bytes.
    #[must_use]
    pub fn position_of(&self, slot: Slot, call: &[u8]) -> Option<Position> {
        let order = self.execution.order();
        let executed = order.get(order.partition_point(|executed| executed.slot < slot))?;
        let mut all = executed.operations.iter().zip(&executed.places);
        let (_, place) = all.find(|(operation, _)| call_bytes(operation).is_some_and(|bytes| bytes == call))?;
        Some(Position { slot, call: (*place)? })
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
        self.abort.on_answer(id, &answer)?;
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
                let slot = self.ordered[place].1;
                let chosen = self.quorum.chosen(slot);
                if self.binds_at_once {
                    // Where nothing is durable, a majority that once had it is all that can be asked for.
                    return Ok(());
                }
                durability::on_acknowledged(slot, chosen, self.membership.from(slot.previous()), |who, slot, value| {
                    self.holds(who, slot, value)
                })
            }
            // It may have been answered past the log: judged at the end, when it is known what else was.
            (Some((_, Answer::Reply(_))), None) if call.op.is_read() => Ok(()),
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
        let ordered: Vec<CallId> = self.ordered.iter().map(|(call, _)| *call).collect();
        linearizable::check(&self.calls, &ordered)?;
        reads::check(&self.calls, &ordered)?;
        refusals::check(&self.calls, &ordered)?;
        connection_order::check(&self.calls, &ordered)?;
        self.divergence.at_end(&self.membership)
    }

    /// Whether replica `who` has the value of a slot durably, in its journal or a snapshot, or had it and lost it within the
    /// budget of faults.
    fn holds(&self, who: usize, slot: Slot, value: ledger::ValueId) -> bool {
        let application = self.membership.current().members.get(&who).is_none_or(|member| member.application);
        let covered = application && self.cut.whole()[who] >= slot;
        self.damaged[who] || covered || self.ledgers[who].last_durable(slot).is_some_and(|vote| vote.value == value)
    }

    /// An operator is told that a member was removed and may stop.
    ///
    /// # Errors
    /// What the checkers say.
    pub fn on_removed(&self, member: usize) -> Verdict {
        self.membership.on_removed(member, |who, slot| {
            // Where nothing is durable, a majority that once had it is all that can be asked for.
            let value = self.quorum.chosen(slot);
            self.binds_at_once
                || value.is_some_and(|value| self.cut.whole()[who] >= slot || self.holds(who, slot, value))
        })
    }

    /// Who is a member, by the ordered changes.
    #[must_use]
    pub fn membership(&self) -> &membership::Membership {
        &self.membership
    }

    /// The configurations whose majorities are needed: the newest, and the one before until its change is confirmed.
    pub fn needed(&self) -> impl Iterator<Item = &membership::Configuration> {
        let now = self.membership.current();
        let before = self.membership.of(now.since);
        [now, before].into_iter().take(if self.is_confirmed() { 1 } else { 2 })
    }

    /// Whether every slot up to the last change is decided, and one above it: nobody who was removed is needed any more.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        let since = self.membership.current().since;
        since == Slot(0) || self.quorum.prefix() > since
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
}

fn call_bytes(operation: &Operation) -> Option<&Bytes> {
    match operation {
        Operation::Call { bytes, .. } => Some(bytes),
        Operation::End { .. } => None,
    }
}
