//! The paper's conclusions, held against what was measured, in words.

use std::collections::BTreeMap;

/// Two throughputs or latencies that differ by less are alike.
const ALIKE: f64 = 0.10;
/// Units.
const THROUGHPUT: &str = "requests/s";
const LATENCY: &str = "µs";

/// A number (throughput or latency) by the scenario's parameter and the number of clients.
pub(super) type Grid = BTreeMap<(u32, u32), f64>;

/// One conclusion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conclusion {
    /// What the paper says.
    pub(super) claim: &'static str,
    /// Whether it is so here; `None`: it does not show.
    pub(super) holds: Option<bool>,
    /// What was measured.
    pub(super) measured: String,
}

impl Conclusion {
    /// In a sentence.
    pub(super) fn words(&self) -> String {
        let verdict = match self.holds {
            Some(true) => "holds",
            Some(false) => "DOES NOT HOLD",
            None => "does not show here",
        };
        format!("{}: {verdict}. {}", self.claim, self.measured)
    }
}

/// All of them: scenario 1 varies the SMaRtClients, scenario 2 the servers.
pub(super) fn all(throughput: [&Grid; 2], latency: [&Grid; 2]) -> Vec<Conclusion> {
    let mut all = Vec::new();
    let [first, second] = throughput;
    if !first.is_empty() {
        all.push(tier("Throughput grows with the SMaRtClients until their tier is no bottleneck", first, true));
        all.push(saturation("Throughput grows with the clients and saturates", first));
        all.push(tier("Latency falls with the SMaRtClients until their tier is no bottleneck", latency[0], false));
        all.push(trend("Latency grows with the clients", &by_clients(latency[0]), true, LATENCY));
    }
    if !second.is_empty() {
        all.push(trend("Throughput falls with the servers", &at_most_clients(second), false, THROUGHPUT));
        all.push(trend("Latency grows with the servers", &at_most_clients(latency[1]), true, LATENCY));
    }
    all
}

/// By the parameter, at the highest number of clients.
fn at_most_clients(grid: &Grid) -> Vec<(u32, f64)> {
    let most = grid.keys().map(|(_, clients)| *clients).max().unwrap_or(0);
    grid.iter()
        .filter(|((_, clients), _)| *clients == most)
        .map(|((parameter, _), value)| (*parameter, *value))
        .collect()
}

/// By the number of clients, at the highest parameter.
fn by_clients(grid: &Grid) -> Vec<(u32, f64)> {
    let most = grid.keys().map(|(parameter, _)| *parameter).max().unwrap_or(0);
    grid.iter()
        .filter(|((parameter, _), _)| *parameter == most)
        .map(|((_, clients), value)| (*clients, *value))
        .collect()
}

/// Whether a tier of one is slower than the best one.
fn tier(claim: &'static str, grid: &Grid, more_is_better: bool) -> Conclusion {
    let values = at_most_clients(grid);
    let better = |one: f64, other: f64| if more_is_better { one / other } else { other / one };
    let best = values.iter().copied().reduce(|best, next| if better(next.1, best.1) > 1.0 { next } else { best });
    let (Some((least, first)), Some((_, best))) = (values.first().copied(), best) else {
        return Conclusion { claim, holds: None, measured: "Nothing was measured.".to_owned() };
    };
    let gain = better(best, first) - 1.0;
    let unit = if more_is_better { THROUGHPUT } else { LATENCY };
    let last = values.last().map_or(first, |(_, value)| *value);
    let enough =
        values.iter().find(|(_, value)| better(best, *value) < 1.0 + ALIKE).map_or(least, |(enough, _)| *enough);
    let measured = if gain < ALIKE {
        format!(
            "With the most clients {least} is within {:.0} % of the best number, and the highest number changes it by {:+.0} % \
             ({}): one is no bottleneck on this machine.",
            gain * 100.0,
            (last / first - 1.0) * 100.0,
            series(&values, unit)
        )
    } else {
        format!("With the most clients ({}): from {enough} on it is within 10 % of the best.", series(&values, unit))
    };
    Conclusion { claim, holds: if gain < ALIKE { None } else { Some(true) }, measured }
}

