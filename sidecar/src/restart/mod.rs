//! Another generation of a cluster (rule 14), begun by an operator while its members are stopped: with what one survivor
//! holds, or with a backup. What is kept and what the log then says is decided by [`mesh::order`]; here are the files.

mod aside;
mod backup;
#[cfg(test)]
mod tests;

pub use aside::{Aside, set_aside};
pub use backup::{Backup, Prepared, Target};
pub use mesh::ids::Generation;

use crate::app::process::boot_id;
use crate::journal::{Entry, History, Identity, JournalFile, Looked, Options, Recovery, lock, owner};
use crate::{entropy, snapshot};
use anyhow::{Context, bail, ensure};
use mesh::config::{Config, Configuration, Divergence};
use mesh::ids::{Life, ReplicaId, Slot};
use mesh::limits::{Limits, Timing};
use mesh::order::{Begun, Image, Kept, Record, Recovered, Replica, Restart, Role, Status, Verdict};
use mesh::time::Instant;
use std::path::Path;

/// A stopped member that the cluster can go on from. Its data directory is locked while this lives, and nothing in it is
/// changed but what a start would change too.
#[derive(Debug)]
pub struct Survivor {
    identity: Identity,
    file: JournalFile,
    /// As it is at the end of what is kept.
    configuration: Configuration,
    records: Vec<Record>,
    image: Option<Box<Image>>,
    outlook: Outlook,
}

/// What a survivor holds: what is kept of it, and what may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// The cluster's name.
    pub cluster: String,
    /// The member.
    pub id: u32,
    /// The generation that ends.
    pub generation: Generation,
    /// The members of the cluster as far as this one knows.
    pub members: Vec<u32>,
    /// It has its vote: what was acknowledged while it was well is likely to be here. A learner may be far behind.
    pub votes: bool,
    /// The state that its log is replayed on is that of a snapshot after this slot; 0: there is none.
    pub snapshot: u64,
    /// It knew that every slot up to here is decided.
    pub decided: u64,
    /// Every slot up to here is kept.
    pub kept: u64,
    /// It had accepted slots up to here: what is above `kept` lies beyond a gap, and is given up.
    pub accepted: u64,
}

impl Survivor {
    /// Looks at the data directory of the stopped member `id`.
    ///
    /// # Errors
    /// It is in use, or another member's, or damaged, or holds nothing that could be gone on from; the message says what
    /// to do.
    pub fn open(dir: &Path, id: u32) -> anyhow::Result<Self> {
        ensure!(dir.is_dir(), "there is no directory {}", dir.display());
        let lock = lock(dir)?;
        let identity = owner(dir)?.with_context(|| {
            format!("there is no journal in {}: give the data directory of a member that ran", dir.display())
        })?;
        ensure!(
            identity.id == ReplicaId(id),
            "{} is the data directory of member {}, not of member {id}",
            dir.display(),
            identity.id
        );
        let boot = boot_id().context("cannot read the boot id of the machine")?;
        let looked = Looked::with(lock, dir, &identity, &Options::new(true), &boot)?;
        if let Verdict::Damaged { segment, .. } = looked.judge(true) {
            let (file, at) = looked.place(segment);
            bail!(
                "the journal is damaged in {} at byte {at}: what follows cannot be told from what was lost. Go on from \
                 another member, or from a backup: a file in {}/snapshots is one",
                file.display(),
                dir.display()
            );
        }
        let (file, Recovery { history, records }) = looked.resume()?;
        let History::Started { configuration, life } = history else {
            bail!("the member in {} is not part of a cluster: there is nothing to go on from", dir.display());
        };
        let snapshots = snapshot::offline::here(dir, &identity.cluster)?;
        let image = snapshots.newest_image();
        let recovered = recovered(records.clone(), image.clone());
        let kept = recovered.kept().with_context(|| {
            format!(
                "the log in {} begins in the middle, and no snapshot there covers what is missing. Go on from another \
                 member, or from a backup",
                dir.display()
            )
        })?;
        let replica = replica(&identity, configuration, life, recovered);
        let configuration = replica.configuration().clone();
        ensure!(
            configuration.cluster.member(identity.id).is_none_or(|member| member.application),
            "member {id} is a witness, and has no state: go on from another member, or from a backup"
        );
        let outlook = Outlook::of(&identity, configuration.generation, &replica.status(), kept);
        Ok(Self { identity, file, configuration, records, image, outlook })
    }

