//! Reads journals for people and scripts. Nothing is changed and nothing is locked: of a member that runs, the last frame
//! may be seen in the middle of being written, which then looks torn.

use super::entry::{Entry, History};
use super::error::JournalError;
use super::format::Identity;
use super::scan::{self, Found, Frame};
use super::start::FOLDER;
use anyhow::{Context, ensure};
use mesh::ids::{ReplicaId, Slot};
use mesh::order::{Behind, Record, Scan, Verdict, judge};
use mesh::wire::peer::{Batch, Command};
use mesh::wire::{Body, Request};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// What was found in a journal.
#[derive(Debug)]
pub struct Report {
    /// Whose it is, if any header tells.
    pub owner: Option<Owner>,
    /// Its segments, by their numbers.
    pub segments: Vec<Segment>,
    /// What its state means at the next start (durability `async` and a new boot of the machine left aside).
    pub verdict: Verdict,
}

/// Whose a journal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster's name.
    pub cluster: String,
    /// The member.
    pub id: ReplicaId,
}

/// What was found in one segment.
#[derive(Debug)]
pub struct Segment {
    /// Its file.
    pub file: PathBuf,
    /// Its number.
    pub number: u64,
    /// Frames that check out, from the first on.
    pub frames: u64,
    /// Where they end.
    pub end: u64,
    /// The highest slot with a vote in them.
    pub highest: Slot,
    /// Its header checks out.
    pub header: bool,
    /// It has a head, or nothing at all is written in it yet.
    pub head: bool,
    /// Where the bytes end that are behind the last frame and are none, if there are any.
    pub remains: Option<u64>,
    /// Where a frame begins among these that checks out.
    pub valid: Option<u64>,
}

/// One frame: what one write and one sync made durable together.
#[derive(Debug)]
pub struct View(Frame);

impl View {
    /// The segment's number.
    #[must_use]
    pub const fn segment(&self) -> u64 {
        self.0.segment
    }

    /// Where it begins.
    #[must_use]
    pub const fn at(&self) -> u64 {
        self.0.offset
    }

    /// Bytes that it takes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Its records, each with its `kind`; the bodies of requests only with `payloads`, non-ASCII escaped.
    pub fn records(&self, payloads: bool) -> impl ExactSizeIterator<Item = Value> {
        self.0.entries.iter().map(move |entry| value(entry, payloads))
    }
}

/// The folders of the journals at `dir`: of a member's data directory, of every member's in the data directory of `up`,
/// or `dir` itself where that is one, such as one that was set aside.
///
/// # Errors
/// There is none, or the system's.
pub fn journals(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let own = dir.join(FOLDER);
    ensure!(
        !own.is_file(),
        "{} is a journal of format version 1 or no journal: use the program that wrote it",
        own.display()
    );
    if own.is_dir() {
        return Ok(vec![own]);
    }
    let (mut members, mut segments) = (Vec::new(), false);
    let failed = || format!("cannot read {}", dir.display());
    for entry in std::fs::read_dir(dir).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix("server-").and_then(|number| number.parse::<u32>().ok());
        if let Some(number) = number.filter(|_| entry.path().join(FOLDER).is_dir()) {
            members.push((number, entry.path().join(FOLDER)));
        }
        segments |= scan::number(&name).is_some();
    }
    if segments {
        return Ok(vec![dir.to_owned()]);
    }
    ensure!(
        !members.is_empty(),
        "there is no journal in {}: give the data directory of a server, or of up",
        dir.display()
    );
    members.sort_unstable();
    Ok(members.into_iter().map(|(_, folder)| folder).collect())
}

/// Reads a journal; `visit` gets every frame that checks out, `progress` so many bytes of so many.
///
/// # Errors
/// The system's or `visit`'s, or another version of this program wrote it. Damage is none: it is in the report.
pub fn read(
    folder: &Path,
    visit: &mut dyn FnMut(&View) -> io::Result<()>,
    progress: &mut dyn FnMut(u64, u64),
) -> anyhow::Result<Report> {
    let segments = scan::segments(folder)?;
    let total = segments.iter().filter_map(|(_, path)| Some(path.metadata().ok()?.len())).sum();
    let mut done = 0;
    let mut all: Vec<Found> = Vec::new();
    let mut owner = None;
    for (number, path) in segments {
        let file = match File::open(&path) {
            // The member cut it meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound && all.is_empty() => continue,
            file => file.with_context(|| format!("cannot open {}", path.display()))?,
        };
        let mut found = scan::read_segment(&file, &path, number, &mut |frame| {
            progress(done + frame.offset, total);
            visit(&View(frame)).map_err(JournalError::io("cannot show the content of", &path))
        })?;
        done += found.length;
        scan::refuse_strangers(&all, &mut found);
        if let (None, Some(header)) = (&owner, &found.header) {
            let Identity { cluster, id } = header.identity.clone();
            owner = Some(Owner { cluster, id });
        }
        all.push(found);
    }
    progress(total, total);
    let verdict = judge(&Scan { segments: all.iter().map(|found| found.seen).collect(), forgotten: false });
    Ok(Report { owner, segments: all.into_iter().map(segment).collect(), verdict })
}

