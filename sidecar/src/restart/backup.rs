//! A backup brought into new members: the cluster goes on behind it in another generation. A backup is a snapshot's file.

use super::{begin, check, next, recovered};
use crate::app::marker;
use crate::app::process::boot_id;
use crate::entropy;
use crate::journal::{History, Identity, Looked, Options, lock, owner};
use crate::snapshot::{SnapshotFile, offline};
use crate::snapshots::Info;
use anyhow::{Context, bail, ensure};
use mesh::config::{Configuration, Durability};
use mesh::ids::{Ballot, Generation, Life, ReplicaId};
use mesh::order::{Begun, Image, Record, Restart, Verdict};
use std::fs::File;
use std::io::ErrorKind;
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
    begun: Begun,
    looked: Vec<Member>,
}

/// A member that is to be, and its life.
#[derive(Debug)]
struct Member {
    dir: PathBuf,
    identity: Identity,
    life: Life,
    looked: Looked,
}

impl Prepared<'_> {
    /// Does it. `progress` is told of each member the bytes so far, and of all.
    ///
    /// # Errors
    /// The disk's: empty the directories then, and try again.
    pub fn restore(self, progress: &mut dyn FnMut(u32, u64, u64)) -> anyhow::Result<Generation> {
        for member in self.looked {
            let (id, dir) = (member.identity.id.0, member.dir.clone());
            self.backup
                .restore_one(self.begun.clone(), member, &mut |done, total| progress(id, done, total))
                .with_context(|| format!("{} is not restored", dir.display()))?;
        }
        Ok(self.begun.configuration.generation)
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
    fn look(self, cluster: &str) -> anyhow::Result<Member> {
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
        Ok(Member { dir, identity, life: entropy::life()?, looked })
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
        ensure!(!image.hollow, "{} is a witness's, without the application's state", path.display());
        image.cluster.validate().with_context(|| format!("{} cannot be used", path.display()))?;
        Ok(Self { file, image })
    }

    /// What it says of itself.
    #[must_use]
    pub fn info(&self) -> Info {
        Info::of(&self.file)
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
        let target = self.image.cluster.target_members;
        ensure!(
            targets.iter().all(|member| member.id < target),
            "the cluster of this backup is to have members with ids below {target} only: restore into some of these"
        );
        let has_none = |target: &&Target| {
            self.image.cluster.member(ReplicaId(target.id)).is_some_and(|member| !member.application)
        };
        if let Some(witness) = targets.iter().find(has_none) {
            bail!("member {} is a witness: leave it out, it joins the others when it is started", witness.id);
        }
        let looked: Vec<_> = targets.into_iter().map(|target| target.look(cluster)).collect::<anyhow::Result<_>>()?;
        let members = looked.iter().map(|member| (member.identity.id, member.life)).collect();
        let restart = Restart { generation: next(self.image.generation)?, members };
        let image = &self.image;
        let before = Configuration {
            cluster: image.cluster.clone(),
            generation: image.generation,
            epoch: image.epoch,
            configured: image.configured,
            elected: image.elected,
        };
        let begun = restart.begin(&before, image.slot, Ballot::NONE).context("these members make no cluster")?;
        Ok(Prepared { backup: self, begun, looked })
    }

    /// The snapshot first: without the journal it is nothing that anybody begins with.
    fn restore_one(
        &self,
        mut begun: Begun,
        Member { dir, identity, life, looked }: Member,
        progress: &mut dyn FnMut(u64, u64),
    ) -> anyhow::Result<()> {
        begun.records.insert(0, Record::Jumped { slot: self.image.slot });
        check(&begun, &identity, life, recovered(begun.records.clone(), Some(self.image.clone())))?;
        match std::fs::remove_file(marker::path(&dir)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).context("cannot remove the marker"),
            _ => {}
        }
        offline::copy(&self.file, &offline::here(&dir, &identity.cluster)?, progress)?;
        let (mut journal, _) = looked.resume()?;
        begin(&mut journal, begun, life)
    }
}