/// Whether it grows much at first and little at last.
fn saturation(claim: &'static str, grid: &Grid) -> Conclusion {
    let values = by_clients(grid);
    let (Some(first), Some(last)) = (values.first(), values.last()) else {
        return Conclusion { claim, holds: None, measured: "Nothing was measured.".to_owned() };
    };
    let before = values.len().checked_sub(2).and_then(|index| values.get(index)).unwrap_or(first);
    let (whole, end) = (last.1 / first.1 - 1.0, last.1 / before.1 - 1.0);
    // Clients double from one point to the next: what does not saturate doubles as well.
    let holds = whole > ALIKE && end < 0.5;
    let measured = format!(
        "From {} to {} clients by {:.0} %, of which the last doubling is {:.0} % ({}).",
        first.0,
        last.0,
        whole * 100.0,
        end * 100.0,
        series(&values, THROUGHPUT)
    );
    Conclusion { claim, holds: Some(holds), measured }
}

/// Whether it goes one way from the first to the last, but for what is alike.
fn trend(claim: &'static str, values: &[(u32, f64)], grows: bool, unit: &str) -> Conclusion {
    let (Some(first), Some(last)) = (values.first(), values.last()) else {
        return Conclusion { claim, holds: None, measured: "Nothing was measured.".to_owned() };
    };
    let along = |from: f64, to: f64| if grows { to / from } else { from / to };
    let whole = along(first.1, last.1) > 1.0 + ALIKE;
    let steps = values.windows(2).all(|pair| along(pair[0].1, pair[1].1) > 1.0 - ALIKE);
    let change = (last.1 / first.1 - 1.0) * 100.0;
    let measured = format!("From {} to {}: {change:+.0} % ({}).", first.0, last.0, series(values, unit));
    let holds = if values.len() < 2 { None } else { Some(whole && steps) };
    Conclusion { claim, holds, measured }
}

fn series(values: &[(u32, f64)], unit: &str) -> String {
    let each: Vec<String> = values.iter().map(|(parameter, value)| format!("{parameter}: {value:.0}")).collect();
    format!("{} {unit}", each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (parameter, clients) to a value, for two numbers of clients.
    fn grid(values: &[(u32, f64, f64)]) -> Grid {
        values.iter().flat_map(|(parameter, few, many)| [((*parameter, 1), *few), ((*parameter, 64), *many)]).collect()
    }

    fn verdicts(throughput: [&Grid; 2], latency: [&Grid; 2]) -> Vec<Option<bool>> {
        all(throughput, latency).into_iter().map(|conclusion| conclusion.holds).collect()
    }

    #[test]
    fn what_the_paper_saw_holds() {
        let throughput = [
            grid(&[(1, 500.0, 700.0), (4, 600.0, 850.0)]),
            grid(&[(3, 500.0, 900.0), (5, 400.0, 600.0), (11, 200.0, 300.0)]),
        ];
        let latency =
            [grid(&[(1, 2.0, 100.0), (4, 2.0, 70.0)]), grid(&[(3, 2.0, 70.0), (5, 3.0, 100.0), (11, 5.0, 200.0)])];
        let holds = verdicts([&throughput[0], &throughput[1]], [&latency[0], &latency[1]]);
        assert_eq!(holds, [Some(true); 6]);
    }

    #[test]
    fn what_is_otherwise_here_is_said() {
        let flat = grid(&[(1, 500.0, 1000.0), (4, 500.0, 1020.0)]);
        let up = grid(&[(3, 500.0, 600.0), (11, 500.0, 900.0)]);
        let holds = verdicts([&flat, &up], [&flat, &up]);
        assert_eq!(holds[0], None, "one SMaRtClient is enough");
        assert_eq!(holds[1], Some(false), "it still doubles at the end");
        assert_eq!(holds[4], Some(false), "it grows with the servers");
        let words = all([&flat, &up], [&flat, &up]).into_iter().map(|one| one.words()).collect::<Vec<_>>();
        assert!(words[0].contains("does not show here") && words[0].contains("no bottleneck"), "{}", words[0]);
        assert!(words[4].contains("DOES NOT HOLD") && words[4].contains("+50 %"), "{}", words[4]);
    }

    #[test]
    fn where_nothing_was_measured_nothing_is_concluded() {
        let none = Grid::new();
        assert_eq!(all([&none, &none], [&none, &none]), []);
    }
}
