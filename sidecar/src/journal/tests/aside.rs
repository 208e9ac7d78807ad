//! What follows a verdict: a journal that must not be voted with is kept aside, and another life begins.

use super::*;
use crate::store::settle;

fn look_in(dir: &Path, boot: &str) -> Looked {
    Looked::at(dir, &identity(), &tiny(), boot).expect("it can be looked at")
}

fn life(history: &History) -> Option<(&ClusterConfig, Life)> {
    match history {
        History::Started { configuration, life } => Some((&configuration.cluster, *life)),
        _ => None,
    }
}

fn aside(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("journal."))
        .collect();
    names.sort();
    names
}

#[test]
fn a_damaged_journal_is_kept_aside_and_another_life_begins_without_votes() {
    let dir = TempDir::new();
    let snapshot = dir.path().join("snapshots/1.snapshot");
    std::fs::create_dir_all(dir.path().join("snapshots"))
        .and_then(|()| std::fs::write(&snapshot, b"x"))
        .expect("write");
    let cluster = journal_to(dir.path(), 10);
    flip(&segment(dir.path(), 1), frames(dir.path(), 1)[0] + 20);
    let old = read(&segment(dir.path(), 1), 0, HEADER_BYTES);
    let (journal, recovery) = settle(look_in(dir.path(), "this boot"), true).expect("settled");
    drop(journal);
    let (kept, new_life) = life(&recovery.history).expect("it is part of its cluster");
    assert_eq!(kept, &cluster, "a later segment's head told");
    assert_ne!(new_life, Life(0), "it is another life");
    assert_eq!(voted(&recovery), [0; 0]);
    assert_eq!(aside(dir.path()), ["journal.damaged-1"]);
    assert_eq!(read(&dir.path().join("journal.damaged-1").join(segment_name(1)), 0, HEADER_BYTES), old);
    assert!(snapshot.exists());
    // The next start goes on with the new one.
    let (_, again) = open(dir.path());
    assert_eq!(life(&again.history), Some((&cluster, new_life)));
    assert_eq!(voted(&again), [0; 0]);
}

#[test]
fn a_damaged_journal_that_tells_no_cluster_is_no_blank_one() {
    for started in [false, true] {
        let dir = TempDir::new();
        if started {
            journal_to(dir.path(), 1);
        } else {
            drop(open(dir.path()));
        }
        flip(&segment(dir.path(), 1), 50);
        let (_, recovery) = settle(look_in(dir.path(), "this boot"), true).expect("settled");
        assert_eq!(recovery.history, History::Lost);
        assert_eq!(aside(dir.path()), ["journal.damaged-1"]);
    }
    // A proposal may have been committed where the damage is.
    let dir = TempDir::new();
    let proposed = Entry::Proposed { token: 1, cluster: ClusterConfig::of(3, "line/shared", Durability::Sync) };
    let (mut journal, _) = open(dir.path());
    journal.append([&proposed]).expect("append");
    journal.append([&Entry::Started]).expect("append");
    append(&mut journal, [1]);
    drop(journal);
    flip(&segment(dir.path(), 1), frames(dir.path(), 1)[2] + 2);
    let (_, recovery) = settle(look_in(dir.path(), "this boot"), true).expect("settled");
    assert_eq!(recovery.history, History::Lost);
}

#[test]
fn only_the_newest_ones_are_kept() {
    let dir = TempDir::new();
    journal_to(dir.path(), 3);
    for _ in 0..5 {
        let at = frames(dir.path(), 1)[0];
        flip(&segment(dir.path(), 1), at + 20);
        drop(settle(look_in(dir.path(), "this boot"), true).expect("settled"));
    }
    assert_eq!(aside(dir.path()), ["journal.damaged-3", "journal.damaged-4", "journal.damaged-5"]);
}

#[test]
fn a_member_that_was_cut_off_while_it_set_its_journal_aside_is_not_blank() {
    let dir = TempDir::new();
    let cluster = journal_to(dir.path(), 9);
    flip(&segment(dir.path(), 1), frames(dir.path(), 1)[0] + 20);
    drop(settle(look_in(dir.path(), "this boot"), true).expect("settled"));
    // As it was between the two renames.
    let (journal, new) = (dir.path().join(FOLDER), dir.path().join("journal.new"));
    std::fs::rename(&journal, &new).expect("rename");
    let (_, recovery) = open(dir.path());
    assert_eq!(life(&recovery.history).map(|(cluster, _)| cluster), Some(&cluster));
    assert_eq!(aside(dir.path()), ["journal.damaged-1"]);
    // One that was not made to the end beside a journal, or alone, is none.
    std::fs::create_dir(&new).and_then(|()| std::fs::write(new.join(segment_name(1)), b"LOCK")).expect("write");
    let (_, again) = open(dir.path());
    assert_eq!(again.history, recovery.history);
    assert!(!new.exists());
    std::fs::remove_dir_all(&journal).and_then(|()| std::fs::create_dir(&new)).expect("a new data directory");
    assert_eq!(open(dir.path()).1.history, History::Blank);
}

#[test]
fn without_syncs_another_boot_begins_another_life_and_the_same_one_goes_on() {
    let dir = TempDir::new();
    let cluster = journal_to(dir.path(), 4);
    assert_eq!(look_in(dir.path(), "this boot").judge(false), Verdict::Whole);
    let (journal, recovery) = settle(look_in(dir.path(), "the next boot"), false).expect("settled");
    drop(journal);
    let (kept, begun) = life(&recovery.history).expect("it is part of its cluster");
    assert_eq!((kept, begun == Life(0)), (&cluster, false));
    assert_eq!(voted(&recovery), [0; 0]);
    assert_eq!(aside(dir.path()).len(), 1);
    let (_, again) = settle(look_in(dir.path(), "the next boot"), false).expect("settled");
    assert_eq!(again.history, recovery.history, "nothing was forgotten since");
}

#[test]
fn with_syncs_another_boot_changes_nothing() {
    let dir = TempDir::new();
    journal_to(dir.path(), 4);
    let (journal, recovery) = settle(look_in(dir.path(), "the next boot"), true).expect("settled");
    assert_eq!(voted(&recovery), [1, 2, 3, 4]);
    assert_eq!(journal.summary.boot, "the next boot");
    drop(journal);
    assert_eq!(settle(look_in(dir.path(), "the next boot"), true).expect("settled").0.summary.boot, "the next boot");
    assert!(aside(dir.path()).is_empty());
}

#[test]
fn a_member_that_never_voted_has_nothing_to_forget() {
    let dir = TempDir::new();
    drop(open(dir.path()));
    assert_eq!(look_in(dir.path(), "the next boot").judge(false), Verdict::Whole);
}
