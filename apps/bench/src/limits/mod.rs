//! `bench limits`: the best that this machine can do for the shape of our work: each number bounds what a cluster on it could
//! reach, whatever its code.

mod crypto;
mod disk;
mod echo;
mod lossy;
mod quic;
mod quorum;

use crate::args::{Format, seconds};
use crate::generator::Latencies;
use crate::machine::{Machine, is_in_memory};
use crate::procfs::Host;
use crate::progress::Progress;
use crate::results::{Point, Run, Store, median, rounds};
use crate::stop;
use quorum::Links;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Settings of `bench limits`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where results are kept, and where syncs are tried; what is finished there already is not measured again
    #[arg(long, value_name = "DIR", default_value = "bench-limits")]
    out: PathBuf,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each network shape is measured, in seconds
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// What to print on stdout at the end
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// What was measured of one thing.
#[derive(Clone, Debug)]
struct Number {
    name: String,
    values: BTreeMap<String, f64>,
}

impl Number {
    fn new<const N: usize>(name: &str, values: [(&str, f64); N]) -> Self {
        Self {
            name: name.to_owned(),
            values: values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }
}

fn latencies() -> Latencies {
    Latencies::new()
}

/// What is measured at once.
#[derive(Clone, Copy, Debug)]
enum Part {
    Crypto,
    Disk,
    /// With so many requests in flight.
    Quic(usize),
    /// With so many requests in flight, synced or not, over such links.
    Quorum(usize, bool, Links),
}

impl Part {
    const ALL: [Self; 11] = [
        Self::Crypto,
        Self::Disk,
        Self::Quic(1),
        Self::Quic(64),
        Self::Quorum(1, false, Links::PLAIN),
        Self::Quorum(64, false, Links::PLAIN),
        Self::Quorum(1, true, Links::PLAIN),
        Self::Quorum(64, true, Links::PLAIN),
        Self::Quorum(64, false, Links { lossy: false, ordered: true }),
        Self::Quorum(64, false, Links { lossy: true, ordered: false }),
        Self::Quorum(64, false, Links { lossy: true, ordered: true }),
    ];

    fn name(self) -> String {
        match self {
            Self::Crypto => "crypto".to_owned(),
            Self::Disk => "disk".to_owned(),
            Self::Quic(flight) => format!("quic-stream-{flight}"),
            Self::Quorum(flight, synced, Links { lossy, ordered }) => {
                let (lossy, ordered) = (if lossy { "-lossy" } else { "" }, if ordered { "-ordered" } else { "" });
                format!("quorum-{}-{flight}{lossy}{ordered}", if synced { "fdatasync" } else { "memory" })
            }
        }
    }

    fn measure(self, dir: &Path, time: Duration) -> anyhow::Result<Vec<Number>> {
        match self {
            Self::Crypto => crypto::measure(),
            Self::Disk => disk::measure(dir),
            Self::Quic(flight) => Ok(vec![echo::one_server(&self.name(), flight, time)?]),
            Self::Quorum(flight, synced, links) => {
                Ok(vec![echo::three_servers(&self.name(), flight, time, synced.then_some(dir), links)?])
            }
        }
    }
}

/// Runs it.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let run = Run {
        experiment: "limits".to_owned(),
        settings: serde_json::json!({ "seconds": args.seconds }),
        machine: Machine::this(),
        versions: BTreeMap::new(),
    };
    let store = Store::open(&args.out, &run)?;
    if is_in_memory(&args.out) {
        eprintln!("{} is in memory, where a sync costs nothing: give an --out on a disk", args.out.display());
    }
    let mut progress = Progress::new(Part::ALL.len() * args.rounds as usize);
    for round in 1..=args.rounds {
        for part in Part::ALL {
            stop::check()?;
            // A part with several numbers is finished when its mark is there, which comes last.
            let mark = format!("part-{}", part.name());
            if store.point(&mark, round).is_some() {
                progress.skip();
                continue;
            }
            progress.begin(&format!("round {round}, {}", part.name()));
            let before = Host::now();
            let numbers = part.measure(&args.out, Duration::from_secs_f64(args.seconds))?;
            let busy = Host::now().busy_since(before);
            for mut number in numbers {
                number.values.insert("host_busy".to_owned(), busy);
                store.keep(&Point::new(&number.name, round, number.values, serde_json::Value::Null))?;
            }
            store.keep(&Point::new(&mark, round, BTreeMap::new(), serde_json::Value::Null))?;
            progress.done();
        }
    }
    progress.end();
    let (run, points) = (store.run()?, store.points()?);
    let text = table(&run, &points);
    store.file("table.txt", &text)?;
    match args.output {
        Format::Text => print!("{text}"),
        Format::Json => println!("{}", serde_json::json!({ "run": run, "points": points })),
    }
    Ok(())
}

