//! Snapshots on a real disk: what is written comes back, what is damaged or unfinished is never used.

use super::*;
use crate::testing::{TempDir, eventually};
use bytes::Bytes;
use mesh::config::{ClusterConfig, Durability};
use mesh::transfer::CHUNK_BYTES;

const CLUSTER: &str = "kv.test";

fn metrics() -> Metrics {
    Metrics::new(&mut mesh::node::registry())
}

fn open(dir: &TempDir) -> Snapshots {
    Snapshots::open(dir.path(), CLUSTER, ReplicaId(1), &metrics()).expect("a store")
}

fn image(slot: u64) -> Box<Image> {
    let mut image = Image::genesis(ClusterConfig::of(3, "line/shared", Durability::Sync));
    image.slot = Slot(slot);
    Box::new(image)
}

/// Bytes that differ from chunk to chunk.
fn dump(length: usize) -> Bytes {
    (0..length).map(|at| (at / 1000) as u8).collect::<Vec<_>>().into()
}

async fn take(snapshots: &Snapshots, slot: u64, dump: &Bytes) {
    let mut writer = snapshots.writer(image(slot));
    for piece in dump.chunks(300_000) {
        writer.write(dump.slice_ref(piece)).await.expect("room");
    }
    writer.finish().await.expect("a snapshot");
}

async fn read(snapshots: &Snapshots, slot: u64) -> anyhow::Result<Vec<u8>> {
    let mut reader = snapshots.reader(Slot(slot))?;
    let mut all = Vec::new();
    while let Some(chunk) = reader.next().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

fn files(dir: &TempDir) -> Vec<String> {
    names(&directory(dir.path())).expect("a directory")
}

fn flip(dir: &TempDir, name: &str, at: impl FnOnce(usize) -> usize) {
    let path = directory(dir.path()).join(name);
    let mut bytes = std::fs::read(&path).expect("a file");
    let at = at(bytes.len());
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).expect("written");
}

#[tokio::test]
async fn what_was_taken_is_read_back_by_this_process_and_the_next() {
    let dir = TempDir::new();
    let snapshots = open(&dir);
    for (slot, length) in [(5, 0), (6, 10), (7, 3 * CHUNK_BYTES + 17)] {
        let dump = dump(length);
        take(&snapshots, slot, &dump).await;
        assert_eq!(read(&snapshots, slot).await.expect("whole"), dump);
    }
    let again = open(&dir);
    assert_eq!(again.list().len(), 3);
    assert_eq!(again.newest(), Some(Slot(7)));
    assert_eq!(again.newest_image(), Some(image(7)));
    assert_eq!(read(&again, 7).await.expect("whole"), dump(3 * CHUNK_BYTES + 17));
    let mut told = Vec::new();
    again.verify(Slot(7), &mut |done| told.push(done)).expect("whole");
    assert_eq!(told.len(), 4);
}

#[tokio::test]
async fn what_is_given_up_or_cut_off_leaves_nothing() {
    let dir = TempDir::new();
    let snapshots = open(&dir);
    let mut writer = snapshots.writer(image(5));
    writer.write(dump(2 * CHUNK_BYTES)).await.expect("room");
    eventually("it is begun", || !files(&dir).is_empty());
    drop(writer);
    eventually("nothing is left", || files(&dir).is_empty());
    assert_eq!(snapshots.newest(), None);
    assert!(read(&snapshots, 5).await.is_err());
    for leftover in ["00000000000000000009.new", "00000000000000000009.part"] {
        std::fs::write(directory(dir.path()).join(leftover), b"half").expect("written");
    }
    open(&dir);
    assert!(files(&dir).is_empty(), "leftovers of a crash are removed at the next start");
}

#[tokio::test]
async fn a_flipped_byte_anywhere_is_found_and_the_snapshot_set_aside() {
    let dir = TempDir::new();
    let snapshots = open(&dir);
    for slot in [5, 6, 7, 8] {
        take(&snapshots, slot, &dump(2 * CHUNK_BYTES)).await;
    }
    drop(snapshots);
    // The manifest: found at the start.
    flip(&dir, &format::name(Slot(8)), |length| length - 60);
    // The image: found when the newest is looked for.
    flip(&dir, &format::name(Slot(7)), |_| 0);
    // The dump: found when it is read.
    flip(&dir, &format::name(Slot(6)), |_| CHUNK_BYTES + 5);
    let snapshots = open(&dir);
    assert_eq!(snapshots.newest(), Some(Slot(7)));
    assert_eq!(snapshots.newest_image(), Some(image(6)));
    let error = read(&snapshots, 6).await.expect_err("damaged").to_string();
    assert!(error.contains("chunk 1 of 3"), "{error}");
    assert_eq!(snapshots.newest(), Some(Slot(5)));
    assert_eq!(files(&dir), [format::name(Slot(5)), "last.damaged".to_owned()]);
    assert_eq!(read(&snapshots, 5).await.expect("whole"), dump(2 * CHUNK_BYTES));
}

#[tokio::test]
async fn a_cut_leaves_the_newest_verified_and_never_less() {
    let dir = TempDir::new();
    let snapshots = open(&dir);
    for slot in [5, 6] {
        take(&snapshots, slot, &dump(10)).await;
    }
    snapshots.cut(Slot(7));
    assert_eq!(snapshots.list().len(), 2, "none is at or above the cut");
    drop(snapshots);
    let snapshots = open(&dir);
    snapshots.cut(Slot(6));
    assert_eq!(snapshots.list().len(), 2, "none was read back by this process");
    let old = snapshots.file(Slot(6)).expect("kept");
    take(&snapshots, 9, &dump(10)).await;
    snapshots.cut(Slot(6));
    assert_eq!(snapshots.list().len(), 1);
    eventually("older ones are removed", || files(&dir) == [format::name(Slot(9))]);
    old.verify(&mut |_| {}).expect("who reads it goes on");
}

