//! What is kept of calls for the case of divergence (rule 31): the last ones with their replies, in a bounded ring. When
//! this member turns out to have diverged, those after the last agreed slot are set aside; the rebuilt application
//! executes the same slots, and the first replies that differ are written to a file, for `lockstep diff`.

use bytes::Bytes;
use mesh::ids::{Digest, Slot};
use mesh::order::AppReply;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of requests and replies that are kept.
const RING_BYTES: usize = 8 << 20;
/// Bytes of one request or reply that are kept.
const PART_BYTES: usize = 64 << 10;
/// What an entry costs beside its bytes.
const ENTRY_BYTES: usize = 128;
/// Pairs of one file.
const PAIRS: usize = 16;
/// Files that are kept.
const FILES: usize = 8;

/// See the module; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Evidence(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    data_dir: Option<PathBuf>,
    ring: VecDeque<(Place, Entry)>,
    bytes: usize,
    comparison: Option<Comparison>,
}

/// A call: the place among the calls of a slot.
type Place = (Slot, usize);

#[derive(Debug)]
struct Entry {
    request: Box<[u8]>,
    reply: Box<[u8]>,
    form: Digest,
}

/// What the diverged application said, until the rebuilt one has said all of it again.
#[derive(Debug)]
struct Comparison {
    /// Where the divergence was judged, and the last slot that was agreed on.
    slot: Slot,
    agreed: Slot,
    before: BTreeMap<Place, Entry>,
    pairs: Vec<Pair>,
}

/// One file.
#[derive(Debug, Serialize)]
struct File<'a> {
    slot: u64,
    agreed: u64,
    pairs: &'a [Pair],
}

#[derive(Debug, Serialize)]
struct Pair {
    slot: u64,
    call: usize,
    request: Part,
    before: Part,
    after: Part,
}

/// Bytes as people and as programs read them.
#[derive(Debug, Serialize)]
struct Part {
    text: String,
    hex: String,
}

impl Evidence {
    pub(crate) fn new(data_dir: Option<PathBuf>) -> Self {
        Self(Arc::new(Mutex::new(Inner { data_dir, ..Inner::default() })))
    }

    /// The application executed a slot.
    pub(super) fn executed<'a>(&self, slot: Slot, requests: impl Iterator<Item = &'a Bytes>, replies: &[AppReply]) {
        let mut inner = self.inner();
        for (call, (request, reply)) in requests.zip(replies).enumerate() {
            inner.compare((slot, call), request, reply);
            inner.keep((slot, call), Entry::new(request, &reply.bytes, reply.form));
        }
        inner.compared(slot);
    }

    /// A run begins: what it executes is not to be mixed with what the last one did.
    pub(super) fn begin(&self) {
        let mut inner = self.inner();
        inner.ring.clear();
        inner.bytes = 0;
    }

    /// A majority agreed on other replies than ours at `slot`, and on the same up to `agreed`: what is kept of the slots
    /// after that is compared with what the rebuilt application says.
    pub(crate) fn diverged(&self, slot: Slot, agreed: Slot) {
        let mut inner = self.inner();
        let ring = std::mem::take(&mut inner.ring);
        inner.bytes = 0;
        let before = ring.into_iter().filter(|((slot, _), _)| *slot > agreed).collect();
        inner.comparison = Some(Comparison { slot, agreed, before, pairs: Vec::new() });
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(request: &[u8], reply: &[u8], form: Digest) -> Self {
        Self { request: cut(request).into(), reply: cut(reply).into(), form }
    }

    const fn bytes(&self) -> usize {
        self.request.len() + self.reply.len() + ENTRY_BYTES
    }
}

impl Inner {
    fn keep(&mut self, place: Place, entry: Entry) {
        self.bytes += entry.bytes();
        self.ring.push_back((place, entry));
        while self.bytes > RING_BYTES
            && let Some((_, oldest)) = self.ring.pop_front()
        {
            self.bytes -= oldest.bytes();
        }
    }

    fn compare(&mut self, place: Place, request: &[u8], after: &AppReply) {
        let Some(comparison) = &mut self.comparison else { return };
        let Some(before) = comparison.before.remove(&place) else { return };
        // Another request means that the call was not executed in the same place: it says nothing of the replies.
        if before.form != after.form && *before.request == *cut(request) && comparison.pairs.len() < PAIRS {
            comparison.pairs.push(Pair {
                slot: place.0.0,
                call: place.1,
                request: Part::of(&before.request),
                before: Part::of(&before.reply),
                after: Part::of(cut(&after.bytes)),
            });
        }
    }

