//! Another generation on real disks: from a survivor, and from a backup.

use super::*;
use crate::metrics::Metrics;
use crate::snapshot::Snapshots;
use crate::testing::TempDir;
use mesh::config::{ClusterConfig, Durability};
use mesh::ids::{Ballot, Incarnation};
use mesh::order::Record;
use mesh::wire::peer::Batch;
use std::path::PathBuf;
use std::sync::Arc;

const CLUSTER: &str = "kv.test";

fn identity(id: u32) -> Identity {
    Identity { cluster: CLUSTER.to_owned(), id: ReplicaId(id) }
}

fn look(dir: &Path, id: u32) -> Looked {
    Looked::at(dir, &identity(id), &Options::new(true), "this boot").expect("it can be looked at")
}

fn accepted(slot: u64) -> Entry {
    let ballot = Ballot { round: 3, replica: ReplicaId(0), incarnation: Incarnation(1) };
    Entry::Core(Record::Accepted {
        slot: Slot(slot),
        ballot,
        batch: Arc::new(Batch { time: slot, ..Batch::default() }),
    })
}

/// The data directory of a member that knows slots 1 to 3 as decided, and accepted 4 and, beyond a gap, 6.
fn member(dir: &Path, id: u32) {
    let (mut journal, _) = look(dir, id).resume().expect("a new one");
    let cluster = ClusterConfig::of(3, "line/shared", Durability::Sync);
    journal.append(&[Entry::Proposed { token: 1, cluster }, Entry::Started]).expect("room");
    journal.persist().expect("durable");
    let mut entries = Vec::from([1, 2, 3, 4, 6].map(accepted));
    entries.push(Entry::Core(Record::Decided { slot: Slot(3) }));
    journal.append(&entries).expect("room");
    journal.persist().expect("durable");
}

/// A snapshot of that slot; its file.
async fn snapshot(dir: &Path, slot: u64) -> PathBuf {
    let metrics = Metrics::new(&mut mesh::node::registry());
    let snapshots = Snapshots::open(dir, CLUSTER, ReplicaId(1), &metrics).expect("a directory");
    let mut image = Image::genesis(ClusterConfig::of(3, "line/shared", Durability::Sync));
    image.slot = Slot(slot);
    let mut writer = snapshots.writer(Box::new(image));
    writer.write(vec![7; 3 << 20].into()).await.expect("room");
    writer.finish().await.expect("a snapshot");
    snapshots.file(Slot(slot)).expect("it is there").path().to_owned()
}

fn refusal<T: std::fmt::Debug>(result: anyhow::Result<T>) -> String {
    format!("{:#}", result.expect_err("it is refused"))
}

#[test]
fn a_survivor_says_what_it_keeps_and_goes_on_alone() {
    let dir = TempDir::new();
    member(dir.path(), 2);
    let survivor = Survivor::open(dir.path(), 2).expect("it can be gone on from");
    let outlook = survivor.outlook().clone();
    assert_eq!((outlook.decided, outlook.kept, outlook.accepted, outlook.snapshot), (3, 4, 6, 0));
    assert_eq!((outlook.cluster.as_str(), outlook.id, outlook.votes), (CLUSTER, 2, true));
    assert_eq!(outlook.members, [0, 1, 2]);
    assert!(refusal(Survivor::open(dir.path(), 2)).contains("in use"), "while it is looked at");
    let generation = survivor.restart().expect("room");
    assert_eq!(generation.count, 2);
    let again = Survivor::open(dir.path(), 2).expect("it can be gone on from").outlook().clone();
    assert_eq!((again.generation, &again.members[..], again.votes), (generation, &[2][..], true));
    assert_eq!((again.decided, again.kept, again.accepted), (5, 5, 5), "the entry that begins it is slot 5");
}

#[test]
fn a_survivor_that_was_only_looked_at_is_as_it_was() {
    let dir = TempDir::new();
    member(dir.path(), 2);
    drop(Survivor::open(dir.path(), 2).expect("it can be gone on from"));
    let looked = look(dir.path(), 2);
    assert!(
        matches!(looked.history(), History::Started { configuration, life: Life(0) } if configuration.generation == Generation::FIRST)
    );
}

#[test]
fn what_cannot_be_gone_on_from_is_refused_with_a_reason() {
    let dir = TempDir::new();
    assert!(refusal(Survivor::open(dir.path(), 2)).contains("no journal"));
    member(dir.path(), 2);
    assert!(refusal(Survivor::open(dir.path(), 1)).contains("of member 2, not of member 1"));
    let segment = dir.path().join("journal/00000000000000000001");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    // In the first frame: another follows, so it was durable, and not torn.
    let adapter = b"line/shared";
    let at = bytes.windows(adapter.len()).rposition(|window| window == adapter).expect("the proposal has it");
    bytes[at] ^= 1;
    std::fs::write(&segment, &bytes).expect("written");
    let why = refusal(Survivor::open(dir.path(), 2));
    assert!(why.contains("damaged"), "{why}");
    let blank = TempDir::new();
    drop(look(blank.path(), 2).resume().expect("a new one"));
    assert!(refusal(Survivor::open(blank.path(), 2)).contains("not part of a cluster"));
}