#[tokio::test]
async fn what_a_diverged_application_gave_is_used_by_nobody() {
    let dir = TempDir::new();
    let snapshots = open(&dir);
    for slot in [5, 6] {
        take(&snapshots, slot, &dump(10)).await;
    }
    let served = snapshots.file(Slot(6)).expect("kept");
    let under_way = snapshots.writer(image(7));
    snapshots.discard(Slot(5));
    assert!(served.is_revoked());
    assert_eq!(snapshots.newest(), Some(Slot(5)));
    let error = under_way.finish().await.expect_err("it is of the same application").to_string();
    assert!(error.contains("diverged"), "{error}");
    eventually("their files are removed", || files(&dir) == [format::name(Slot(5))]);
    take(&snapshots, 6, &dump(20)).await;
    assert_eq!(read(&snapshots, 6).await.expect("the new one"), dump(20));
}

#[tokio::test]
async fn a_snapshot_of_another_cluster_is_refused() {
    let dir = TempDir::new();
    take(&open(&dir), 5, &dump(10)).await;
    let error = Snapshots::open(dir.path(), "other.test", ReplicaId(1), &metrics()).expect_err("another cluster");
    assert!(format!("{error:#}").contains(CLUSTER), "{error:#}");
    let renamed = directory(dir.path()).join(format::name(Slot(6)));
    std::fs::rename(directory(dir.path()).join(format::name(Slot(5))), renamed).expect("renamed");
    let error = Snapshots::open(dir.path(), CLUSTER, ReplicaId(1), &metrics()).expect_err("another slot");
    assert!(error.to_string().contains("is of slot 5"), "{error}");
}

#[tokio::test]
async fn a_received_snapshot_is_the_one_that_was_sent() {
    let (here, there) = (TempDir::new(), TempDir::new());
    let sender = open(&there);
    let dump = dump(2 * CHUNK_BYTES + 1);
    take(&sender, 5, &dump).await;
    let sent = sender.file(Slot(5)).expect("kept");
    let receiver = open(&here);
    let mut part = receiver.part(sent.manifest().clone()).expect("room");
    for index in (0..sent.manifest().chunks.len()).rev() {
        part.write(index, &sent.chunk(index).expect("whole")).expect("room");
    }
    assert_eq!(part.finish().expect("whole"), image(5));
    assert_eq!(receiver.file(Slot(5)).expect("kept").digest(), sent.digest());
    assert_eq!(read(&receiver, 5).await.expect("whole"), dump);
    let mut wrong = receiver.part(sent.manifest().clone()).expect("room");
    wrong.write(0, b"nonsense").expect("room");
    assert!(wrong.finish().is_err(), "read back, it is not what the manifest says");
    assert_eq!(files(&here), [format::name(Slot(5))]);
}

#[tokio::test]
async fn a_command_lists_verifies_and_restores_into_an_empty_directory_only() {
    let (dir, empty, used) = (TempDir::new(), TempDir::new(), TempDir::new());
    let snapshots = open(&dir);
    for slot in [5, 6] {
        take(&snapshots, slot, &dump(2 * CHUNK_BYTES)).await;
    }
    flip(&dir, &format::name(Slot(5)), |length| length - 60);
    let listed = offline::list(dir.path()).expect("a directory");
    assert_eq!(listed.iter().map(|(_, info)| info.is_ok()).collect::<Vec<_>>(), [false, true]);
    assert_eq!(files(&dir).len(), 2, "a command changes nothing");
    let file = directory(dir.path()).join(format::name(Slot(6)));
    let mut told = (0, 0);
    let info = offline::verify(&file, &mut |done, total| told = (done, total)).expect("whole");
    assert_eq!((info.slot, info.member, told), (Slot(6), 1, (info.bytes, info.bytes)));

    let restored = offline::restore(&file, empty.path(), &mut |_, _| {}).expect("room");
    assert_eq!((restored.slot, restored.member), (Slot(6), 1));
    assert_eq!(read(&open(&empty), 6).await.expect("whole"), dump(2 * CHUNK_BYTES));
    let again = offline::restore(&file, empty.path(), &mut |_, _| {}).expect_err("it has one").to_string();
    assert!(again.contains("snapshots already"), "{again}");
    let lock = crate::journal::lock(used.path()).expect("nobody else's");
    offline::restore(&file, used.path(), &mut |_, _| {}).expect_err("its member runs");
    drop(lock);
    std::fs::write(used.path().join("journal"), b"history").expect("written");
    let history = offline::restore(&file, used.path(), &mut |_, _| {}).expect_err("votes").to_string();
    assert!(history.contains("forget its votes"), "{history}");

    flip(&dir, &format::name(Slot(6)), |_| CHUNK_BYTES);
    offline::verify(&file, &mut |_, _| {}).expect_err("a flipped byte");
    let clean = TempDir::new();
    offline::restore(&file, clean.path(), &mut |_, _| {}).expect_err("a flipped byte");
    assert_eq!(files(&clean), [""; 0], "nothing of it stays");
}
