//! Promises and votes leave only after their records are durable, no vote breaks an earlier promise, and a promise tells
//! every vote.
//!
//! Two freedoms, both sound: whoever has the chosen value durably (in a snapshot, too) may vote for it in any later ballot (that ballot can
//! propose nothing else); and a promise may tell more than it must (votes of its own ballot, which its candidate does
//! not need; chosen values that were fetched).

use super::quorum::Quorum;
use super::{Verdict, Violation, ledger::Ledger};
use mesh::ids::{Ballot, Slot};
use mesh::wire::Message;

const NAME: &str = "promises";

/// Replica `who` sends `message`, its journal being `ledger`, behind a snapshot of `covered`.
///
/// # Errors
/// If the journal does not bear the message out.
pub fn on_send(who: usize, covered: Slot, ledger: &Ledger, quorum: &Quorum, message: &Message) -> Verdict {
    match message {
        Message::Promise { ballot, decided, accepted, .. } => promise(who, ledger, *ballot, *decided, accepted),
        Message::Promised { ballot, slot, accepted, .. } => {
            durable_promise(who, ledger, *ballot)?;
            let more = accepted >= ballot || ledger.last(*slot).is_some_and(|v| quorum.chosen(*slot) == Some(v.value));
            if more || ledger.durable_in(*slot, *accepted).is_some() {
                return Ok(());
            }
            Violation::raise(NAME, format!("replica {who} tells a vote ({slot}, {accepted}) it has not"))
        }
        Message::Accepted { ballot, slots, .. } => {
            let mut open = slots.iter().filter(|slot| **slot > covered);
            open.try_for_each(|slot| vote(who, ledger, quorum, *ballot, *slot))
        }
        // So it is whatever else happens: what is promised later was not promised then.
        Message::Confirmed { ballot, .. } if ledger.promised() > *ballot => {
            let promised = ledger.promised();
            Violation::raise(NAME, format!("replica {who} confirms {ballot} after it promised {promised}"))
        }
        _ => Ok(()),
    }
}

fn durable_promise(who: usize, ledger: &Ledger, ballot: Ballot) -> Verdict {
    if ledger.promised_durably() >= ballot {
        return Ok(());
    }
    let durable = ledger.promised_durably();
    Violation::raise(NAME, format!("replica {who} promises {ballot}, durable is {durable}"))
}

fn promise(who: usize, ledger: &Ledger, ballot: Ballot, decided: Slot, accepted: &[(Slot, Ballot)]) -> Verdict {
    durable_promise(who, ledger, ballot)?;
    for vote in ledger.durable_above(decided) {
        let told = accepted.iter().any(|(slot, in_ballot)| *slot == vote.slot && *in_ballot >= vote.ballot);
        if vote.ballot < ballot && !told {
            let what = format!("replica {who} promises {ballot} and hides its vote ({}, {})", vote.slot, vote.ballot);
            return Violation::raise(NAME, what);
        }
    }
    Ok(())
}

fn vote(who: usize, ledger: &Ledger, quorum: &Quorum, ballot: Ballot, slot: Slot) -> Verdict {
    if ledger.last_durable(slot).is_some_and(|vote| quorum.chosen(slot) == Some(vote.value)) {
        return Ok(());
    }
    let Some(vote) = ledger.durable_in(slot, ballot) else {
        return Violation::raise(NAME, format!("replica {who} votes ({slot}, {ballot}) without a durable record"));
    };
    if vote.promised_before > ballot {
        let what = format!("replica {who} votes ({slot}, {ballot}) after it promised {}", vote.promised_before);
        return Violation::raise(NAME, what);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Values;
    use super::*;
    use mesh::ids::{Incarnation, Lsn, ReplicaId};
    use mesh::order::Record;
    use mesh::wire::peer::{Batch, Marks};
    use std::sync::Arc;

    fn ballot(round: u64) -> Ballot {
        Ballot { round, replica: ReplicaId(0), incarnation: Incarnation(1) }
    }

    fn ledger(records: &[Record], durable: u64) -> Ledger {
        let (mut ledger, mut values) = (Ledger::default(), Values::default());
        for (index, record) in records.iter().enumerate() {
            ledger.append(Lsn(index as u64 + 1), record, &mut values).unwrap();
        }
        ledger.persisted(Lsn(durable));
        ledger
    }

    fn send(ledger: &Ledger, message: &Message) -> Verdict {
        on_send(0, Slot(0), ledger, &Quorum::default(), message)
    }

    fn promised(round: u64) -> Record {
        Record::Promised { ballot: ballot(round) }
    }

    fn accepted(slot: u64, round: u64) -> Record {
        Record::Accepted { slot: Slot(slot), ballot: ballot(round), batch: Arc::new(Batch::default()) }
    }

    fn vote_for(slot: u64, round: u64) -> Message {
        Message::Accepted { ballot: ballot(round), slots: vec![Slot(slot)], marks: Marks::default() }
    }

    fn promise_of(round: u64, accepted: Vec<(Slot, Ballot)>) -> Message {
        let (ballot, decided) = (ballot(round), Slot(0));
        Message::Promise { ballot, decided, first_kept: Slot(1), settled: Slot(0), accepted }
    }

    #[test]
    fn a_vote_before_its_record_is_durable_is_caught() {
        let records = [promised(1), accepted(1, 1)];
        assert!(send(&ledger(&records, 1), &vote_for(1, 1)).is_err());
        assert!(send(&ledger(&records, 2), &vote_for(1, 1)).is_ok());
        assert!(send(&ledger(&records, 2), &vote_for(2, 1)).is_err());
        on_send(0, Slot(2), &ledger(&records, 2), &Quorum::default(), &vote_for(2, 1)).unwrap();
    }

    #[test]
    fn a_vote_below_an_earlier_promise_is_caught() {
        let records = [promised(2), accepted(1, 1)];
        assert!(send(&ledger(&records, 2), &vote_for(1, 1)).is_err());
    }

    #[test]
    fn a_promise_before_its_record_is_durable_is_caught() {
        let records = [promised(1), promised(2)];
        assert!(send(&ledger(&records, 1), &promise_of(2, vec![])).is_err());
        assert!(send(&ledger(&records, 2), &promise_of(2, vec![])).is_ok());
    }

    #[test]
    fn a_promise_that_hides_a_vote_is_caught() {
        let records = [promised(1), accepted(1, 1), promised(2)];
        let journal = ledger(&records, 3);
        assert!(send(&journal, &promise_of(2, vec![])).is_err());
        assert!(send(&journal, &promise_of(2, vec![(Slot(1), ballot(1))])).is_ok());
    }
}
