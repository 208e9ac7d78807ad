//! Nothing acknowledged is lost: at the moment of the answer its slot is durable on a majority, and what was chosen
//! stays in each journal that had it.

use super::ledger::{Ledger, ValueId};
use super::{Verdict, Violation};
use mesh::ids::Slot;

/// A client is told that the call of `slot` is done; each replica's newest snapshot that is whole covers its slots too.
/// Replicas that lost what they had (within the budget of faults) are not asked.
///
/// # Errors
/// If fewer than a majority have the chosen value durably at this moment.
pub fn on_acknowledged(
    slot: Slot,
    chosen: Option<ValueId>,
    ledgers: &[Ledger],
    covered: &[Slot],
    lost: &[bool],
) -> Verdict {
    let Some(value) = chosen else {
        return Violation::raise("durability", format!("slot {slot} is acknowledged and has no majority"));
    };
    let has = |ledger: &Ledger| ledger.last_durable(slot).is_some_and(|vote| vote.value == value);
    let holds = |who: &usize| lost[*who] || covered[*who] >= slot || has(&ledgers[*who]);
    let holders = (0..ledgers.len()).filter(holds).count();
    if holders >= mesh::quorum::majority(ledgers.len()) {
        return Ok(());
    }
    Violation::raise("durability", format!("slot {slot} is acknowledged and durable on {holders} replicas"))
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Values;
    use super::*;
    use mesh::ids::{Ballot, Lsn};
    use mesh::order::Record;
    use mesh::wire::peer::Batch;
    use std::sync::Arc;

    #[test]
    fn an_answer_whose_slot_is_durable_on_a_minority_is_caught() {
        let mut values = Values::default();
        let mut ledgers: Vec<Ledger> = (0..3).map(|_| Ledger::default()).collect();
        let batch = Arc::new(Batch::default());
        let chosen = values.id(&batch);
        for ledger in &mut ledgers[..2] {
            let record = Record::Accepted { slot: Slot(1), ballot: Ballot::NONE, batch: Arc::clone(&batch) };
            ledger.append(Lsn(1), &record, &mut values).unwrap();
        }
        ledgers[0].persisted(Lsn(1));
        let none = [Slot(0); 3];
        assert!(on_acknowledged(Slot(1), Some(chosen), &ledgers, &none, &[false; 3]).is_err());
        on_acknowledged(Slot(1), Some(chosen), &ledgers, &none, &[false, true, false]).unwrap();
        on_acknowledged(Slot(1), Some(chosen), &ledgers, &[Slot(0), Slot(0), Slot(1)], &[false; 3]).unwrap();
        ledgers[1].persisted(Lsn(1));
        on_acknowledged(Slot(1), Some(chosen), &ledgers, &none, &[false; 3]).unwrap();
        assert!(on_acknowledged(Slot(1), None, &ledgers, &none, &[false; 3]).is_err());
    }
}
