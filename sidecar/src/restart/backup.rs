//! A backup brought into new members: the cluster goes on behind it in another generation. A backup is a snapshot's file.

use super::{begin, check, next, recovered};
use crate::app::marker;
use crate::app::process::boot_id;
use crate::entropy;
use crate::journal::{Entry, History, Identity, Looked, Options, lock, owner};
use crate::snapshot::{SnapshotFile, offline};
use crate::snapshots::Info;
use anyhow::{Context, bail, ensure};
use mesh::config::{ClusterConfig, Durability};
use mesh::ids::{Ballot, Generation, ReplicaId};
use mesh::order::{Image, Record, Restart, Verdict};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A backup that was read and verified whole.
#[derive(Debug)]
pub struct Backup {
    file: SnapshotFile,
    image: Box<Image>,
}

/// A stopped member without history. Its data directory is locked while this lives.
#[derive(Debug)]
pub struct Target {
    id: u32,
    dir: PathBuf,
    lock: File,
}

/// A backup and the members that it is brought into.
#[derive(Debug)]
pub struct Prepared<'a> {
    backup: &'a Backup,
    restart: Restart,
    looked: Vec<(PathBuf, Identity, Looked)>,
}

impl Prepared<'_> {
    /// Does it. `progress` is told of each member the bytes so far, and of all.
    ///
    /// # Errors
    /// The disk's: empty the directories then, and try again.
    pub fn restore(self, progress: &mut dyn FnMut(u32, u64, u64)) -> anyhow::Result<Generation> {
        for (dir, identity, looked) in self.looked {
            let id = identity.id.0;
            self.backup
                .restore_one(&self.restart, &dir, &identity, looked, &mut |done, total| progress(id, done, total))
                .with_context(|| format!("{} is not restored", dir.display()))?;
        }
        Ok(self.restart.generation)
    }
}

impl Target {
    /// Takes the data directory of the member `id`, which may be missing.
    ///
    /// # Errors
    /// It is in use, or has history.
    pub fn open(id: u32, dir: &Path) -> anyhow::Result<Self> {
        let lock = lock(dir)?;
        ensure!(
            offline::list_if_any(dir)?.is_empty(),
            "{} has snapshots already: it is no new member's. Move it away, or give an empty directory",
            dir.display()
        );
        Ok(Self { id, dir: dir.to_owned(), lock })
    }

    /// The journal of a member that waits for its cluster is as good as none.
    fn look(self, cluster: &str) -> anyhow::Result<(PathBuf, Identity, Looked)> {
        let Self { id, dir, lock } = self;
        let identity = Identity { cluster: cluster.to_owned(), id: ReplicaId(id) };
        let boot = boot_id().context("cannot read the boot id of the machine")?;
        let looked = Looked::with(lock, &dir, &identity, &Options::new(true), &boot)?;
        let whole = matches!(looked.judge(true), Verdict::Whole | Verdict::Torn { .. });
        ensure!(
            whole && matches!(looked.history(), History::Blank | History::Proposed { .. }),
            "{} has a journal with history: nothing is restored over it. Move it away, or give an empty directory",
            dir.display()
        );
        Ok((dir, identity, looked))
    }
}

impl Backup {
    /// Reads every byte of a backup. `progress` is told the bytes so far, and of all.
    ///
    /// # Errors
    /// It is damaged, or of another version of this program.
    pub fn open(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> anyhow::Result<Self> {
        let file = SnapshotFile::open(path)?;
        let total = file.manifest().total_len;
        file.manifest()
            .validate(&file.manifest().cluster)
            .with_context(|| format!("{} cannot be used", path.display()))?;
        file.verify(&mut |done| progress(done, total))?;
        let image = file.image()?;
        image.cluster.validate().with_context(|| format!("{} cannot be used", path.display()))?;
        Ok(Self { file, image })
    }

    /// What it says of itself.
    #[must_use]
    pub fn info(&self) -> Info {
        Info::of(&self.file)
    }

    /// The members of the cluster that it is of.
    #[must_use]
    pub fn members(&self) -> Vec<u32> {
        self.image.cluster.members.iter().map(|member| member.id.0).collect()
    }

    /// When its last slot was ordered, by the clock of that time's leader.
    #[must_use]
    pub fn ordered(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.image.time)
    }

    /// Looks whether it can be brought into these members, which are to be those of the next generation.
    ///
    /// # Errors
    /// One has history, or is none of the backup's members.
    pub fn prepare(&self, mut targets: Vec<Target>) -> anyhow::Result<Prepared<'_>> {
        targets.sort_by_key(|target| target.id);
        ensure!(!targets.is_empty(), "no directory is given");
        ensure!(targets.windows(2).all(|pair| pair[0].id != pair[1].id), "a member is named twice");
        let known = self.members();
        if let Some(Target { id, .. }) = targets.iter().find(|target| !known.contains(&target.id)) {
            bail!("member {id} is none of the backup's, which are {known:?}: restore into some of these");
        }
        ensure!(
            self.image.cluster.durability != Durability::Memory,
            "the cluster of this backup has durability memory: its members keep nothing that could be restored into"
        );
        let cluster = &self.file.manifest().cluster;
        for target in &targets {
            let found = owner(&target.dir)?;
            ensure!(
                found.as_ref().is_none_or(|owner| owner.cluster == *cluster && owner.id == ReplicaId(target.id)),
                "{} is another member's, or of another cluster",
                target.dir.display()
            );
        }
        let looked: Vec<_> = targets.into_iter().map(|target| target.look(cluster)).collect::<anyhow::Result<_>>()?;
        let lives = looked.iter().map(|(_, identity, _)| Ok((identity.id, entropy::life()?)));
        let members = lives.collect::<std::io::Result<Vec<_>>>().context("no randomness from the system")?;
        let restart = Restart { generation: next(self.image.generation)?, members };
        Ok(Prepared { backup: self, restart, looked })
    }

    /// The snapshot first: without the journal it is nothing that anybody begins with.
    fn restore_one(
        &self,
        restart: &Restart,
        dir: &Path,
        identity: &Identity,
        looked: Looked,
        progress: &mut dyn FnMut(u64, u64),
    ) -> anyhow::Result<()> {
        let slot = self.image.slot;
        let members = restart.members_after(&self.image.cluster.members);
        let cluster = ClusterConfig { members, ..self.image.cluster.clone() };
        let records = [Record::Jumped { slot }].into_iter().chain(restart.records(slot, Ballot::NONE));
        let records: Vec<Record> = records.collect();
        check(restart, identity, &cluster, recovered(records.clone(), Some(self.image.clone())))?;
        let _ = std::fs::remove_file(marker::path(dir));
        offline::copy(&self.file, &offline::here(dir, &identity.cluster)?, progress)?;
        let own = restart.members.iter().find(|(id, _)| *id == identity.id);
        let (_, life) = own.context("a member is restored that is not to be one")?;
        let (mut journal, _) = looked.resume()?;
        begin(&mut journal, Entry::Learner { cluster, generation: restart.generation, life: *life }, records)
    }
}
