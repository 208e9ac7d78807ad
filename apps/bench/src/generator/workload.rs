//! What is asked for next: the operation by its share, the key by its skew.

use crate::wire::Op;
use mesh::rng::Rng;
use serde::{Deserialize, Serialize};

/// Shares of the operations, in thousandths, in the order of [`Op::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mix(pub(crate) [u16; 4]);

impl Mix {
    /// PUT and GET only.
    pub(crate) fn reads(share: f64) -> Self {
        let reads = (share.clamp(0.0, 1.0) * 1000.0).round() as u16;
        Self([1000 - reads, reads, 0, 0])
    }

    /// All four, as often as each other.
    pub(crate) const fn even() -> Self {
        Self([250; 4])
    }

    fn draw(self, rng: &mut Rng) -> Op {
        let mut at = rng.below(1000) as u16;
        for (op, share) in Op::ALL.into_iter().zip(self.0) {
            if at < share {
                return op;
            }
            at -= share;
        }
        Op::Put
    }

    /// Whether anything is read that must have been written before.
    pub(crate) const fn has_reads(self) -> bool {
        self.0[1] > 0
    }
}

/// Which keys.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    count: u64,
    /// The chance of each key or one before it; empty: all are alike.
    cumulated: Vec<f64>,
}

impl Keys {
    /// `skew`: the exponent of Zipf's law; 0: all keys alike; 1: the k-th key is asked for 1/k as often as the first.
    pub(super) fn new(count: u64, skew: f64) -> Self {
        let mut cumulated = Vec::new();
        if skew > 0.0 {
            let mut sum = 0.0;
            cumulated.extend((1..=count).map(|rank| {
                sum += (rank as f64).powf(-skew);
                sum
            }));
            cumulated.iter_mut().for_each(|chance| *chance /= sum);
        }
        Self { count, cumulated }
    }

    fn draw(&self, rng: &mut Rng) -> u64 {
        if self.cumulated.is_empty() {
            return rng.below(self.count);
        }
        // 53 random bits are a fraction in [0, 1).
        let at = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        (self.cumulated.partition_point(|chance| *chance <= at) as u64).min(self.count - 1)
    }
}

/// One connection's draws.
#[derive(Clone, Debug)]
pub(super) struct Draws {
    rng: Rng,
    mix: Mix,
}

impl Draws {
    /// Of its own for each connection, the same in every run.
    pub(super) fn new(seed: u64, mix: Mix) -> Self {
        Self { rng: Rng::from_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995), mix }
    }

    /// The next request.
    pub(super) fn next(&mut self, keys: &Keys) -> (Op, u64) {
        (self.mix.draw(&mut self.rng), keys.draw(&mut self.rng))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn drawn(mix: Mix, keys: &Keys) -> (BTreeMap<Op, u32>, BTreeMap<u64, u32>) {
        let (mut ops, mut counts, mut draws) = (BTreeMap::new(), BTreeMap::new(), Draws::new(1, mix));
        for _ in 0..20_000 {
            let (op, key) = draws.next(keys);
            *ops.entry(op).or_default() += 1;
            *counts.entry(key).or_default() += 1;
        }
        (ops, counts)
    }

    #[test]
    fn operations_come_by_their_shares() {
        let (ops, _) = drawn(Mix::reads(0.9), &Keys::new(10, 0.0));
        assert!((17_500..18_500).contains(&ops[&Op::Get]) && ops.len() == 2, "{ops:?}");
        let (ops, _) = drawn(Mix::even(), &Keys::new(10, 0.0));
        assert!(ops.values().all(|count| (4_500..5_500).contains(count)) && ops.len() == 4, "{ops:?}");
        assert_eq!(drawn(Mix::reads(0.0), &Keys::new(1, 0.0)).0, BTreeMap::from([(Op::Put, 20_000)]));
    }

    #[test]
    fn without_skew_all_keys_are_alike_and_with_it_they_follow_zipf() {
        let (_, counts) = drawn(Mix::even(), &Keys::new(10, 0.0));
        assert!(counts.len() == 10 && counts.values().all(|count| (1_700..2_300).contains(count)), "{counts:?}");
        let (_, counts) = drawn(Mix::even(), &Keys::new(10, 1.0));
        // The harmonic number of 10 is 2.93: the first key has a third, the tenth a thirtieth.
        assert!((6_400..7_300).contains(&counts[&0]) && (580..800).contains(&counts[&9]), "{counts:?}");
    }
}
