//! What was measured, kept in a directory: what it was measured with, and each finished point in a file of its own, written
//! whole. So a long run that was ended goes on with what is missing.

use crate::machine::Machine;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Describes the run.
const RUN: &str = "run.json";
/// Holds the points.
const POINTS: &str = "points";

/// What a run measures, and with what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The experiment.
    pub(crate) experiment: String,
    /// Its settings: only points of the same ones belong together.
    pub(crate) settings: serde_json::Value,
    /// Where.
    pub(crate) machine: Machine,
    /// Versions of the other programs, by name.
    pub(crate) versions: BTreeMap<String, String>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// What was measured: unique in a run, but for the round.
    pub(crate) name: String,
    /// The how-manieth time, from 1.
    pub(crate) round: u32,
    /// Seconds since 1970, at its end.
    pub(crate) at: u64,
    /// The numbers, by name; the unit is in the name.
    pub(crate) values: BTreeMap<String, f64>,
    /// More, for whoever wants to know.
    pub(crate) detail: serde_json::Value,
}

impl Point {
    /// Measured now.
    pub(crate) fn new(name: &str, round: u32, values: BTreeMap<String, f64>, detail: serde_json::Value) -> Self {
        let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { name: name.to_owned(), round, at, values, detail }
    }

    /// One of the numbers.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }
}

/// The directory of one run.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    /// Begins, or goes on with what is there.
    ///
    /// # Errors
    /// What is there was measured with other settings, by another build or on another machine.
    pub(crate) fn open(dir: &Path, run: &Run) -> anyhow::Result<Self> {
        let store = Self { dir: dir.to_owned() };
        std::fs::create_dir_all(dir.join(POINTS)).with_context(|| format!("cannot make {}", dir.display()))?;
        match store.run() {
            Ok(found) => {
                let what = if found.experiment != run.experiment || found.settings != run.settings {
                    "with other settings"
                } else if found.machine != run.machine {
                    "by another build or on another machine"
                } else {
                    return Ok(store);
                };
                anyhow::bail!("{} was measured {what}: give another --out, or remove it", dir.display())
            }
            Err(_) => write(&dir.join(RUN), &serde_json::to_vec_pretty(run)?)?,
        }
        Ok(store)
    }

    /// What is kept in a directory.
    pub(crate) fn existing(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Its description.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn run(&self) -> anyhow::Result<Run> {
        let path = self.dir.join(RUN);
        let text =
            std::fs::read(&path).with_context(|| format!("{}: give the --out directory of a run", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no description of a run", path.display()))
    }

    /// The point, if it is finished.
    pub(crate) fn point(&self, name: &str, round: u32) -> Option<Point> {
        serde_json::from_slice(&std::fs::read(self.path(name, round)).ok()?).ok()
    }

    /// Keeps a point.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn keep(&self, point: &Point) -> anyhow::Result<()> {
        write(&self.path(&point.name, point.round), &serde_json::to_vec_pretty(point)?)
    }

    /// Every finished point, by name and round.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn points(&self) -> anyhow::Result<Vec<Point>> {
        let dir = self.dir.join(POINTS);
        let mut points = Vec::new();
        for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let point: Point = serde_json::from_slice(&std::fs::read(&path)?)
                    .with_context(|| format!("{} is no point: remove it", path.display()))?;
                points.push(point);
            }
        }
        points.sort_by(|one, other| (&one.name, one.round).cmp(&(&other.name, other.round)));
        Ok(points)
    }

    /// Keeps a file beside the points.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn file(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.join(name);
        write(&path, text.as_bytes())?;
        Ok(path)
    }

    fn path(&self, name: &str, round: u32) -> PathBuf {
        self.dir.join(POINTS).join(format!("{name}.r{round}.json"))
    }
}

/// Whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let next = path.with_extension("new");
    std::fs::write(&next, bytes)
        .and_then(|()| std::fs::rename(&next, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => f64::NAN,
        (count, half) if count % 2 == 0 => f64::midpoint(values[half - 1], values[half]),
        (_, half) => values[half],
    }
}

/// A number over all rounds of each point, by the point's name.
pub(crate) fn rounds<'a>(points: &'a [Point], value: &str) -> BTreeMap<&'a str, Vec<f64>> {
    let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for point in points {
        if let Some(value) = point.value(value) {
            all.entry(&point.name).or_default().push(value);
        }
    }
    all
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A directory of its own for a test, removed at its end.
    pub(crate) struct Dir(pub(crate) PathBuf);

    impl Dir {
        pub(crate) fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("lockstep-bench-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("the temporary directory can be written");
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn run(settings: u32) -> Run {
        Run { experiment: "x".into(), settings: settings.into(), machine: Machine::this(), versions: BTreeMap::new() }
    }

    pub(crate) fn point(name: &str, round: u32, rate: f64) -> Point {
        Point::new(name, round, BTreeMap::from([("rate".to_owned(), rate)]), serde_json::Value::Null)
    }

    #[test]
    fn a_run_goes_on_with_what_is_missing() {
        let dir = Dir::new("resume");
        let store = Store::open(&dir.0, &run(1)).expect("it is new");
        store.keep(&point("a-1c", 1, 5.0)).expect("it can be written");
        // Cut off in the middle: as if it had never been.
        std::fs::write(dir.0.join("points/a-1c.r2.new"), "{").expect("it can be written");
        let again = Store::open(&dir.0, &run(1)).expect("the same settings");
        assert_eq!(again.point("a-1c", 1).and_then(|point| point.value("rate")), Some(5.0));
        assert_eq!(again.point("a-1c", 2), None);
        assert_eq!(again.points().expect("they can be read").len(), 1);
    }

    #[test]
    fn what_was_measured_with_other_settings_is_left_alone() {
        let dir = Dir::new("settings");
        Store::open(&dir.0, &run(1)).expect("it is new");
        let error = Store::open(&dir.0, &run(2)).expect_err("other settings").to_string();
        assert!(error.contains("other settings") && error.contains("--out"), "{error}");
        let mut other = run(1);
        other.machine.lockstep = "another build".into();
        let error = Store::open(&dir.0, &other).expect_err("another build").to_string();
        assert!(error.contains("another build"), "{error}");
    }

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!([median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0])], [2.0, 2.5]);
        assert!(median(&[]).is_nan());
        let points = [point("a", 1, 1.0), point("a", 2, 3.0), point("b", 1, 7.0)];
        assert_eq!(rounds(&points, "rate"), BTreeMap::from([("a", vec![1.0, 3.0]), ("b", vec![7.0])]));
    }
}
