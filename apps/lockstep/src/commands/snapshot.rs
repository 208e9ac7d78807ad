//! `lockstep snapshot`: snapshots listed, verified, taken, and brought into an empty data directory.

use super::progress::Progress;
use super::reach::Reach;
use crate::exit::{Exit, Failure};
use crate::up::output::Format;
use anyhow::Context;
use mesh::node::human;
use serde_json::{Value, json};
use sidecar::operator::Answer;
use sidecar::snapshots::{self, Info};
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tokio::time::timeout;

/// What to do.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the snapshots of a data directory; reads their manifests only
    List {
        /// Data directory of a member, or of `up`; running or not
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// How to print it
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
        output: Format,
    },
    /// Read snapshots back from the disk and check every byte
    Verify {
        /// Snapshot files; without any, all of --data-dir
        #[arg(value_name = "FILE", required_unless_present = "data_dir")]
        files: Vec<PathBuf>,
        /// Data directory of a member, or of `up`; running or not
        #[arg(long, value_name = "DIR", conflicts_with = "files")]
        data_dir: Option<PathBuf>,
    },
    /// Have running members take a snapshot now, one after another, and wait until each is verified
    Save {
        #[command(flatten)]
        reach: Reach,
        /// Only this member
        #[arg(long, value_name = "ID")]
        member: Option<u32>,
        /// Give up on a member after this
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = human::parse_positive_duration)]
        timeout: Duration,
    },
    /// Put a snapshot into the empty data directory of a stopped member
    ///
    /// The member then joins its cluster as one that lost its disk: as a learner, under a new incarnation, which begins
    /// with this snapshot instead of fetching one and is given its vote when it has caught up. The snapshot must be of
    /// this very cluster. A member that has a journal is refused: taken back to an older state, it would forget its votes.
    /// This does not bring back a whole cluster: `lockstep backup restore` does, from the same file, in a new generation.
    Restore {
        /// The snapshot file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Data directories of stopped members, empty or missing
        #[arg(long, value_name = "DIR", value_delimiter = ',', required = true, num_args = 1..)]
        data_dir: Vec<PathBuf>,
    },
}

/// Does it.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::List { data_dir, output } => list(&data_dir, output),
        Command::Verify { files, data_dir } => verify(files, data_dir.as_deref()),
        Command::Save { reach, member, timeout } => save(&reach, member, timeout).await,
        Command::Restore { file, data_dir } => restore(&file, &data_dir),
    }
}

type Listed = (PathBuf, anyhow::Result<Info>);

/// The snapshots of a member's directory, or of all members of an `up`.
fn listed(data_dir: &Path) -> anyhow::Result<Vec<Listed>> {
    if data_dir.join("snapshots").is_dir() {
        return snapshots::list(data_dir);
    }
    let failed = || format!("cannot read {}", data_dir.display());
    let mut members = Vec::new();
    for entry in std::fs::read_dir(data_dir).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        members.extend(path.join("snapshots").is_dir().then_some(path));
    }
    members.sort();
    anyhow::ensure!(
        !members.is_empty(),
        "{} has no snapshots: it is neither the data directory of a member that ran nor that of `lockstep up`",
        data_dir.display()
    );
    let lists: anyhow::Result<Vec<_>> = members.iter().map(|dir| snapshots::list(dir)).collect();
    Ok(lists?.into_iter().flatten().collect())
}

fn list(data_dir: &Path, output: Format) -> Result<(), Failure> {
    let listed = listed(data_dir)?;
    let text = match output {
        Format::Json => format!("{}\n", json!({ "snapshots": listed.iter().map(document).collect::<Vec<_>>() })),
        Format::Text => listed.iter().fold(String::new(), |mut text, listed| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", line(listed));
            text
        }),
    };
    say(&text);
    let damaged = listed.iter().filter(|(_, info)| info.is_err()).count();
    if damaged == 0 { Ok(()) } else { Err(Failure::new(Exit::Invalid, format!("{damaged} cannot be used"))) }
}