fn table(run: &Run, points: &[Point]) -> String {
    let mut text = format!("{}\nmedians of the rounds\n\n", run.machine.words());
    let _ = writeln!(
        text,
        "{:<28} {:>12} {:>10} {:>10} {:>10} {:>10} {:>6}",
        "", "a second", "p50 µs", "p99 µs", "CPU µs", "each µs", "busy"
    );
    let names: BTreeSet<&str> =
        points.iter().filter(|point| !point.values.is_empty()).map(|point| point.name.as_str()).collect();
    let columns = ["rate", "p50_us", "p99_us", "cpu_us", "per_op_us", "host_busy"].map(|value| rounds(points, value));
    for name in names {
        let cell = |index: usize, width: usize, places: usize| match columns[index].get(name) {
            Some(values) => format!("{:>width$.places$}", median(values)),
            None => " ".repeat(width),
        };
        let busy = columns[5].get(name).map_or(String::new(), |values| format!("{:>5.0}%", median(values) * 100.0));
        let cells = [cell(0, 12, 0), cell(1, 10, 1), cell(2, 10, 1), cell(3, 10, 1), cell(4, 10, 3), busy];
        let line = format!("{name:<28} {}", cells.join(" "));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text.push_str(
        "\nquic-stream-N: N requests of 100 bytes in flight, each on a stream of its own, mutual TLS, echoed\n\
         quorum-…-N: each request to three servers; the leader proposes, all accept to all, each answers when two have it;\n\
         \x20           the client waits for two answers; fdatasync: what is accepted is on the disk first\n\
         …-lossy: one packet of a hundred between the leader and each follower is lost, either way;\n\
         …-ordered: the servers' messages travel on one stream a link, instead of each on its own\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_and_hashes_have_a_price() {
        let all = crypto::measure().expect("keys can be made");
        assert_eq!(all.len(), 5);
        assert!(all.iter().all(|number| number.values["per_op_us"] > 0.0), "{all:?}");
    }

    #[test]
    fn one_server_echoes_and_three_agree() {
        let time = Duration::from_millis(300);
        let one = echo::one_server("one", 4, time).expect("loopback works");
        assert!(one.values["rate"] > 10.0, "{one:?}");
        let three = echo::three_servers("three", 4, time, None, Links::PLAIN).expect("loopback works");
        assert!(three.values["rate"] > 10.0, "{three:?}");
        let dir = crate::results::tests::Dir::new("limits");
        let synced = echo::three_servers("synced", 4, time, Some(&dir.0), Links::PLAIN).expect("loopback works");
        assert!(synced.values["rate"] > 1.0, "{synced:?}");
        let bad = Links { lossy: true, ordered: true };
        let lossy = echo::three_servers("lossy", 4, time, None, bad).expect("loopback works");
        assert!(lossy.values["rate"] > 1.0, "{lossy:?}");
    }

    #[test]
    fn what_has_no_value_leaves_its_column_empty() {
        let run = Run {
            experiment: "limits".into(),
            settings: 1.into(),
            machine: Machine::this(),
            versions: BTreeMap::new(),
        };
        let number = Number::new("blake3-100B", [("rate", 1e6), ("per_op_us", 1.0)]);
        let points = [
            Point::new(&number.name, 1, number.values, serde_json::Value::Null),
            Point::new("part-crypto", 1, BTreeMap::new(), serde_json::Value::Null),
        ];
        let text = table(&run, &points);
        assert!(text.contains("blake3-100B                       1000000") && !text.contains("part-"), "{text}");
    }
}
