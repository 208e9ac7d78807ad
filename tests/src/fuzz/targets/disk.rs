//! What a disk gives back: journals, snapshots, the execution marker.

use crate::fuzz::{Bound, Seen, Target, scratch};
use mesh::transfer::CHUNK_BYTES;
use sidecar::fuzzing::{journal, marker, snapshot};
use std::path::Path;

/// Buffers of a start, then the records.
const READING: Bound = Bound { per_byte: 256, base: 8 << 20 };

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "journal",
        about: "a start with any entries behind right checks, damaged or torn at some place",
        seeds: journal_seeds,
        words: &[NEXT],
        longest: 2048,
        bound: READING,
        run: journal_start,
    },
    Target {
        name: "journal-bytes",
        about: "a start with any bytes as segments",
        seeds: journal_bytes_seeds,
        words: &[b"LOCKSTEP"],
        longest: 20_000,
        bound: READING,
        run: journal_bytes,
    },
    Target {
        name: "marker",
        about: "the execution marker",
        seeds: marker_seeds,
        words: &[b"lsmark\0\x01"],
        longest: 2048,
        bound: Bound { per_byte: 128, base: 2 << 20 },
        run: marker_read,
    },
    Target {
        name: "snapshot",
        about: "snapshots: any image, any manifest, any bytes",
        seeds: snapshot_seeds,
        words: &[b"LOCKSNAP"],
        longest: 4096,
        bound: Bound { per_byte: 256, base: 8 << 20 },
        run: snapshot_read,
    },
];

/// Between two payloads of the journal's input.
const NEXT: &[u8] = b"\xf5\xf6";

/// Writes a file in the scratch directory, in the place of what was there.
fn put(path: &Path, bytes: &[u8]) {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).expect("a writable scratch directory");
    }
    std::fs::write(path, bytes).expect("a writable scratch directory");
}

/// How many segments, where to damage which one, how much to cut off the last; then payloads.
fn journal_seeds() -> Vec<Vec<u8>> {
    let entries = journal::entries();
    let all = entries[1..].concat();
    let joined = |payloads: &[&[u8]]| payloads.join(NEXT);
    let mut seeds: Vec<Vec<u8>> = entries.iter().map(|entry| joined(&[&entries[0], entry])).collect();
    seeds.push(joined(&entries.iter().map(Vec::as_slice).collect::<Vec<_>>()));
    seeds.push(joined(&[&entries[1], &all, &all]));
    let mut seeds: Vec<Vec<u8>> =
        seeds.into_iter().map(|payloads| [&[1, 0, 0, 0, 0][..], &payloads].concat()).collect();
    // Two segments, the second of which says where the first ends.
    let first = journal::segment(1, &[&entries[1], &all]);
    let second = journal::head(first.len() as u64);
    let two = joined(&[&entries[1], &all, &second, &all]);
    for front in [[2, 0, 0, 0, 0], [2, 1, 16, 10, 0], [2, 2, 16, 90, 0], [2, 0, 0, 0, 9], [2, 2, 0, 20, 0]] {
        seeds.push([&front[..], &two].concat());
    }
    seeds
}

fn journal_start(input: &[u8], seen: &mut Seen) {
    let Some((&[count, damaged, high, low, cut], rest)) = input.split_first_chunk::<5>() else { return };
    let count = usize::from(count % 4);
    let mut payloads: Vec<&[u8]> = Vec::new();
    let mut from = 0;
    for at in 0..rest.len() {
        if rest[at..].starts_with(NEXT) && at >= from {
            payloads.push(&rest[from..at]);
            from = at + NEXT.len();
        }
    }
    payloads.push(rest.get(from..).unwrap_or_default());
    let dir = fresh("journal");
    let each = payloads.len().div_ceil(count.max(1));
    let mut files: Vec<Vec<u8>> = payloads
        .chunks(each)
        .map(<[&[u8]]>::to_vec)
        .enumerate()
        .map(|(at, payloads)| journal::segment(at as u64 + 1, &payloads))
        .collect();
    if let Some(file) = usize::from(damaged).checked_sub(1).and_then(|at| files.get_mut(at)) {
        let at = usize::from(u16::from_be_bytes([high, low])) % file.len();
        file[at] ^= 0x11;
    }
    if let Some(last) = files.last_mut() {
        last.truncate(last.len() - usize::from(cut).min(last.len()));
    }
    for (at, bytes) in files.iter().enumerate() {
        put(&journal::file(&dir, at as u64 + 1), bytes);
    }
    started(&dir, seen);
}