    /// Writes the file when everything that can be compared up to `slot` was.
    fn compared(&mut self, slot: Slot) {
        let Some(comparison) = &self.comparison else { return };
        let more = comparison.before.last_key_value().is_some_and(|((last, _), _)| *last > slot);
        if more && comparison.pairs.len() < PAIRS {
            return;
        }
        let Some(Comparison { slot, agreed, pairs, .. }) = self.comparison.take() else { return };
        let Some(dir) = self.data_dir.as_deref().filter(|_| !pairs.is_empty()) else {
            tracing::warn!(%slot, "the replies that differed before the rebuild are not kept any more, or did not differ again");
            return;
        };
        let path = dir.join(format!("divergence-{slot}.json"));
        let file = File { slot: slot.0, agreed: agreed.0, pairs: &pairs };
        let written = serde_json::to_vec_pretty(&file).map_err(std::io::Error::from);
        match written.and_then(|bytes| std::fs::write(&path, bytes)) {
            Ok(()) => tracing::warn!(file = %path.display(), "what differed is kept: see `lockstep diff`"),
            Err(error) => tracing::error!(%error, file = %path.display(), "what differed cannot be written"),
        }
        remove_old(dir);
    }
}

impl Part {
    fn of(bytes: &[u8]) -> Self {
        let hex = bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
            // Writing to a string does not fail.
            let _ = std::fmt::Write::write_fmt(&mut hex, format_args!("{byte:02x}"));
            hex
        });
        Self { text: String::from_utf8_lossy(bytes).into_owned(), hex }
    }
}

fn cut(bytes: &[u8]) -> &[u8] {
    bytes.get(..PART_BYTES).unwrap_or(bytes)
}

/// Keeps the files of the highest slots.
fn remove_old(dir: &Path) {
    let slot = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix("divergence-")?.strip_suffix(".json")?.parse::<u64>().ok()
    };
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut files: Vec<(u64, PathBuf)> =
        entries.flatten().filter_map(|entry| Some((slot(&entry.path())?, entry.path()))).collect();
    files.sort_unstable();
    let old = files.len().saturating_sub(FILES);
    for (_, path) in &files[..old] {
        // One more is no harm.
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    fn execute(evidence: &Evidence, slot: u64, calls: &[(&str, &str)]) {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let requests: Vec<Bytes> = calls.iter().map(|(request, _)| bytes(request)).collect();
        let replies: Vec<AppReply> = calls
            .iter()
            .map(|(_, reply)| AppReply { bytes: bytes(reply), form: Digest::of(reply.as_bytes()) })
            .collect();
        evidence.executed(Slot(slot), requests.iter(), &replies);
    }

    fn file(dir: &TempDir, slot: u64) -> Option<serde_json::Value> {
        let bytes = std::fs::read(dir.path().join(format!("divergence-{slot}.json"))).ok()?;
        Some(serde_json::from_slice(&bytes).expect("json"))
    }

    #[test]
    fn the_replies_that_differ_after_the_rebuild_are_written() {
        let dir = TempDir::new();
        let evidence = Evidence::new(Some(dir.path().to_owned()));
        execute(&evidence, 1, &[("a", "before the agreed slot")]);
        execute(&evidence, 2, &[("b", "1"), ("c", "wrong")]);
        execute(&evidence, 3, &[("d", "wrong too")]);
        evidence.diverged(Slot(3), Slot(1));
        evidence.begin();
        execute(&evidence, 1, &[("a", "other")]);
        execute(&evidence, 2, &[("b", "1"), ("c", "right")]);
        assert_eq!(file(&dir, 3), None, "slot 3 is to come");
        execute(&evidence, 3, &[("d", "right too")]);
        let file = file(&dir, 3).expect("a file");
        let pairs = file["pairs"].as_array().expect("pairs");
        assert_eq!(pairs.len(), 2);
        assert_eq!(pairs[0]["request"]["text"], "c");
        assert_eq!(pairs[0]["before"]["text"], "wrong");
        assert_eq!(pairs[0]["after"]["hex"], "7269676874");
        assert_eq!((pairs[1]["slot"].as_u64(), pairs[1]["call"].as_u64()), (Some(3), Some(0)));
    }

    #[test]
    fn the_ring_is_bounded_and_forgets_the_oldest() {
        let evidence = Evidence::new(None);
        let long = "x".repeat(1 << 20);
        for slot in 1..=1000 {
            execute(&evidence, slot, &[("request", &long)]);
        }
        let inner = evidence.inner();
        assert!(inner.bytes <= RING_BYTES && inner.ring.len() < 200);
        assert_eq!(inner.ring.back().map(|((slot, _), _)| *slot), Some(Slot(1000)));
    }

    #[test]
    fn few_pairs_and_few_files_are_kept() {
        let dir = TempDir::new();
        let evidence = Evidence::new(Some(dir.path().to_owned()));
        for slot in 1..=10 {
            let calls: Vec<(&str, &str)> = vec![("a", "wrong"); 40];
            execute(&evidence, slot, &calls);
            evidence.diverged(Slot(slot), Slot(slot - 1));
            execute(&evidence, slot, &vec![("a", "right"); 40]);
        }
        assert_eq!(file(&dir, 10).expect("a file")["pairs"].as_array().map(Vec::len), Some(PAIRS));
        assert_eq!(file(&dir, 2), None);
        assert!(file(&dir, 3).is_some());
    }
}