fn document((path, info): &Listed) -> Value {
    match info {
        Ok(info) => json!({
            "file": path,
            "slot": info.slot.0,
            "cluster": info.cluster,
            "generation": info.generation.to_string(),
            "member": info.member,
            "bytes": info.bytes,
            "taken": info.taken.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        }),
        Err(error) => json!({ "file": path, "error": format!("{error:#}") }),
    }
}

fn line((path, info): &Listed) -> String {
    match info {
        Ok(info) => {
            let age = Duration::from_secs(info.taken.elapsed().unwrap_or_default().as_secs());
            format!(
                "slot {}  {} bytes  taken by member {} of {}, {} ago  {}",
                info.slot,
                info.bytes,
                info.member,
                info.cluster,
                human::format_duration(age),
                path.display()
            )
        }
        Err(error) => format!("unusable: {error:#}"),
    }
}

fn verify(files: Vec<PathBuf>, data_dir: Option<&Path>) -> Result<(), Failure> {
    let files = match data_dir {
        Some(dir) => listed(dir)?.into_iter().map(|(path, _)| path).collect(),
        None => files,
    };
    let mut damaged = Vec::new();
    for file in files {
        let mut progress = Progress::new(format!("verifying {}", file.display()));
        let result = snapshots::verify(&file, &mut |done, total| progress.show(done, Some(total)));
        progress.end();
        match result {
            Ok(info) => say(&format!("{}: slot {}, {} bytes, whole\n", file.display(), info.slot, info.bytes)),
            Err(error) => damaged.push(format!("{error:#}")),
        }
    }
    if damaged.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Invalid, damaged.join("\n"))) }
}

async fn save(reach: &Reach, only: Option<u32>, limit: Duration) -> Result<(), Failure> {
    let access = reach.access()?;
    let members: Vec<_> = access.members.iter().filter(|(id, _)| only.is_none_or(|only| only == *id)).collect();
    if members.is_empty() {
        return Err(Failure::new(Exit::Usage, "--member: there is no such member"));
    }
    // One after another, so that they do not pause together; all are tried, whatever becomes of one.
    let (mut refused, mut failed) = (Vec::new(), Vec::new());
    for member in members {
        let id = member.0;
        let mut progress = Progress::new(format!("member {id} takes a snapshot"));
        let saved = timeout(limit, access.save(member, &mut |done| progress.show(done, None))).await;
        progress.end();
        match saved {
            Ok(Ok(Answer::Done(slot))) => say(&format!("member {id}: snapshot of slot {slot} taken and verified\n")),
            Ok(Ok(Answer::Refused(why))) => refused.push(format!("member {id}: {why}")),
            Ok(Err(error)) => failed.push(format!("member {id}: {error:#}")),
            Err(_) => failed.push(format!("member {id}: not done within {}", human::format_duration(limit))),
        }
    }
    let exit = if failed.is_empty() { Exit::Refused } else { Exit::Failed };
    failed.append(&mut refused);
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(exit, failed.join("\n"))) }
}

fn restore(file: &Path, data_dirs: &[PathBuf]) -> Result<(), Failure> {
    // Before anything is written anywhere.
    verify(vec![file.to_owned()], None)?;
    for dir in data_dirs {
        let mut progress = Progress::new(format!("restoring into {}", dir.display()));
        let restored = snapshots::restore(file, dir, &mut |done, total| progress.show(done, Some(total)));
        progress.end();
        let info = restored.map_err(|error| Failure::new(Exit::Refused, format!("{error:#}")))?;
        let slot = info.slot;
        say(&format!("{}: begins with slot {slot} and joins cluster {} as a learner\n", dir.display(), info.cluster));
    }
    Ok(())
}

fn say(text: &str) {
    // A closed stdout leaves nobody to tell.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
