//! What people and scripts are shown.

use super::super::tool::{journals, read};
use super::*;

fn records(dir: &Path, payloads: bool) -> Vec<serde_json::Value> {
    let mut all = Vec::new();
    let visit = &mut |view: &super::super::tool::View| {
        all.extend(view.records(payloads));
        Ok(())
    };
    read(&dir.join(FOLDER), visit, &mut |_, _| ()).expect("readable");
    all
}

#[test]
fn every_record_is_shown_and_bodies_only_on_demand() {
    let dir = TempDir::new();
    journal_to(dir.path(), 0);
    open(dir.path()).0.append([&accepted(1, b"PUT a \xff\n"), &decided(1)]).expect("append");
    let shown = records(dir.path(), false);
    let kinds: Vec<&str> = shown.iter().filter_map(|record| record["kind"].as_str()).collect();
    let [first, .., vote, mark] = kinds[..] else { panic!("{kinds:?}") };
    assert_eq!((first, vote, mark), ("head", "accepted", "decided"));
    assert!(kinds.contains(&"proposed") && kinds.contains(&"started"), "{kinds:?}");
    let body = |shown: &[serde_json::Value]| shown[shown.len() - 2]["requests"][0]["payload"].clone();
    assert_eq!(body(&shown), serde_json::Value::Null);
    assert_eq!(body(&records(dir.path(), true)), r"PUT a \xff\n");
}

#[test]
fn a_report_has_every_segment_and_the_verdict() {
    let dir = TempDir::new();
    journal_to(dir.path(), 10);
    let report = || read(&dir.path().join(FOLDER), &mut |_| Ok(()), &mut |_, _| ()).expect("readable");
    let whole = report();
    assert_eq!(whole.verdict, Verdict::Whole);
    assert_eq!(whole.owner.as_ref().map(|owner| owner.id), Some(ReplicaId(1)));
    assert_eq!(whole.segments.len(), numbers(dir.path()).len());
    assert!(whole.segments.iter().all(|segment| segment.head && segment.remains.is_none()));
    assert_eq!(whole.segments.last().map(|segment| segment.highest), Some(Slot(10)));
    let at = frames(dir.path(), 2);
    flip(&segment(dir.path(), 2), at[1]);
    let damage = report();
    assert_eq!(damage.verdict, damaged(2, Fault::Frame));
    assert_eq!(damage.segments[1].end, at[1]);
    assert!(damage.segments[1].remains.is_some());
}

#[test]
fn journals_are_found_in_every_kind_of_directory() {
    let dir = TempDir::new();
    assert!(journals(dir.path()).is_err());
    for member in ["server-10", "server-2", "client-1"] {
        journal_to(&dir.path().join(member), 0);
    }
    let (two, ten) = (dir.path().join("server-2"), dir.path().join("server-10"));
    let expected = vec![two.join(FOLDER), ten.join(FOLDER)];
    assert_eq!(journals(dir.path()).expect("two of them"), expected);
    assert_eq!(journals(&two).expect("one"), expected[..1]);
    assert_eq!(journals(&two.join(FOLDER)).expect("itself"), expected[..1]);
    std::fs::write(dir.path().join("client-1/journal.old"), b"").expect("write");
    assert_eq!(journals(&dir.path().join("client-1")).expect("one").len(), 1);
}