fn segment(found: Found) -> Segment {
    let Found { path, seen, until, valid, frames, highest, .. } = found;
    Segment {
        file: path,
        number: seen.number,
        frames,
        end: seen.end,
        highest,
        header: seen.header,
        head: seen.head.is_some() || (frames == 0 && seen.behind == Behind::Nothing),
        remains: (until > seen.end).then_some(until),
        valid,
    }
}

fn value(entry: &Entry, payloads: bool) -> Value {
    match entry {
        Entry::Head { previous_end, summary } => json!({
            "kind": "head",
            "previous_end": previous_end,
            "history": history(&summary.history),
            "boot": summary.boot,
            "promised": summary.promised.to_string(),
            "decided": summary.decided.0,
            "silent": summary.silent.map(|at| at.to_string()),
            "jumped": summary.jumped.0,
            "superseded": summary.superseded,
        }),
        Entry::Proposed { token, cluster } => {
            json!({ "kind": "proposed", "token": format!("{token:032x}"), "cluster": cluster })
        }
        Entry::Started => json!({ "kind": "started" }),
        Entry::Learner { configuration, life } => {
            json!({ "kind": "learner", "life": format!("{:016x}", life.0), "configuration": configuration })
        }
        Entry::Booted { boot } => json!({ "kind": "booted", "boot": boot }),
        Entry::Core(Record::Promised { ballot }) => json!({ "kind": "promised", "ballot": ballot.to_string() }),
        Entry::Core(Record::Accepted { slot, ballot, batch }) => {
            let mut value = batch_value(batch, payloads);
            value["kind"] = json!("accepted");
            value["slot"] = json!(slot.0);
            value["ballot"] = json!(ballot.to_string());
            value
        }
        Entry::Core(Record::Decided { slot }) => json!({ "kind": "decided", "slot": slot.0 }),
        Entry::Core(Record::Silent { at }) => json!({ "kind": "silent", "at": at.to_string() }),
        Entry::Core(Record::Jumped { slot }) => json!({ "kind": "jumped", "slot": slot.0 }),
        Entry::Core(Record::Superseded) => json!({ "kind": "superseded" }),
        Entry::Core(Record::Restarted { slot }) => json!({ "kind": "restarted", "slot": slot.0 }),
    }
}

fn history(history: &History) -> Value {
    match history {
        History::Blank => json!("blank"),
        History::Proposed { .. } => json!("proposed"),
        History::Started { configuration, life } => {
            json!(format!("started in life {:016x}, generation {}", life.0, configuration.generation))
        }
        History::Lost => json!("lost"),
    }
}

fn batch_value(batch: &Batch, payloads: bool) -> Value {
    let mut value = json!({
        "time": batch.time,
        "settled": batch.settled.0,
        "requests": batch.requests.iter().map(|request| request_value(request, payloads)).collect::<Vec<_>>(),
    });
    if let Some((slot, digest)) = &batch.agreed {
        value["agreed"] = json!({ "slot": slot.0, "digest": digest.to_string() });
    }
    match &batch.command {
        None => {}
        Some(Command::Configure { against, change }) => {
            value["command"] = json!(format!("{change} (proposed in configuration {against})"));
        }
        Some(Command::Abort { at }) => value["command"] = json!(format!("abort {at}")),
        Some(Command::Restart { generation, member, life }) => {
            let text = format!("generation {generation} begins with member {member} in life {:016x}", life.0);
            value["command"] = json!(text);
        }
    }
    value
}

fn request_value(request: &Request, payloads: bool) -> Value {
    let Request { client, opened, seq, body, proof } = request;
    let kind = match body {
        Body::Open { .. } => "open",
        Body::Call(_) => "call",
        Body::Cancel => "cancel",
        Body::Close => "close",
        Body::Refused(_) => "refused",
        Body::Read(_) => "read",
    };
    let mut value = json!({ "client": client.to_string(), "opened": opened.to_string(), "seq": seq.0, "kind": kind, "bytes": request.call_bytes(), "signed": proof.is_some() });
    match body {
        Body::Call(bytes) if payloads => value["payload"] = json!(bytes.escape_ascii().to_string()),
        Body::Refused(refusal) => value["refusal"] = json!(refusal.to_string()),
        Body::Open { owner: Some(owner), .. } => value["key"] = json!(owner.key.to_string()),
        _ => {}
    }
    value
}
