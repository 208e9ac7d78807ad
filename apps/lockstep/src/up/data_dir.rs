//! The data directory: locked while in use, private, and removed at the end if it was made for one run only.

use super::args::Settings;
use super::ports::Ports;
use super::state::State;
use crate::exit::{Exit, Failure};
use crate::parts::adapter;
use crate::process::{self, Process};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOCK: &str = "lock";
const CLUSTER: &str = "cluster.json";
/// How the temporary ones begin.
const TEMPORARY: &str = "lockstep-up-";
/// How long leftovers of a killed run may take to end.
const LEFTOVERS_END: Duration = Duration::from_secs(5);

/// A data directory in use by this process.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    temporary: bool,
    /// Holds the lock as long as this process lives.
    _lock: File,
}

/// What stays the same over restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    /// Its name, as in its certificates.
    pub(crate) name: String,
    /// How many replicas there are.
    pub(crate) replicas: u32,
    /// How many members without an application are beside them.
    #[serde(default)]
    pub(crate) witnesses: u32,
    /// The ordered adapter, such as "line/shared".
    pub(crate) adapter: String,
    /// How writes reach the disk.
    pub(crate) durability: String,
    /// The application.
    pub(crate) command: Vec<String>,
    /// Ports of the parts.
    pub(crate) ports: Ports,
}

impl DataDir {
    /// Opens or makes the directory, locks it, and ends what a killed run left in it.
    pub(crate) async fn open(given: Option<&Path>) -> Result<Self, Failure> {
        let (path, temporary) = match given {
            Some(path) => (make(path)?, false),
            None => {
                remove_stale().await;
                (make_temporary()?, true)
            }
        };
        if !temporary {
            refuse_foreign(&path)?;
        }
        let lock = lock(&path)?;
        end_leftovers(&path).await;
        Ok(Self { path, temporary, _lock: lock })
    }

    /// Where it is; absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What was kept of the cluster in it, if there is one.
    pub(crate) fn cluster(&self) -> anyhow::Result<Option<Cluster>> {
        let path = self.path.join(CLUSTER);
        match std::fs::read(&path) {
            Ok(text) => {
                Ok(Some(serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Whether an `up` kept a cluster there.
    pub(crate) fn is_one(path: &Path) -> bool {
        path.join(CLUSTER).exists()
    }

    /// Where the data of the member `id` is.
    pub(crate) fn member(&self, id: u32) -> PathBuf {
        self.path.join(format!("server-{id}"))
    }

    /// Keeps what is to stay the same; synced, because the data beside it is worth nothing without.
    pub(crate) fn keep(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let (path, next) = (self.path.join(CLUSTER), self.path.join(format!("{CLUSTER}.new")));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&next)?;
            file.write_all(&serde_json::to_vec_pretty(cluster)?)?;
            file.sync_all()?;
            std::fs::rename(&next, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(%error, dir = %self.path.display(), "the temporary data directory cannot be removed");
        }
    }
}

impl Cluster {
    /// What these settings ask for.
    pub(crate) fn of(settings: &Settings, ports: Ports) -> Self {
        let (protocol, connections) = (adapter::name(&settings.protocol), adapter::name(&settings.connections));
        Self {
            name: settings.cluster.clone(),
            replicas: settings.replicas,
            witnesses: settings.witnesses,
            adapter: format!("{protocol}/{connections}"),
            durability: adapter::name(&settings.durability),
            command: settings.command.clone(),
            ports,
        }
    }

    /// Refuses settings that the cluster in the directory cannot take on by a restart.
    pub(crate) fn check(&self, wanted: &Self, dir: &Path) -> Result<(), Failure> {
        let pairs = [
            ("cluster", self.name.clone(), wanted.name.clone()),
            ("replicas", self.replicas.to_string(), wanted.replicas.to_string()),
            ("witnesses", self.witnesses.to_string(), wanted.witnesses.to_string()),
            ("protocol and app-connections", self.adapter.clone(), wanted.adapter.clone()),
            ("durability", self.durability.clone(), wanted.durability.clone()),
        ];
        let differ: Vec<String> = pairs
            .into_iter()
            .filter(|(_, kept, wanted)| kept != wanted)
            .map(|(what, kept, wanted)| format!("{what}: {kept} there, {wanted} asked for"))
            .collect();
        if !differ.is_empty() {
            let text = format!(
                "the cluster in {} is another ({}): give what it has, or another --data-dir",
                dir.display(),
                differ.join("; ")
            );
            return Err(Failure::new(Exit::Refused, text));
        }
        if self.command != wanted.command {
            tracing::warn!(
                "COMMAND is not the one of the last run: it must behave as that one for everything in the log"
            );
        }
        Ok(())
    }
}

fn make(path: &Path) -> anyhow::Result<PathBuf> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path).and_then(|()| path.canonicalize());
    made.with_context(|| format!("cannot make the data directory {}", path.display()))
}

fn make_temporary() -> anyhow::Result<PathBuf> {
    let base = std::env::temp_dir();
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    for attempt in 0..100 {
        let path = base.join(format!("{TEMPORARY}{}-{:x}", std::process::id(), nanos.wrapping_add(attempt)));
        // Not recursive: what exists is somebody else's.
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return path.canonicalize().context("the temporary directory is gone"),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot make {}: set TMPDIR or --data-dir", path.display()));
            }
        }
    }
    anyhow::bail!("cannot make a temporary directory in {}: set TMPDIR or --data-dir", base.display())
}

