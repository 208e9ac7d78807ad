//! The page: the paper's Figures 3 to 6, a table, and the conclusions.

use super::conclude::{self, Grid};
use super::{Scenario, place};
use crate::plot::{Chart, Line, Page};
use crate::results::{Point, Run, median, rounds};
use std::collections::{BTreeMap, BTreeSet};

/// What is drawn.
pub(super) struct Drawn {
    pub(super) html: String,
    /// Each figure by itself: its number in the paper, and its SVG.
    pub(super) figures: Vec<(u32, String)>,
    /// For the terminal too.
    pub(super) conclusions: Vec<String>,
}

/// Draws it all, and says what is concluded.
pub(super) fn draw(run: &Run, points: &[Point]) -> anyhow::Result<Drawn> {
    let mut page = Page::new("The paper's experiments, measured again");
    page.paragraph(&run.machine.words());
    page.paragraph(&format!(
        "PUT, GET, REMOVE and SIZE in equal parts on the hashmap, a connection for each request, settings {}. Throughput is \
         sampled at the leader every 5,000 requests; latency is the mean of each client's requests without the 5 % that \
         deviate most. Each value is the median of its rounds. Everything runs on one machine, the clients included.",
        run.settings
    ));
    let grid = |scenario, value| grid(points, scenario, value);
    let mut figure = 3;
    let mut figures = Vec::new();
    let (mut throughput, mut latency) = (Vec::new(), Vec::new());
    for scenario in Scenario::ALL {
        throughput.push(grid(scenario, "server_rate"));
        latency.push(grid(scenario, "trimmed_mean_us"));
        let values = [(&throughput, "Throughput", "requests/s", 1.0), (&latency, "Latency", "ms", 1e-3)];
        for (grids, what, unit, scale) in values {
            let Some(grid) = grids.last().filter(|grid| !grid.is_empty()) else { continue };
            let chart = chart(&format!("Figure {figure}: {what}, {}", scenario.words()), unit, scale, scenario, grid);
            let svg = chart.svg()?;
            page.figure(&svg);
            figures.push((figure, svg));
            figure += 1;
        }
        figure = 5;
    }
    let conclusions = conclude::all([&throughput[0], &throughput[1]], [&latency[0], &latency[1]]);
    let conclusions: Vec<String> = conclusions.iter().map(conclude::Conclusion::words).collect();
    page.heading("The paper's conclusions");
    page.list(&conclusions);
    page.heading("All points");
    page.table(
        &[
            "point",
            "rounds",
            "requests/s at the leader",
            "at the clients",
            "mean ms, trimmed",
            "p50 ms",
            "p99 ms",
            "failed",
        ],
        &rows(points),
    );
    Ok(Drawn { html: page.finish(), figures, conclusions })
}

/// The medians of a number of one scenario.
fn grid(points: &[Point], scenario: Scenario, value: &str) -> Grid {
    let of = |(name, values): (&str, Vec<f64>)| {
        let (found, parameter, clients) = place(name)?;
        (found == scenario).then(|| ((parameter, clients), median(&values)))
    };
    rounds(points, value).into_iter().filter_map(of).collect()
}

fn chart(title: &str, unit: &str, scale: f64, scenario: Scenario, grid: &Grid) -> Chart {
    let clients: Vec<u32> = grid.keys().map(|(_, clients)| *clients).collect::<BTreeSet<_>>().into_iter().collect();
    let mut lines: BTreeMap<u32, Vec<(f64, f64)>> = BTreeMap::new();
    for ((parameter, of), value) in grid {
        let at = clients.iter().position(|clients| clients == of).unwrap_or(0);
        lines.entry(*parameter).or_default().push((at as f64, value * scale));
    }
    Chart {
        title: title.to_owned(),
        x: "clients".to_owned(),
        y: unit.to_owned(),
        ticks: clients.iter().map(u32::to_string).collect(),
        lines: lines
            .into_iter()
            .map(|(parameter, points)| Line { name: format!("{parameter} {}", scenario.parameter()), points })
            .collect(),
    }
}

fn rows(points: &[Point]) -> Vec<Vec<String>> {
    let columns: Vec<_> = [
        ("server_rate", 1.0, 0),
        ("rate", 1.0, 0),
        ("trimmed_mean_us", 1e-3, 2),
        ("p50_us", 1e-3, 2),
        ("p99_us", 1e-3, 2),
        ("failed", 1.0, 0),
    ]
    .into_iter()
    .map(|(value, scale, places)| (rounds(points, value), scale, places))
    .collect();
    let row = |name: &str, count: usize| {
        let cells = columns.iter().map(|(of, scale, places)| {
            let value = of.get(name).map_or(f64::NAN, |values| median(values));
            format!("{:.*}", *places, value * scale)
        });
        [name.to_owned(), count.to_string()].into_iter().chain(cells).collect()
    };
    rounds(points, "rate").into_iter().map(|(name, values)| row(name, values.len())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    #[test]
    fn the_page_has_four_figures_a_table_and_the_conclusions() {
        let mut points = Vec::new();
        for scenario in Scenario::ALL {
            for parameter in [1, 4] {
                for clients in [1, 2, 64] {
                    let rate = f64::from(parameter * 100 + clients);
                    let values = [
                        ("rate", rate),
                        ("server_rate", rate),
                        ("trimmed_mean_us", 1e6 / rate),
                        ("p50_us", 1e6 / rate),
                    ];
                    let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                    points.push(Point::new(&scenario.point(parameter, clients), 1, values, serde_json::Value::Null));
                }
            }
        }
        let run = Run {
            experiment: "paper".into(),
            settings: serde_json::json!({ "durability": "memory" }),
            machine: Machine::this(),
            versions: BTreeMap::new(),
        };
        let Drawn { html, figures, conclusions } = draw(&run, &points).expect("there are points");
        for figure in 3..=6 {
            assert!(html.contains(&format!("Figure {figure}: ")), "{figure}");
        }
        assert_eq!(html.matches("<svg").count(), 4);
        assert_eq!(figures.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert!(figures.iter().all(|(number, svg)| {
            svg.starts_with("<svg") && svg.contains("xmlns=") && svg.contains(&format!("Figure {number}: "))
        }));
        assert_eq!(conclusions.len(), 6);
        assert!(html.contains("4 SMaRtClients") && html.contains("4 servers"));
        // A row for each point, and the heading.
        assert_eq!(html.matches("<tr>").count(), 13);
    }
}
