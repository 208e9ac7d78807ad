//! `bench compare`: tells a change from noise between two runs of the same experiment.
//!
//! The test is that of Mann and Whitney ("On a test of whether one of two random variables is stochastically larger than the
//! other", 1947), exact and two-sided, over the rounds of each point: it asks only for the order of the rounds, not for how
//! they scatter. With n rounds on each side the least possible p is 2 / C(2n, n): 0.1 for three, 0.03 for four, 0.008 for five.

use crate::results::{Point, Store, median, rounds};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

/// Settings of `bench compare`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The --out directory of the run before
    #[arg(value_name = "BEFORE")]
    before: PathBuf,
    /// The --out directory of the run after
    #[arg(value_name = "AFTER")]
    after: PathBuf,
    /// How probable a difference must at most be if nothing had changed, to be called a change
    #[arg(long, value_name = "P", default_value_t = 0.05, value_parser = probability)]
    alpha: f64,
    /// Show what did not change too
    #[arg(long)]
    all: bool,
}

fn probability(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|p| *p > 0.0 && *p < 1.0)
        .ok_or_else(|| "give a number between 0 and 1, such as 0.05".into())
}

/// What is compared, and whether more of it is better.
const VALUES: [(&str, bool); 8] = [
    ("rate", true),
    ("server_rate", true),
    ("p50_us", false),
    ("p99_us", false),
    ("trimmed_mean_us", false),
    ("cpu_us", false),
    ("resident", false),
    ("per_op_us", false),
];

/// Runs it.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (before, after) = (Store::existing(&args.before), Store::existing(&args.after));
    let (was, is) = (before.run()?, after.run()?);
    anyhow::ensure!(
        was.experiment == is.experiment,
        "{} is of `bench {}`, {} of `bench {}`: compare two of one",
        args.before.display(),
        was.experiment,
        args.after.display(),
        is.experiment
    );
    println!("before: {}\nafter:  {}", was.machine.words(), is.machine.words());
    if was.settings != is.settings {
        println!("the settings differ: {} and {}", was.settings, is.settings);
    }
    print!("{}", compared(&before.points()?, &after.points()?, args.alpha, args.all));
    Ok(())
}

/// What there is to say of one number of one point.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    /// Nobody can tell with so few rounds.
    TooFew,
    /// Within the noise.
    Same,
    /// Better.
    Better,
    /// Worse.
    Worse,
}

fn compared(before: &[Point], after: &[Point], alpha: f64, all: bool) -> String {
    let mut text = String::new();
    let (mut tests, mut few) = (0, BTreeSet::new());
    for (value, more_is_better) in VALUES {
        let (was, is) = (rounds(before, value), rounds(after, value));
        for (name, was) in &was {
            let Some(is) = is.get(name) else { continue };
            tests += 1;
            let (p, change) = (mann_whitney(was, is), median(is) / median(was) - 1.0);
            let verdict = judge(was.len(), is.len(), p, alpha, (change > 0.0) == more_is_better);
            let word = match verdict {
                Verdict::TooFew => {
                    few.insert(*name);
                    "?"
                }
                Verdict::Same if all => "same",
                Verdict::Same => continue,
                Verdict::Better => "better",
                Verdict::Worse => "WORSE",
            };
            let _ = writeln!(
                text,
                "{name:<34} {value:<16} {:>12.1} → {:>12.1} {:>+7.1} %  p {p:.3}  {word}",
                median(was),
                median(is),
                change * 100.0
            );
        }
    }
    if tests == 0 {
        return "no point is in both: compare runs of the same points\n".to_owned();
    }
    let chance = alpha * 100.0;
    let _ = writeln!(
        text,
        "{tests} comparisons; of each 100 that differ by nothing, {chance:.0} are called a change by chance"
    );
    if !few.is_empty() {
        let _ =
            writeln!(text, "?: too few rounds in {} points to tell at p {alpha}: measure with --rounds 5", few.len());
    }
    text
}

fn judge(before: usize, after: usize, p: f64, alpha: f64, better: bool) -> Verdict {
    if least_p(before, after) > alpha {
        Verdict::TooFew
    } else if p > alpha {
        Verdict::Same
    } else if better {
        Verdict::Better
    } else {
        Verdict::Worse
    }
}