/// A directory with other things in it is not taken over.
fn refuse_foreign(path: &Path) -> Result<(), Failure> {
    let mut entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    if path.join(LOCK).exists() || entries.next().is_none() {
        return Ok(());
    }
    let text =
        format!("{} is not empty and no data directory of `lockstep up`: choose another --data-dir", path.display());
    Err(Failure::new(Exit::Refused, text))
}

/// The lock is the kernel's, and goes with this process; the pid in the file is for people.
fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join(LOCK);
    let open = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = open.with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Without it the refusal is as good.
            let _ = file.read_to_string(&mut pid);
            let text = format!("{} is in use by `lockstep up` with pid {}", dir.display(), pid.trim());
            return Err(Failure::new(Exit::Refused, text));
        }
        Err(TryLockError::Error(error)) => {
            return Err(anyhow::Error::from(error).context(format!("cannot lock {}", path.display())).into());
        }
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file)
}

async fn end_leftovers(dir: &Path) {
    let leftovers = State::read(dir).map(|state| state.leftovers()).unwrap_or_default();
    if !leftovers.is_empty() {
        let pids: Vec<u32> = leftovers.iter().map(|process| process.pid).collect();
        tracing::warn!(?pids, "ending what a killed run left");
        process::end(&leftovers, LEFTOVERS_END).await;
    }
}

/// Temporary directories of killed runs hold keys and data: ended, removed. Only our own, only those that nobody locks.
async fn remove_stale() {
    use std::os::unix::fs::MetadataExt;
    let own = rustix::process::geteuid().as_raw();
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == own);
        let path = entry.path();
        // A maker that still runs may be just about to lock it.
        let maker = maker(&entry.file_name().to_string_lossy());
        if !is_ours || maker.is_none_or(|pid| Process::with_pid(pid).is_some()) || !path.join(LOCK).exists() {
            continue;
        }
        if let Ok(_lock) = lock(&path) {
            end_leftovers(&path).await;
            tracing::info!(dir = %path.display(), "removing the temporary data directory of a killed run");
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}

/// The pid in the name of a temporary directory.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(TEMPORARY)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("lockstep-data-dir-{}-{name}", std::process::id()))
    }

    #[tokio::test]
    async fn a_directory_in_use_is_refused_with_the_pid_and_free_again_afterwards() {
        let path = scratch("lock");
        let first = DataDir::open(Some(&path)).await.expect("nobody uses it");
        let refused = DataDir::open(Some(&path)).await.expect_err("it is in use");
        assert_eq!(refused.exit(), Exit::Refused);
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        drop(DataDir::open(Some(&path)).await.expect("nobody uses it any more"));
        std::fs::remove_dir_all(&path).expect("it is ours");
    }

    #[tokio::test]
    async fn a_directory_with_other_things_is_not_taken_over() {
        let path = scratch("foreign");
        std::fs::create_dir_all(path.join("letters")).expect("the temporary directory can be written");
        assert_eq!(DataDir::open(Some(&path)).await.expect_err("it is not ours").exit(), Exit::Refused);
        std::fs::remove_dir_all(&path).expect("it is ours");
    }

    #[tokio::test]
    async fn a_temporary_directory_is_private_and_goes_away() {
        use std::os::unix::fs::PermissionsExt;
        let dir = DataDir::open(None).await.expect("the temporary directory can be written");
        let path = dir.path().to_owned();
        assert_eq!(path.metadata().expect("it is there").permissions().mode() & 0o777, 0o700);
        drop(dir);
        assert!(!path.exists());
    }

    #[test]
    fn a_temporary_directory_names_its_maker() {
        assert_eq!(maker("lockstep-up-42-1f"), Some(42));
        assert_eq!(maker("lockstep-up-"), None);
        assert_eq!(maker("other-42-1f"), None);
    }

    #[tokio::test]
    async fn a_cluster_is_kept_and_another_in_its_place_refused() {
        let path = scratch("cluster");
        let dir = DataDir::open(Some(&path)).await.expect("nobody uses it");
        assert_eq!(dir.cluster().expect("it can be read"), None);
        let kept = Cluster { name: "local".into(), replicas: 3, adapter: "line/shared".into(), ..Cluster::default() };
        dir.keep(&kept).expect("it can be written");
        assert_eq!(dir.cluster().expect("it can be read"), Some(kept.clone()));
        let refused = kept.check(&Cluster { replicas: 5, ..kept.clone() }, dir.path()).expect_err("five are not three");
        assert_eq!(refused.exit(), Exit::Refused);
        kept.check(&kept, dir.path()).expect("it is the same");
        drop(dir);
        std::fs::remove_dir_all(&path).expect("it is ours");
    }
}
