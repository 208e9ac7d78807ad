//! This member's own word on its history, kept where its durability says.

use crate::Config;
use crate::app::process::boot_id;
use crate::journal::{Entry, History, Identity, Journal, JournalFile, Observe, Recovery, lock};
use anyhow::Context;
use mesh::config::{ClusterConfig, Durability};
use mesh::ids::{Incarnation, Life};
use std::fs::File;

/// The journal before the driver has it.
#[derive(Debug)]
pub(crate) enum Store {
    /// A file.
    File(JournalFile),
    /// Nothing but this process, and the lock of a data directory if there is one.
    Memory(Option<File>),
}

impl Store {
    /// Opens what there is, and says what it holds.
    ///
    /// # Errors
    /// It cannot be used; the message says what to do.
    pub(crate) fn open(config: &Config) -> anyhow::Result<(Self, Recovery)> {
        if config.durability == Durability::Memory {
            let lock = config.data_dir.as_deref().map(lock).transpose()?;
            return Ok((Self::Memory(lock), Recovery::blank()));
        }
        let dir = config.data_dir.as_deref().context("--data-dir is needed with durability sync and async")?;
        let identity = Identity { cluster: config.cluster.clone(), id: config.replica(), incarnation: Incarnation(1) };
        let (file, found) = JournalFile::open(dir, &identity, config.durability == Durability::Sync)?;
        if let Some(bytes) = found.torn {
            tracing::warn!(
                bytes,
                "the journal ended in a write that was cut short: it was never acknowledged and is removed"
            );
        }
        let mut store = Self::File(file);
        let mut recovery = Recovery::of(found.entries);
        store.check_boot(config, &mut recovery)?;
        Ok((store, recovery))
    }

    /// Rule 12: what was written without sync is only known to be whole within one boot of the machine.
    fn check_boot(&mut self, config: &Config, recovery: &mut Recovery) -> anyhow::Result<()> {
        let boot = boot_id().context("cannot read the boot id of the machine")?;
        if recovery.boot.as_ref() == Some(&boot) {
            return Ok(());
        }
        if let (Durability::Async, History::Started { cluster, .. }) = (config.durability, &recovery.history) {
            tracing::warn!(
                "the machine was started anew since the journal was written, and durability is async: this member may \
                 have forgotten votes. It becomes a learner"
            );
            let learner = Entry::Learner { cluster: cluster.clone(), life: crate::entropy::life()? };
            self.append(&learner)?;
            recovery.history = recovery.history.clone().after(&learner);
        }
        self.append(&Entry::Booted { boot })
    }

    /// Adds an entry, durable when this returns.
    ///
    /// # Errors
    /// It could not be stored: this process must end.
    pub(crate) fn append(&mut self, entry: &Entry) -> anyhow::Result<()> {
        match self {
            Self::File(file) => file
                .append([entry])
                .and_then(|()| file.sync())
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
            Self::File(file) => Ok((Journal::start(file, observe).context("cannot start the journal's thread")?, None)),
            Self::Memory(lock) => Ok((Journal::memory(), lock)),
        }
    }
}

/// The cluster that a member starts in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// Its first configuration.
    pub(crate) cluster: ClusterConfig,
    /// This member's life, as its journal names it.
    pub(crate) life: Life,
}
