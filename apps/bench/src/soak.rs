//! `bench soak`: a cluster under a fixed rate for hours, looked at once a window: what grows with the time shows in a chart.

use crate::args::{Shape, duration};
use crate::cluster::Cluster;
use crate::generator;
use crate::machine::Machine;
use crate::peers::values;
use crate::plot::{Chart, Line, Page};
use crate::procfs::Host;
use crate::progress::Progress;
use crate::results::{Point, Run, Store};
use crate::stop;
use anyhow::Context;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of each point; the window's number is its round.
const WINDOW: &str = "window";
/// Of memory in a point's values, before the role.
const RESIDENT: &str = "resident: ";
/// Requests a second, where nobody says how many.
const RATE: f64 = 1_000.0;

/// Settings of `bench soak`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where results, the page and the cluster's data are kept
    #[arg(long, value_name = "DIR", default_value = "bench-soak")]
    out: PathBuf,
    /// How long all of it lasts
    #[arg(long = "for", value_name = "DURATION", default_value = "4h", value_parser = duration)]
    time: Duration,
    /// Load as for the other commands; --rate is 1000 unless given, --seconds the length of a window: 60 s are good for hours
    #[command(flatten)]
    shape: Shape,
    /// Settings of `lockstep up`, with its COMMAND behind another --
    #[arg(last = true, value_name = "UP")]
    up: Vec<String>,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let rate = args.shape.rate.unwrap_or(RATE);
    let shape = Shape { rate: Some(rate), warmup: 0.0, ..args.shape.clone() };
    let run = Run {
        experiment: "soak".to_owned(),
        settings: serde_json::json!({
            "rate": rate,
            "clients": shape.clients,
            "value_bytes": shape.value_bytes,
            "read_share": shape.read_share,
            "keys": shape.keys,
            "window_seconds": shape.seconds,
            "up": args.up,
        }),
        machine: Machine::this(),
        versions: BTreeMap::new(),
    };
    let store = Store::open(&args.out, &run)?;
    let windows = (args.time.as_secs_f64() / shape.seconds).ceil().max(1.0) as u32;
    let mut progress = Progress::new(windows as usize);
    let first = (1..=windows).find(|window| store.point(WINDOW, *window).is_none());
    (1..first.unwrap_or(windows + 1)).for_each(|_| progress.skip());
    if let Some(first) = first {
        let data = args.out.join("data");
        std::fs::create_dir_all(&data)?;
        let data = data.canonicalize()?.display().to_string();
        let up: Vec<String> = ["--data-dir".to_owned(), data].into_iter().chain(args.up.iter().cloned()).collect();
        let cluster = Cluster::start(&up)?;
        for window in first..=windows {
            progress.begin(&format!("window {window}"));
            // Only the very first one has nothing to read yet.
            store.keep(&stop::thrice(|| measure(&cluster, &shape, window, window == 1))?)?;
            progress.done();
        }
    }
    progress.end();
    let page = draw(&store.run()?, &store.points()?)?;
    println!("{}", store.file("soak.html", &page)?.display());
    Ok(())
}

fn measure(cluster: &Cluster, shape: &Shape, window: u32, first: bool) -> anyhow::Result<Point> {
    let mut spec = shape.spec(vec![cluster.listen()], cluster.protocol());
    spec.fill &= first;
    let (outcome, (before, _), (after, look)) = generator::start(spec)?.finish(|| (Host::now(), cluster.look()))?;
    let disk = disk_bytes(cluster.data_dir()).context("the data directory cannot be read")?;
    let mut values = values(&outcome, [("host_busy", after.busy_since(before)), ("disk", disk as f64)]);
    for (role, usage) in &look.roles {
        values.insert(format!("{RESIDENT}{role}"), usage.resident as f64);
    }
    values.insert("resident".to_owned(), look.roles.values().map(|usage| usage.resident as f64).sum());
    Ok(Point::new(WINDOW, window, values, serde_json::to_value(&outcome)?))
}