#[tokio::test]
async fn a_survivor_goes_on_from_its_snapshot() {
    let dir = TempDir::new();
    member(dir.path(), 2);
    snapshot(dir.path(), 2).await;
    let survivor = Survivor::open(dir.path(), 2).expect("it can be gone on from");
    assert_eq!((survivor.outlook().snapshot, survivor.outlook().kept), (2, 4));
    survivor.restart().expect("room");
}

#[tokio::test]
async fn a_backup_begins_a_generation_in_members_without_history() {
    let (source, new) = (TempDir::new(), TempDir::new());
    let file = snapshot(source.path(), 7).await;
    let backup = Backup::open(&file, &mut |_, _| {}).expect("whole");
    assert_eq!((backup.info().slot, backup.info().generation), (Slot(7), Generation::FIRST));
    let place = |id: u32| new.path().join(id.to_string());
    // One of them waits for its cluster already.
    drop(look(&place(2), 2).resume().expect("a new one"));
    let targets = || [2, 0].map(|id| Target::open(id, &place(id)).expect("blank")).into();
    let prepared = backup.prepare(targets()).expect("blank");
    let mut told = Vec::new();
    let generation = prepared.restore(&mut |id, done, total| told.push((id, done == total))).expect("room");
    assert!(told.contains(&(0, true)) && told.contains(&(2, true)));
    let mut lives = Vec::new();
    for id in [0, 2] {
        let outlook = Survivor::open(&place(id), id).expect("it is part of a cluster").outlook().clone();
        assert_eq!((outlook.generation, &outlook.members[..], outlook.votes), (generation, &[0, 2][..], true));
        assert_eq!((outlook.snapshot, outlook.decided), (7, 10), "and two entries that add the second one");
        let looked = look(&place(id), id);
        let History::Started { life, .. } = looked.history() else { panic!("it is part of a cluster") };
        lives.push(*life);
    }
    assert_ne!(lives[0], lives[1]);
    assert!(refusal(Target::open(0, &place(0))).contains("has snapshots"), "nothing is restored twice");
}

#[tokio::test]
async fn a_backup_is_not_restored_over_history_nor_into_strangers() {
    let (source, new) = (TempDir::new(), TempDir::new());
    let file = snapshot(source.path(), 7).await;
    let backup = Backup::open(&file, &mut |_, _| {}).expect("whole");
    member(&new.path().join("0"), 0);
    let into =
        |id: u32, dir: &str| backup.prepare(vec![Target::open(id, &new.path().join(dir)).expect("no snapshots")]);
    assert!(refusal(into(0, "0")).contains("history"));
    assert!(refusal(into(1, "0")).contains("another member's"));
    assert!(refusal(into(5, "5")).contains("below 3 only"));
    let twice = ["a", "b"].map(|dir| Target::open(1, &new.path().join(dir)).expect("blank"));
    assert!(refusal(backup.prepare(twice.into())).contains("twice"));
    let mut bytes = std::fs::read(&file).expect("a file");
    bytes[1 << 20] ^= 1;
    std::fs::write(&file, &bytes).expect("written");
    assert!(refusal(Backup::open(&file, &mut |_, _| {})).contains("damaged"));
}

#[tokio::test]
async fn what_is_set_aside_is_renamed_and_the_member_has_no_history_then() {
    let dir = TempDir::new();
    for number in 1..=2 {
        member(dir.path(), 2);
        snapshot(dir.path(), 2).await;
        let aside = Aside::open(dir.path()).expect("a member");
        assert_eq!((aside.id(), aside.cluster()), (2, CLUSTER));
        let moved = set_aside(&aside).expect("renamed");
        let names = ["snapshots", "journal"].map(|name| dir.path().join(format!("{name}.superseded-{number}")));
        assert_eq!(moved, names);
        drop(aside);
        let target = Target::open(2, dir.path());
        drop(target.expect("what is aside is no history"));
    }
}

#[tokio::test]
async fn snapshots_of_another_generation_are_not_begun_with() {
    let dir = TempDir::new();
    snapshot(dir.path(), 7).await;
    let snapshots = snapshot::offline::here(dir.path(), CLUSTER).expect("a directory");
    snapshots.leave_others(Generation::FIRST).expect("nothing to do");
    assert_eq!(snapshots.newest(), Some(Slot(7)));
    snapshots.leave_others(Generation::FIRST.next(1)).expect("renamed");
    assert_eq!(snapshots.newest(), None);
    assert!(dir.path().join("snapshots/00000000000000000007.superseded").exists());
    assert_eq!(snapshot::offline::here(dir.path(), CLUSTER).expect("a directory").newest(), None);
}
