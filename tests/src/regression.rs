//! Tells whether something became slower, from measurements in turns.

/// What is to be said of a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The median of the ratios of after to before, round by round.
    pub ratio: f64,
    /// By how much two measurements of the same thing differ in a round: the largest part that was seen.
    pub noise: f64,
    /// Whether it is slower by more than the noise and by more than is tolerated, in the median and in nearly all rounds.
    pub slower: bool,
}

/// Judges measurements of which less is better: of each round one before the change, `again` the same, and one after it.
/// Slower by less than `tolerated`, a part of the whole, is nothing.
///
/// # Panics
/// If there are no rounds.
#[must_use]
pub fn judge(before: &[f64], again: &[f64], after: &[f64], tolerated: f64) -> Verdict {
    // The mean of the two that are before and behind it in time: what drifts is the same to both sides.
    let ratios: Vec<f64> =
        before.iter().zip(again).zip(after).map(|((first, second), after)| after * 2.0 / (first + second)).collect();
    let differs = |(first, second): (&f64, &f64)| (first / second).max(second / first) - 1.0;
    let noise = before.iter().zip(again).map(differs).fold(0.0, f64::max);
    let ratio = median(&ratios);
    let bound = 1.0 + tolerated.max(noise);
    // Nearly all: one round may be spoilt.
    let over = ratios.iter().filter(|ratio| **ratio > 1.0 + tolerated).count();
    Verdict { ratio, noise, slower: ratio > bound && over + 1 >= ratios.len() }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: [f64; 5] = [100.0, 104.0, 99.0, 101.0, 98.0];
    const AGAIN: [f64; 5] = [102.0, 101.0, 101.0, 99.0, 100.0];

    fn slower(after: [f64; 5]) -> bool {
        judge(&BEFORE, &AGAIN, &after, 0.1).slower
    }

    #[test]
    fn a_real_loss_fails_and_less_than_is_tolerated_does_not() {
        assert!(slower([120.0, 118.0, 121.0, 119.0, 122.0]));
        assert!(!slower([108.0, 107.0, 109.0, 106.0, 108.0]));
        assert!(!slower([80.0; 5]));
        assert!(slower([120.0, 118.0, 121.0, 100.0, 122.0]), "one round may be spoilt");
        assert!(!slower([120.0, 118.0, 121.0, 100.0, 101.0]));
    }

    /// Mutant: a guard that knows no noise fails whenever the machine does something else.
    #[test]
    fn on_a_noisy_machine_only_what_is_beyond_the_noise_fails() {
        let again = [160.0, 101.0, 101.0, 99.0, 100.0];
        let after = [150.0, 125.0, 124.0, 126.0, 123.0];
        let verdict = judge(&BEFORE, &again, &after, 0.1);
        assert!(!verdict.slower && (verdict.noise - 0.6).abs() < 1e-9, "{verdict:?}");
        assert!(judge(&BEFORE, &again, &[210.0, 170.0, 171.0, 169.0, 172.0], 0.1).slower);
    }
}
