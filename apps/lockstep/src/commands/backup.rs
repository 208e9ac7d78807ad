//! `lockstep backup`: a snapshot of a running cluster in one file, and a cluster that begins with it.

mod kept;

use super::confirm::confirm;
use super::progress::Progress;
use super::reach::Reach;
use crate::exit::{Exit, Failure};
use crate::parts::common::cluster_name;
use crate::up::data_dir::DataDir;
use kept::Named;
use mesh::node::human;
use sidecar::operator::{Answer, Backed};
use sidecar::restart::{Backup, Target};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;

/// What to do.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Copy a verified snapshot of the running cluster into one file, while it serves
    ///
    /// A member takes a snapshot that holds every request that was acknowledged before the command was started; it is
    /// copied, synced, read back, and only then given its name. The file is a snapshot's: `lockstep snapshot verify` reads
    /// it. It holds requests, replies and the application's state in the clear.
    Create {
        /// The file to make; {time} in its name is replaced by the time, as 20261130T052200Z
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Remove the oldest files that the same FILE with another {time} names, so that so many are left
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        keep: Option<u32>,
        #[command(flatten)]
        reach: Reach,
        /// Only this member takes the snapshot; else the first that can
        #[arg(long, value_name = "ID")]
        member: Option<u32>,
        /// Replace the file, if there is one
        #[arg(long)]
        force: bool,
        /// Give up after this
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = human::parse_positive_duration)]
        timeout: Duration,
    },
    /// Begin a cluster with a backup: in stopped members without history, in a new generation
    ///
    /// What was acknowledged after the backup is lost, every session ends, and members that still have data of the cluster
    /// as it was are refused for ever. Start the members afterwards as always; no bootstrap is needed.
    Restore(RestoreArgs),
}

/// Settings of a restore.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// The backup, or any snapshot's file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Data directories of the members: DIR in the order of the ids, or ID=DIR; or the one of an `up`
    #[arg(long, value_name = "DIR", value_delimiter = ',', required = true, num_args = 1..)]
    data_dir: Vec<String>,
    /// Make the data directory of an `up` that has so many replicas
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    replicas: Option<u32>,
    /// Refuse the backup of another cluster
    #[arg(long, value_name = "NAME", value_parser = cluster_name)]
    cluster: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Does it.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create { file, keep, reach, member, force, timeout: limit } => {
            let named = Named::of(&file, keep)?;
            let made = timeout(limit, create(&reach, member, (&named.file, force))).await;
            made.unwrap_or_else(|_| {
                Err(Failure::new(Exit::Failed, format!("not done within {}", human::format_duration(limit))))
            })?;
            named.remove_oldest()
        }
        Command::Restore(args) => restore(&args).await,
    }
}

async fn create(reach: &Reach, member: Option<u32>, (file, replace): (&Path, bool)) -> Result<(), Failure> {
    if !replace && file.exists() {
        return Err(Failure::new(Exit::Refused, format!("{} exists: --force replaces it", file.display())));
    }
    let access = reach.access_when_certified().await?;
    let mut taking = Progress::new("the snapshot is taken".to_owned());
    let mut copying = Progress::new(format!("copying into {}", file.display()));
    let mut show = |how_far| match how_far {
        Backed::Taking(done) => taking.show(done, None),
        Backed::Copying(done, total) => copying.show(done, Some(total)),
    };
    let made = access.backup(member, (file, replace), &mut show).await;
    taking.end();
    copying.end();
    match made? {
        Answer::Done(info) => {
            say(&format!(
                "{}: cluster {}, generation {}, slot {}, {} bytes, verified\n",
                file.display(),
                info.cluster,
                info.generation,
                info.slot,
                info.bytes
            ));
            Ok(())
        }
        Answer::Refused(why) => Err(Failure::new(Exit::Refused, format!("no backup is made: {why}"))),
    }
}

async fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let refused = |error: anyhow::Error| Failure::new(Exit::Refused, error);
    let mut progress = Progress::new(format!("verifying {}", args.file.display()));
    let opened = Backup::open(&args.file, &mut |done, total| progress.show(done, Some(total)));
    progress.end();
    let backup = opened.map_err(|error| Failure::new(Exit::Invalid, error))?;
    let members = Members::of(args).await?;
    let found = backup.info().cluster;
    if let Some(wanted) = members.cluster.iter().chain(&args.cluster).find(|wanted| **wanted != found) {
        let text = format!("{} is a backup of cluster {found}, not of {wanted}", args.file.display());
        return Err(Failure::new(Exit::Refused, text));
    }
    let targets: anyhow::Result<Vec<Target>> = members.dirs.iter().map(|(id, dir)| Target::open(*id, dir)).collect();
    let prepared = backup.prepare(targets.map_err(refused)?).map_err(refused)?;
    let ids: Vec<u32> = members.dirs.iter().map(|(id, _)| *id).collect();
    confirm(&words(&backup, &ids), args.yes)?;
    let mut bar: Option<(u32, Progress)> = None;
    let restored = prepared.restore(&mut |id, done, total| {
        if bar.as_ref().is_none_or(|(of, _)| *of != id) {
            let last = bar.replace((id, Progress::new(format!("member {id} is restored"))));
            last.into_iter().for_each(|(_, last)| last.end());
        }
        if let Some((_, progress)) = &mut bar {
            progress.show(done, Some(total));
        }
    });
    bar.into_iter().for_each(|(_, last)| last.end());
    let generation = restored?;
    say(&format!("generation {generation} begins with the members {ids:?}: start them\n"));
    Ok(())
}

/// What is begun with, what is lost, and what is to be seen to.
fn words(backup: &Backup, ids: &[u32]) -> String {
    let info = backup.info();
    let ago = Duration::from_secs(backup.ordered().elapsed().unwrap_or_default().as_secs());
    format!(
        "Cluster {}, generation {}: the state after slot {}, which was ordered {} ago, in the members {ids:?}.\n\
         Lost: every request that was acknowledged in a later slot.\n\
         Every session ends: a client that waits for an answer is told that its outcome is unknown.\n\
         Members that still have data of this cluster must be stopped, and are refused for ever with it.",
        info.cluster,
        info.generation,
        info.slot,
        human::format_duration(ago)
    )
}

/// Into what is restored.
#[derive(Debug)]
struct Members {
    dirs: Vec<(u32, PathBuf)>,
    /// The name of the `up`'s cluster.
    cluster: Option<String>,
    /// No `up` runs there while this lives.
    _up: Option<DataDir>,
}

impl Members {
    async fn of(args: &RestoreArgs) -> Result<Self, Failure> {
        let usage = |text: String| Failure::new(Exit::Usage, text);
        if let [dir] = &args.data_dir[..]
            && (args.replicas.is_some() || DataDir::is_one(Path::new(dir)))
        {
            let up = DataDir::open(Some(Path::new(dir))).await?;
            let kept = up.cluster()?;
            let replicas = kept.as_ref().map(|cluster| cluster.replicas);
            if let (Some(kept), Some(wanted)) = (replicas, args.replicas)
                && kept != wanted
            {
                return Err(usage(format!("--replicas: the cluster in {dir} has {kept}")));
            }
            let count = replicas.or(args.replicas).unwrap_or_default();
            let dirs = (0..count).map(|id| (id, up.member(id))).collect();
            return Ok(Self { dirs, cluster: kept.map(|cluster| cluster.name), _up: Some(up) });
        }
        if args.replicas.is_some() {
            return Err(usage("--replicas goes with one --data-dir, that of an `up`".to_owned()));
        }
        let dirs = directories(&args.data_dir).map_err(|error| usage(format!("--data-dir: {error}")))?;
        Ok(Self { dirs, cluster: None, _up: None })
    }
}

/// Directories by id: either all have one, or the list is in the order of the ids, which begin with 0.
fn directories(texts: &[String]) -> Result<Vec<(u32, PathBuf)>, String> {
    let named = |text: &String| text.split_once('=').and_then(|(id, dir)| Some((id.parse().ok()?, PathBuf::from(dir))));
    let with_ids: Vec<(u32, PathBuf)> = texts.iter().filter_map(named).collect();
    if with_ids.len() == texts.len() {
        return Ok(with_ids);
    }
    if !with_ids.is_empty() {
        return Err("give ids to all of them (ID=DIR) or to none".to_owned());
    }
    Ok((0..).zip(texts.iter().map(PathBuf::from)).collect())
}

fn say(text: &str) {
    // A closed stdout leaves nobody to tell.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_have_ids_all_of_them_or_none() {
        let of = |texts: &[&str]| directories(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let pair = |id, dir: &str| (id, PathBuf::from(dir));
        assert_eq!(of(&["a", "b"]), Ok(vec![pair(0, "a"), pair(1, "b")]));
        assert_eq!(of(&["2=a", "0=b"]), Ok(vec![pair(2, "a"), pair(0, "b")]));
        assert!(of(&["2=a", "b"]).is_err());
    }
}