    /// What is kept of it, and what may be lost.
    #[must_use]
    pub fn outlook(&self) -> &Outlook {
        &self.outlook
    }

    /// From now on it is the only member of the cluster's next generation.
    ///
    /// # Errors
    /// It could not be stored: then nothing is changed, or everything.
    pub fn restart(mut self) -> anyhow::Result<Generation> {
        let (generation, life) = (next(self.outlook.generation)?, entropy::life()?);
        let restart = Restart { generation, members: vec![(self.identity.id, life)] };
        let promised = Recovered::from_records(self.records.iter().cloned()).promised;
        let begun = restart.begin(&self.configuration, Slot(self.outlook.kept), promised);
        let begun = begun.context("a cluster of this member alone cannot be")?;
        let mut all = std::mem::take(&mut self.records);
        all.extend(begun.records.iter().cloned());
        check(&begun, &self.identity, life, recovered(all, self.image.take()))?;
        begin(&mut self.file, begun, life)?;
        Ok(generation)
    }
}

impl Outlook {
    fn of(identity: &Identity, generation: Generation, status: &Status, kept: Kept) -> Self {
        Self {
            cluster: identity.cluster.clone(),
            id: identity.id.0,
            generation,
            members: status.members.iter().map(|member| member.id.0).collect(),
            votes: status.role != Role::Learner,
            snapshot: kept.base.0,
            decided: kept.decided.0,
            kept: kept.through.0,
            accepted: kept.last.0,
        }
    }
}

/// The generation after this one.
fn next(generation: Generation) -> anyhow::Result<Generation> {
    Ok(generation.next(entropy::generation().context("no randomness from the system")?))
}

fn recovered(records: Vec<Record>, image: Option<Box<Image>>) -> Recovered {
    Recovered { image, ..Recovered::from_records(records) }
}

/// As the ordering core would begin with this.
fn replica(identity: &Identity, configuration: Configuration, life: Life, recovered: Recovered) -> Replica {
    let config = Config {
        name: identity.cluster.clone(),
        id: identity.id,
        life,
        configuration,
        timing: Timing::DEFAULT,
        limits: Limits::DEFAULT,
        snapshots: None,
        divergence: Divergence::default(),
        wall_base: 0,
    };
    Replica::new(config, 0, recovered, Instant::ZERO)
}

/// Whether the ordering core would begin so as it must, before anything of it is stored.
fn check(begun: &Begun, identity: &Identity, life: Life, recovered: Recovered) -> anyhow::Result<()> {
    let replica = replica(identity, begun.configuration.clone(), life, recovered);
    let status = replica.status();
    let well = *replica.configuration() == begun.configuration
        && status.generation == begun.configuration.generation
        && status.decided == begun.configuration.configured
        && status.role == Role::Follower;
    ensure!(
        well,
        "the log does not go on as it must, and nothing is changed: report this, with what this member holds"
    );
    Ok(())
}

/// Stores the beginning of a generation: in one frame, so that it is there whole or not at all.
fn begin(file: &mut JournalFile, Begun { records, configuration }: Begun, life: Life) -> anyhow::Result<()> {
    let life = Entry::Learner { configuration, life };
    let entries: Vec<Entry> = std::iter::once(life).chain(records.into_iter().map(Entry::Core)).collect();
    file.append(&entries)
        .and_then(|()| file.persist())
        .context("the journal could not be written: make room or mend the disk, then try again")
}