/// The p of two samples of which one lies wholly above the other.
fn least_p(n: usize, m: usize) -> f64 {
    (2.0 / arrangements(n, m).iter().sum::<f64>()).min(1.0)
}

/// How probable it is that two samples are ordered at least so unevenly if they are from one distribution.
fn mann_whitney(one: &[f64], other: &[f64]) -> f64 {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (a, b)));
    // Equal ones count by half to either side.
    let u: f64 = pairs.map(|(a, b)| if a < b { 1.0 } else { f64::from(u8::from(a == b)) * 0.5 }).sum();
    let smaller = u.min((one.len() * other.len()) as f64 - u);
    let counts = arrangements(one.len(), other.len());
    let total: f64 = counts.iter().sum();
    let uneven: f64 = counts.iter().take(smaller.floor() as usize + 1).sum();
    (2.0 * uneven / total).min(1.0)
}

/// Of how many orders of n and m values is U = 0, 1, …, nm: the coefficients of the Gaussian binomial.
fn arrangements(n: usize, m: usize) -> Vec<f64> {
    let mut counts = vec![0.0; n * m + 1];
    counts[0] = 1.0;
    // Times (1 - q^(m+i)), divided by (1 - q^i), for i from 1 to n.
    for i in 1..=n {
        for u in (m + i..=n * m).rev() {
            counts[u] -= counts[u - m - i];
        }
        for u in i..=n * m {
            counts[u] += counts[u - i];
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::point;

    #[test]
    fn orders_are_counted_as_in_the_tables() {
        assert_eq!(arrangements(2, 2), [1.0, 1.0, 2.0, 1.0, 1.0]);
        assert_eq!(arrangements(3, 3).iter().sum::<f64>(), 20.0);
        assert_eq!(arrangements(5, 5).iter().sum::<f64>(), 252.0);
        assert!((least_p(4, 4) - 2.0 / 70.0).abs() < 1e-12);
    }

    #[test]
    fn the_test_gives_the_values_of_the_tables() {
        let low = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert!((mann_whitney(&low, &[6.0, 7.0, 8.0, 9.0, 10.0]) - 2.0 / 252.0).abs() < 1e-12);
        // U = 2 of 5 and 5: the critical value for 0.05.
        let p = mann_whitney(&[1.0, 2.0, 3.0, 4.0, 7.0], &[5.0, 6.0, 8.0, 9.0, 10.0]);
        assert!((p - 8.0 / 252.0).abs() < 1e-12, "{p}");
        assert_eq!(mann_whitney(&low, &low), 1.0);
    }

    fn points(name: &str, rates: &[f64]) -> Vec<Point> {
        rates.iter().enumerate().map(|(index, rate)| point(name, index as u32 + 1, *rate)).collect()
    }

    #[test]
    fn a_change_is_told_from_noise() {
        let was = points("a", &[100.0, 104.0, 98.0, 101.0, 99.0]);
        let noise = compared(&was, &points("a", &[103.0, 97.0, 102.0, 100.5, 99.5]), 0.05, true);
        assert!(noise.contains("same") && !noise.contains("better"), "{noise}");
        let faster = compared(&was, &points("a", &[110.0, 112.0, 108.0, 111.0, 109.0]), 0.05, false);
        assert!(faster.contains("+10.0 %") && faster.contains("better"), "{faster}");
        let slower = compared(&was, &points("a", &[90.0, 92.0, 88.0, 91.0, 89.0]), 0.05, false);
        assert!(slower.contains("WORSE"), "{slower}");
    }

    #[test]
    fn with_few_rounds_nothing_is_claimed() {
        let text = compared(&points("a", &[1.0, 2.0, 3.0]), &points("a", &[10.0, 11.0, 12.0]), 0.05, false);
        assert!(text.contains("p 0.100  ?") && text.contains("--rounds 5"), "{text}");
        assert!(compared(&points("a", &[1.0]), &points("b", &[1.0]), 0.05, false).contains("no point is in both"));
    }
}