fn fresh(name: &str) -> std::path::PathBuf {
    let dir = scratch().join(name);
    // It may not be there.
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

/// A member starts; and people look at the journal.
fn started(dir: &Path, seen: &mut Seen) {
    let folder = journal::file(dir, 1).parent().map(Path::to_owned).unwrap_or_default();
    let mut records = 0;
    let mut each = |view: &sidecar::journal_tool::View| {
        records += view.records(true).len();
        Ok(())
    };
    match sidecar::journal_tool::read(&folder, &mut each, &mut |_, _| ()) {
        Ok(report) => seen.note(("tool", format!("{:?}", report.verdict), report.segments.len())),
        Err(error) => seen.shape("tool", &format!("{error:#}")),
    }
    seen.length("records", records);
    match journal::start(dir) {
        Ok((verdict, entries)) => seen.note(("start", format!("{verdict:?}"), entries.min(8))),
        Err(words) => {
            seen.note(("refused", words.chars().filter(char::is_ascii_alphabetic).take(60).collect::<String>()));
        }
    }
}

fn journal_bytes_seeds() -> Vec<Vec<u8>> {
    let entries = journal::entries();
    let one = journal::segment(1, &[&entries[1], &entries[7]]);
    let two = journal::segment(2, &[&journal::head(one.len() as u64), &entries[8]]);
    let spare = journal::segment(2, &[]);
    vec![one.clone(), [&one[..], &[0; 64]].concat(), [one.clone(), spare].concat(), [one, two].concat()]
}

/// The bytes are one segment up to the next header, if there is one at a multiple of eight.
fn journal_bytes(input: &[u8], seen: &mut Seen) {
    let dir = fresh("journal-bytes");
    let second = (8..input.len()).step_by(8).find(|at| input[*at..].starts_with(b"LOCKSTEP"));
    let (first, rest) = input.split_at(second.unwrap_or(input.len()));
    put(&journal::file(&dir, 1), first);
    if !rest.is_empty() {
        put(&journal::file(&dir, 2), rest);
    }
    seen.length("first", first.len());
    started(&dir, seen);
}

fn marker_seeds() -> Vec<Vec<u8>> {
    let whole = marker::seeds();
    let mut seeds: Vec<Vec<u8>> = whole.iter().map(|bytes| [b"\0", bytes.as_slice()].concat()).collect();
    seeds.extend(whole.iter().skip(1).map(|bytes| [b"\x01", marker::body(bytes)].concat()));
    seeds
}

/// Any bytes, or the body of a record behind a right check.
fn marker_read(input: &[u8], seen: &mut Seen) {
    let Some((&sealed, bytes)) = input.split_first() else { return };
    let read = if sealed & 1 == 1 { marker::read(&marker::sealed(bytes)) } else { marker::read(bytes) };
    if let Some((whole, outcomes, answered)) = read {
        seen.note((sealed & 1, whole, outcomes.min(9), answered.is_some()));
    }
    seen.length("marker", bytes.len());
}

fn snapshot_seeds() -> Vec<Vec<u8>> {
    let image = snapshot::image();
    let content = [&image[..], b"the application's dump"].concat();
    let manifest = snapshot::manifest(&content, image.len() as u64);
    let file = snapshot::whole(&content, &manifest);
    vec![
        [&[0, 0][..], &file].concat(),
        [&[1, image.len() as u8][..], &content].concat(),
        [&[2, 3][..], &mesh::wire::encode(&manifest)].concat(),
    ]
}

/// Any file; or any content, so that its image may be anything; or any manifest.
fn snapshot_read(input: &[u8], seen: &mut Seen) {
    let Some((&[kind, length], bytes)) = input.split_first_chunk::<2>() else { return };
    let file = match kind % 3 {
        0 => bytes.to_vec(),
        1 => snapshot::whole(bytes, &snapshot::manifest(bytes, u64::from(length))),
        _ => match mesh::wire::decode(bytes) {
            Ok(manifest) => snapshot::whole(&bytes.repeat(usize::from(length)), &manifest),
            Err(_) => return,
        },
    };
    assert!(file.len() < CHUNK_BYTES * 2);
    let path = scratch().join("snapshot");
    put(&path, &file);
    match snapshot::read(&path) {
        Ok(bytes) => seen.note((kind % 3, bytes.checked_ilog2())),
        Err(words) => {
            seen.note((
                kind % 3,
                words.chars().filter(char::is_ascii_alphabetic).skip(20).take(80).collect::<String>(),
            ));
        }
    }
    seen.length("snapshot", bytes.len());
}
