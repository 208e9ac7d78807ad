//! Runs targets in processes of their own, some at a time, and makes findings of whatever ends one of them.
//!
//! The child writes each input into a file before it runs it. When it panics, aborts, overflows its stack, runs out of
//! memory or hangs, that file has the input.

use super::engine::{self, Run, Until, Watch};
use super::{Meter, Target};
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two lines of a child.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// Bytes of what a child said that are kept: its end.
const SAID_BYTES: usize = 4000;
/// The child's exit codes for what it found itself.
const GREEDY: i32 = 30;
const HUNG: i32 = 31;

/// How to run them.
#[derive(Clone, Debug)]
pub struct Options {
    /// Each for so long.
    pub time: Duration,
    /// And so many inputs.
    pub inputs: u64,
    /// What everything follows from.
    pub seed: u64,
    /// So many at a time.
    pub jobs: usize,
    /// An input that takes longer hangs.
    pub hang: Duration,
    /// Where inputs of findings are put.
    pub findings: PathBuf,
}

/// What came of one target.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Result {
    /// Its name.
    pub target: String,
    /// Inputs that were run.
    pub inputs: u64,
    /// Seconds that it ran.
    pub seconds: f64,
    /// Different things that were reached.
    pub reached: usize,
    /// Inputs that were kept.
    pub kept: usize,
    /// The most that one input allocated, in bytes.
    pub peak_bytes: usize,
    /// The longest that one input took.
    pub slowest_ms: f64,
    /// What was found.
    pub finding: Option<Finding>,
}

/// A property does not hold.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What happened.
    pub what: String,
    /// The input.
    pub file: PathBuf,
    /// How to see it again.
    pub replay: String,
}

/// A child's line: where it is.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Line {
    inputs: u64,
    reached: usize,
    kept: usize,
    peak: usize,
    slowest_ms: f64,
    leaked: bool,
    /// The bytes of an input that allocated more than it may.
    greedy: Option<usize>,
}

impl Line {
    fn of(run: &Run) -> Self {
        Self {
            inputs: run.inputs,
            reached: run.reached,
            kept: run.kept,
            peak: run.peak,
            slowest_ms: run.slowest.as_secs_f64() * 1e3,
            leaked: run.leaked,
            greedy: run.greedy.as_ref().map(|(_, bytes)| *bytes),
        }
    }
}

/// What a child does before and after each input.
struct Child {
    file: File,
    buffer: Vec<u8>,
    told: Instant,
    /// When the input that runs was begun, in ms since the child's start; 0: none runs.
    begun: Arc<AtomicU64>,
    start: Instant,
}

impl Watch for Child {
    fn before(&mut self, input: &[u8]) {
        self.buffer.clear();
        self.buffer.extend_from_slice(&(input.len() as u64).to_le_bytes());
        self.buffer.extend_from_slice(input);
        // Without the file a finding has no input, and is one nevertheless.
        let _ = self.file.write_all_at(&self.buffer, 0);
        self.begun.store((self.start.elapsed().as_millis() as u64).max(1), Ordering::Relaxed);
    }

    fn after(&mut self, run: &Run) {
        self.begun.store(0, Ordering::Relaxed);
        if run.inputs.is_multiple_of(64) && self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            tell(run);
        }
    }
}

fn tell(run: &Run) {
    let line = serde_json::to_string(&Line::of(run)).unwrap_or_default();
    // A parent that is gone does not read.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The child's whole life; returns its exit code.
///
/// # Errors
/// The file for inputs cannot be made.
pub fn child(target: &Target, options: &Options, scratch: &Path, meter: Meter) -> anyhow::Result<i32> {
    let begun = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let (watched, hang) = (Arc::clone(&begun), options.hang);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let since = watched.load(Ordering::Relaxed);
            if since > 0 && start.elapsed().saturating_sub(Duration::from_millis(since)) > hang {
                std::process::exit(HUNG);
            }
        }
    });
    let file = File::create(scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let mut child = Child { file, buffer: Vec::new(), told: start, begun, start };
    let until = Until { inputs: options.inputs, time: options.time };
    let run = engine::fuzz(target, options.seed, until, meter, &mut child);
    tell(&run);
    Ok(if run.greedy.is_some() { GREEDY } else { 0 })
}

/// Runs them all. `progress` is told the names that run and the inputs so far, now and then.
///
/// # Errors
/// A child cannot be started.
pub fn run(targets: &[Target], options: &Options, progress: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Vec<Result>> {
    std::fs::create_dir_all(&options.findings)
        .with_context(|| format!("cannot make {}", options.findings.display()))?;
    let next = AtomicU64::new(0);
    let work = || -> anyhow::Result<Vec<(usize, Result)>> {
        let mut results = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed) as usize;
            let Some(target) = targets.get(at) else { return Ok(results) };
            let result = run_one(target, options, progress)?;
            let verdict = result.finding.as_ref().map_or("ok", |_| "FOUND");
            progress(&format!("{verdict} {}: {} inputs in {:.0} s", result.target, result.inputs, result.seconds));
            results.push((at, result));
        }
    };
    let done: anyhow::Result<Vec<_>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker ended"))?).collect()
    });
    let mut results: Vec<(usize, Result)> = done?.into_iter().flatten().collect();
    results.sort_by_key(|(at, _)| *at);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// One target, for its whole time: a child that has leaked too much is followed by another one.
