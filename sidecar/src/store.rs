//! This member's own word on its history, kept where its durability says.

use crate::Config;
use crate::app::process::boot_id;
use crate::journal::{Aside, Entry, History, Identity, Journal, JournalFile, Looked, Observe, Options, Recovery, lock};
use anyhow::Context;
use mesh::config::{Configuration, Durability};
use mesh::ids::Life;
use mesh::order::Verdict;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The journal before the driver has it.
#[derive(Debug)]
pub(crate) enum Store {
    /// A file.
    File(Box<JournalFile>),
    /// Nothing but this process, and the lock of a data directory if there is one.
    Memory(Option<File>),
}

impl Store {
    /// Opens what there is, and says what it holds; a journal that must not be voted with is set aside for a new one
    /// (rule 12).
    ///
    /// # Errors
    /// It cannot be used; the message says what to do.
    pub(crate) fn open(config: &Config) -> anyhow::Result<(Self, Recovery)> {
        if config.durability == Durability::Memory {
            let lock = config.data_dir.as_deref().map(lock).transpose()?;
            return Ok((Self::Memory(lock), Recovery::of(History::Blank)));
        }
        let dir = config.data_dir.as_deref().context("--data-dir is needed with durability sync and async")?;
        let identity = Identity { cluster: config.cluster.clone(), id: config.replica() };
        let synced = config.durability == Durability::Sync;
        let boot = boot_id().context("cannot read the boot id of the machine")?;
        let looked = Looked::at(dir, &identity, &Options::new(synced), &boot)?;
        if let History::Started { configuration: Configuration { cluster, .. }, .. } = looked.history() {
            // Before anything is changed: with other settings this would be another cluster's durability.
            config.check_cluster(cluster).context("the data directory is of a cluster that the settings do not fit")?;
        }
        let (file, recovery) = if was_removed(dir, looked.history())? {
            let (file, recovery, aside) = looked.replace(History::Blank, Aside::Removed)?;
            tracing::info!(
                aside = %aside.display(),
                "this member was removed from its cluster, or had joined a generation of it that is over: its journal is kept \
                 there, and it joins anew"
            );
            (file, recovery)
        } else {
            settle(looked, synced)?
        };
        forget_removed(dir)?;
        Ok((Self::File(Box::new(file)), recovery))
    }

    /// Adds an entry, durable when this returns.
    ///
    /// # Errors
    /// It could not be stored: this process must end.
    pub(crate) fn append(&mut self, entry: &Entry) -> anyhow::Result<()> {
        match self {
            Self::File(file) => file
                .append([entry])
                // Also with durability async: a member's history must not be taken back.
                .and_then(|()| file.persist())
                .context("the journal could not be written: make room or mend the disk, then start again"),
            Self::Memory(_) => Ok(()),
        }
    }

    /// The driver's journal from here on, and the lock to keep.
    ///
    /// # Errors
    /// The journal's thread could not be started.
    pub(crate) fn into_journal(self, observe: Observe) -> anyhow::Result<(Journal, Option<File>)> {
        match self {
            Self::File(file) => {
                Ok((Journal::start(*file, observe).context("cannot start the journal's thread")?, None))
            }
            Self::Memory(lock) => Ok((Journal::memory(), lock)),
        }
    }
}

/// Does what the verdict on the journal asks for, and says so.
pub(crate) fn settle(looked: Looked, synced: bool) -> anyhow::Result<(JournalFile, Recovery)> {
    match looked.judge(synced) {
        Verdict::Whole => {}
        Verdict::Torn { segment } => {
            let (file, at) = looked.place(segment);
            tracing::warn!(
                file = %file.display(),
                at,
                "the journal ends in a write that was cut short: nothing rested on it, and it is removed"
            );
        }
        Verdict::Forgotten => {
            let (journal, recovery, aside) = replace(looked)?;
            tracing::warn!(
                aside = %aside.display(),
                "the machine was started anew since the journal was written, and durability is async: this member may \
                 have forgotten votes. The journal is set aside; the member begins a new life as a learner, is taught by \
                 its peers and then votes again"
            );
            return Ok((journal, recovery));
        }
        Verdict::Damaged { segment, fault } => {
            let (file, at) = looked.place(segment);
            tracing::error!(
                file = %file.display(),
                at,
                %fault,
                "the journal is damaged: the disk lost what it had stored, and this member may have forgotten votes. It \
                 does not vote with it again"
            );
            let (journal, recovery, aside) = replace(looked)?;
            tracing::error!(
                aside = %aside.display(),
                "the damaged journal is kept there; this member begins a new life as a learner, is taught by its peers \
                 and then votes again. Look after the disk"
            );
            return Ok((journal, recovery));
        }
    }
    Ok(looked.resume()?)
}

/// A new journal in the place of one that must not be voted with.
fn replace(looked: Looked) -> anyhow::Result<(JournalFile, Recovery, PathBuf)> {
    let history = match looked.history() {
        History::Started { configuration, .. } => {
            History::Started { configuration: configuration.clone(), life: crate::entropy::life()? }
        }
        // The damage may have taken what made it part of a cluster.
        History::Blank | History::Proposed { .. } | History::Lost => History::Lost,
    };
    Ok(looked.replace(history, Aside::Damaged)?)
}

/// Names, in the data directory, the life that was removed from the cluster.
const REMOVED: &str = "removed";

/// Leaves word for the next start that a life was removed, and everybody knows: its journal is set aside then.
///
/// # Errors
/// It could not be written.
pub(crate) fn set_aside(dir: Option<&Path>, life: Life) -> anyhow::Result<()> {
    let Some(dir) = dir else { return Ok(()) };
    let (path, new) = (dir.join(REMOVED), dir.join("removed.new"));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(format!("{:016x}", life.0).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The word is heeded, or is of another life: it must not be taken for one of a later life with the same name.
fn forget_removed(dir: &Path) -> anyhow::Result<()> {
    let path = dir.join(REMOVED);
    match std::fs::remove_file(&path) {
        Ok(()) => File::open(dir).and_then(|dir| dir.sync_all()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
    .with_context(|| format!("cannot remove {}", path.display()))
}

/// Whether it is this life that was removed.
fn was_removed(dir: &Path, history: &History) -> anyhow::Result<bool> {
    let path = dir.join(REMOVED);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    Ok(matches!(history, History::Started { life, .. } if text == format!("{:016x}", life.0)))
}

/// The cluster that a member starts in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// The configuration in which it began.
    pub(crate) configuration: Configuration,
    /// This member's life, as its journal names it.
    pub(crate) life: Life,
}
