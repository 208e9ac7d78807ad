//! Nothing acknowledged is lost: at the moment of the answer its slot is durable on a majority, and what was chosen
//! stays in each journal that had it.

use super::ledger::ValueId;
use super::membership::Configuration;
use super::{Verdict, Violation};
use mesh::ids::Slot;

/// A client is told that the call of `slot` is done; each replica's newest snapshot that is whole covers its slots too.
/// Replicas that lost what they had (within the budget of faults) are not asked.
///
/// # Errors
/// If at this moment in none of the configurations (that of the slot, and those since that may hold it) a majority has
/// the chosen value durably.
pub fn on_acknowledged<'a>(
    slot: Slot,
    chosen: Option<ValueId>,
    mut configurations: impl Iterator<Item = &'a Configuration> + Clone,
    holds: impl Fn(usize, Slot, ValueId) -> bool,
) -> Verdict {
    let Some(value) = chosen else {
        return Violation::raise("durability", format!("slot {slot} is acknowledged and has no majority"));
    };
    let newest = configurations.clone().last();
    if configurations.any(|configuration| configuration.is_durable(|who| holds(who, slot, value))) {
        return Ok(());
    }
    let holders = newest.into_iter().flat_map(Configuration::voters).filter(|who| holds(*who, slot, value));
    let what =
        format!("slot {slot} is acknowledged and, of the voters now, durable on {:?}", holders.collect::<Vec<_>>());
    Violation::raise("durability", what)
}

#[cfg(test)]
mod tests {
    use super::super::membership::Membership;
    use super::*;
    use mesh::config::{ClusterConfig, Durability};

    #[test]
    fn an_answer_whose_slot_is_durable_on_a_minority_is_caught() {
        let members = Membership::new(3, &ClusterConfig::of(3, "line", Durability::Sync));
        let check = |chosen, holders: &[usize]| {
            let holds = |who, slot, value| holders.contains(&who) && slot == Slot(1) && value == ValueId(4);
            on_acknowledged(Slot(1), chosen, members.from(Slot(0)), holds)
        };
        assert!(check(Some(ValueId(4)), &[0]).is_err());
        check(Some(ValueId(4)), &[0, 2]).unwrap();
        assert!(check(Some(ValueId(5)), &[0, 1, 2]).is_err());
        assert!(check(None, &[0, 1, 2]).is_err());
    }
}