fn run_one(target: &Target, options: &Options, progress: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Result> {
    let began = Instant::now();
    let mut result = Result { target: target.name.to_owned(), ..Result::default() };
    let mut options = options.clone();
    let time = options.time;
    loop {
        options.time = time.saturating_sub(began.elapsed());
        let before = result.inputs;
        let (line, ended) = spawn(target, &options, &mut |line| {
            let seconds = began.elapsed().as_secs_f64();
            let inputs = before + line.inputs;
            progress(&format!("{}: {inputs} inputs, {} reached, {seconds:.0} s", target.name, line.reached));
        })?;
        result.inputs += line.inputs;
        result.reached = result.reached.max(line.reached);
        result.kept = result.kept.max(line.kept);
        result.peak_bytes = result.peak_bytes.max(line.peak);
        result.slowest_ms = result.slowest_ms.max(line.slowest_ms);
        result.seconds = began.elapsed().as_secs_f64();
        options.inputs = options.inputs.saturating_sub(line.inputs);
        result.finding = ended;
        if result.finding.is_some() || !line.leaked || began.elapsed() >= time || options.inputs == 0 {
            return Ok(result);
        }
        options.seed = options.seed.wrapping_add(1);
    }
}

fn scratch(options: &Options, target: &Target) -> PathBuf {
    options.findings.join(format!(".running-{}-{}", target.name, std::process::id()))
}

/// Runs one child to its end: its last line, and what it found.
fn spawn(target: &Target, options: &Options, each: &mut dyn FnMut(&Line)) -> anyhow::Result<(Line, Option<Finding>)> {
    let scratch = scratch(options, target);
    let program = std::env::current_exe().context("this program has no path")?;
    let mut child = Command::new(program)
        .args(["--child", target.name, "--seed", &options.seed.to_string()])
        .args(["--seconds", &options.time.as_secs_f64().to_string(), "--inputs", &options.inputs.to_string()])
        .args(["--hang-seconds", &options.hang.as_secs_f64().to_string(), "--scratch"])
        .arg(&scratch)
        // An error that takes its backtrace along takes megabytes.
        .env("RUST_LIB_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start a child")?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let said = std::thread::spawn(move || {
        let mut said = Vec::new();
        let _ = stderr.map(|mut stderr| stderr.read_to_end(&mut said));
        let from = said.len().saturating_sub(SAID_BYTES);
        String::from_utf8_lossy(&said[from..]).trim().to_owned()
    });
    let mut last = Line::default();
    for line in stdout.map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(std::io::Result::ok) {
        if let Ok(line) = serde_json::from_str::<Line>(&line) {
            each(&line);
            last = line;
        }
    }
    let status = child.wait().context("the child is lost")?;
    super::remove_scratch(child.id());
    let said = said.join().unwrap_or_default();
    let what = match status.code() {
        Some(0) => None,
        Some(GREEDY) => Some(format!("allocated {} bytes, more than its bound", last.greedy.unwrap_or_default())),
        Some(HUNG) => Some(format!("one input took more than {:?}", options.hang)),
        _ => Some(format!("{status}: {said}")),
    };
    let finding = what.map(|what| keep(target, options, &scratch, what)).transpose()?;
    // There is none where the child could not make it.
    let _ = std::fs::remove_file(&scratch);
    Ok((last, finding))
}

/// Puts the input of a finding where it stays.
fn keep(target: &Target, options: &Options, scratch: &Path, what: String) -> anyhow::Result<Finding> {
    let bytes = std::fs::read(scratch).with_context(|| format!("the input is lost; {what}"))?;
    let (length, rest) = bytes.split_first_chunk::<8>().with_context(|| format!("no input was begun: {what}"))?;
    let length = u64::from_le_bytes(*length) as usize;
    ensure!(length <= rest.len(), "the input is lost; {what}");
    let input = &rest[..length];
    let name = mesh::ids::Digest::of(input).to_string();
    let file = options.findings.join(format!("{}-{}", target.name, &name[..12]));
    std::fs::write(&file, input).with_context(|| format!("cannot write {}", file.display()))?;
    let replay = format!(
        "cargo run --release -p lockstep-tests --bin fuzz -- --target {} --replay {}",
        target.name,
        file.display()
    );
    Ok(Finding { what, file, replay })
}
