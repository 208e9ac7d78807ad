//! Quorum arithmetic: the only place that divides by two.

/// How many of `n` make a majority: any two majorities of the same n share a member.
#[must_use]
pub const fn majority(n: usize) -> usize {
    n / 2 + 1
}

/// How many of `n` members may be lost while the rest still is a majority (f of n ≥ 2f + 1).
#[must_use]
pub const fn tolerated(n: usize) -> usize {
    n.saturating_sub(1) / 2
}

/// With fewer applications than this no majority of them can be outvoted: one reply is taken, the settled mark is that of the
/// furthest, and aborts and rebuilds are an operator's (rule 29).
pub const ELECTORATE_MIN: usize = 3;

/// How many of an electorate's replies, or executions, are taken for all: a majority, or one where they are too few for
/// that. With two it is one: else the loss of one machine of two would stop the service.
#[must_use]
pub const fn deciding(electorate: usize) -> usize {
    if electorate < ELECTORATE_MIN { 1 } else { majority(electorate) }
}

/// The highest value that at least a majority of `values` has reached; the default of `T` when there are none.
#[must_use]
pub fn reached_by_majority<T: Ord + Copy + Default>(values: &mut [T]) -> T {
    reached_by(majority(values.len()), values)
}

/// The highest value that at least `needed` of `values` have reached; the default of `T` when there are not so many.
#[must_use]
pub fn reached_by<T: Ord + Copy + Default>(needed: usize, values: &mut [T]) -> T {
    values.sort_unstable();
    values.len().checked_sub(needed).and_then(|index| values.get(index)).copied().unwrap_or_default()
}

/// A set of members, by their place in the member list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberSet(u64);

impl MemberSet {
    /// Adds the member at `index`.
    pub fn insert(&mut self, index: usize) {
        assert!(index < crate::limits::MEMBERS_MAX, "the member list is validated to be shorter");
        self.0 |= 1 << index;
    }

    /// Whether the member at `index` is in it.
    #[must_use]
    pub const fn contains(self, index: usize) -> bool {
        self.0 >> index & 1 == 1
    }

    /// How many are in it.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether nobody is.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_two_majorities_meet_and_the_survivors_are_one() {
        for n in 1..=64 {
            assert!(2 * majority(n) > n, "two majorities of {n} may miss each other");
            assert!(n - tolerated(n) >= majority(n), "{n} members do not survive {}", tolerated(n));
            assert!(n - (tolerated(n) + 1) < majority(n), "{n} members survive more than stated");
        }
    }

    #[test]
    fn reached_by_majority_agrees_with_counting() {
        let mut rng = crate::rng::Rng::from_seed(3);
        for _ in 0..1000 {
            let mut values: Vec<u64> = (0..rng.between(1, 9)).map(|_| rng.below(6)).collect();
            let counted = (0..6).rev().find(|v| values.iter().filter(|x| *x >= v).count() >= majority(values.len()));
            assert_eq!(reached_by_majority(&mut values), counted.unwrap_or_default());
        }
        assert_eq!(reached_by_majority::<u64>(&mut []), 0);
        assert_eq!((reached_by(1, &mut [3, 9]), reached_by(2, &mut [3, 9]), reached_by(3, &mut [3, 9])), (9, 3, 0));
    }
}