/// What all files below take up, as far as they do not vanish meanwhile.
fn disk_bytes(dir: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    /// As the kernel counts them.
    const BLOCK: u64 = 512;
    let mut total = 0;
    for entry in std::fs::read_dir(dir)?.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        total += metadata.blocks() * BLOCK;
        if metadata.is_dir() {
            total += disk_bytes(&entry.path()).unwrap_or(0);
        }
    }
    Ok(total)
}

/// The page: rate, latencies, memory by role, disk, over the hours.
fn draw(run: &Run, points: &[Point]) -> anyhow::Result<String> {
    let begun = points.first().map_or(0, |point| point.at);
    let line = |name: &str, value: &str, scale: f64| Line {
        name: name.to_owned(),
        points: points
            .iter()
            .filter_map(|point| Some(((point.at - begun) as f64 / 3600.0, point.value(value)? * scale)))
            .collect(),
    };
    let chart = |title: &str, y: &str, lines: Vec<Line>| Chart {
        title: title.to_owned(),
        x: "hours".to_owned(),
        y: y.to_owned(),
        ticks: Vec::new(),
        lines,
    };
    let mebi = 1.0 / f64::from(1 << 20);
    let roles: BTreeSet<&str> =
        points.iter().flat_map(|point| point.values.keys()).filter_map(|name| name.strip_prefix(RESIDENT)).collect();
    let memory = roles.into_iter().map(|role| line(role, &format!("{RESIDENT}{role}"), mebi)).collect();
    let latencies = [("p50", "p50_us"), ("p99", "p99_us"), ("p99.9", "p999_us")];
    let latencies = latencies.into_iter().map(|(name, value)| line(name, value, 1e-3)).collect();
    let mut page = Page::new("A long run");
    page.paragraph(&run.machine.words());
    page.paragraph(&run.settings.to_string());
    let failed: f64 = points.iter().filter_map(|point| point.value("failed")).sum();
    page.paragraph(&format!("{} windows, {failed:.0} requests failed.", points.len()));
    page.chart(&chart("Memory, all processes of a role", "MiB", memory))?;
    page.chart(&chart("Disk", "MiB", vec![line("data directory", "disk", mebi)]))?;
    page.chart(&chart("Latency, from when a request was due", "ms", latencies))?;
    page.chart(&chart("Throughput", "requests/s", vec![line("answered", "rate", 1.0)]))?;
    Ok(page.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::Dir;

    #[test]
    fn the_page_shows_each_role_over_the_time() {
        let window = |number: u32, memory: f64| {
            let values = [("rate", 1000.0), ("p50_us", 900.0), ("p99_us", 2000.0), ("p999_us", 3000.0), ("disk", 1e8)];
            let mut values: BTreeMap<String, f64> =
                values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            values.insert(format!("{RESIDENT}ingress"), memory);
            values.insert("failed".into(), 1.0);
            let mut point = Point::new(WINDOW, number, values, serde_json::Value::Null);
            point.at = u64::from(number) * 3600;
            point
        };
        let run =
            Run { experiment: "soak".into(), settings: 1.into(), machine: Machine::this(), versions: BTreeMap::new() };
        let page = draw(&run, &[window(1, 1e7), window(2, 2e7), window(3, 3e7)]).expect("there are points");
        assert_eq!(page.matches("<svg").count(), 4);
        assert!(page.contains("ingress") && page.contains("3 windows, 3 requests failed."));
    }

    #[test]
    fn what_files_take_up_is_summed_over_folders() {
        let dir = Dir::new("disk");
        std::fs::create_dir(dir.0.join("below")).expect("it can be made");
        std::fs::write(dir.0.join("below/file"), vec![1; 100_000]).expect("it can be written");
        let bytes = disk_bytes(&dir.0).expect("it can be read");
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
    }
}
