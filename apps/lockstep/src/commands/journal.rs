//! `lockstep journal`: shows and checks the journals of servers, for people and scripts.

use crate::exit::{Exit, Failure};
use crate::up::output::Format;
use mesh::order::Verdict;
use serde_json::Value;
use sidecar::journal_tool::{self, Report, Segment, View};
use std::fmt::Write as _;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Below so many bytes nobody wants to see how far the reading is.
const LONG_BYTES: u64 = 64 << 20;

/// What to do.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print every record; changes nothing. Of a server that runs, the last write may look torn
    Dump {
        /// Data directory of a server or of up, or a journal that was set aside
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// text for people, json (one record a line) for scripts
        #[arg(short, long, value_enum, default_value = "text")]
        output: Format,
        /// Show the bodies of requests, too
        #[arg(long)]
        payloads: bool,
    },
    /// Check every byte that was written; exits with 4 on damage, which a torn last write is not. Changes nothing
    Verify {
        /// Data directory of a server or of up, or a journal that was set aside
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
    },
}

/// Does it.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let damaged = match command {
        Command::Dump { data_dir, output, payloads } => {
            each(&data_dir, |journal| dump(&mut out, journal, output, payloads))
        }
        Command::Verify { data_dir } => each(&data_dir, |journal| verify(&mut out, journal)),
    };
    let result = damaged.and_then(|damaged| {
        out.flush()?;
        Ok(damaged)
    });
    match result {
        // Whoever read has enough.
        Err(error) if is_closed(&error) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(damaged) if damaged.is_empty() => Ok(()),
        Ok(damaged) => Err(Failure::new(Exit::Invalid, damaged.join("\n"))),
    }
}

fn is_closed(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Does it for every journal there is; a line for each that is damaged.
fn each(dir: &Path, mut f: impl FnMut(&Path) -> anyhow::Result<Report>) -> anyhow::Result<Vec<String>> {
    let mut damaged = Vec::new();
    for journal in journal_tool::journals(dir)? {
        if let Verdict::Damaged { segment, fault } = f(&journal)?.verdict {
            damaged.push(format!(
                "{} is damaged in segment {segment}: {fault}. Its server sets it aside when it starts, and is taught by its peers",
                journal.display()
            ));
        }
    }
    Ok(damaged)
}

fn dump(out: &mut impl Write, journal: &Path, output: Format, payloads: bool) -> anyhow::Result<Report> {
    let mut show = |view: &View| match output {
        Format::Text => show_text(out, view, payloads),
        Format::Json => show_json(out, view, journal, payloads),
    };
    let report = journal_tool::read(journal, &mut show, &mut progress())?;
    if output == Format::Text {
        for segment in report.segments.iter().filter(|segment| segment.remains.is_some()) {
            writeln!(out, "{}", describe(segment))?;
        }
    }
    Ok(report)
}

fn show_json(out: &mut impl Write, view: &View, journal: &Path, payloads: bool) -> io::Result<()> {
    for mut record in view.records(payloads) {
        record["journal"] = journal.to_string_lossy().into();
        record["segment"] = view.segment().into();
        record["offset"] = view.at().into();
        writeln!(out, "{record}")?;
    }
    Ok(())
}

fn show_text(out: &mut impl Write, view: &View, payloads: bool) -> io::Result<()> {
    let records = view.records(payloads);
    let (segment, at, bytes) = (view.segment(), view.at(), view.bytes());
    writeln!(out, "segment {segment} at {at}: frame of {bytes} bytes, {} records", records.len())?;
    for record in records {
        writeln!(out, "  {}", line(&record))?;
        for request in record["requests"].as_array().into_iter().flatten() {
            writeln!(out, "    {}", line(request))?;
        }
    }
    Ok(())
}

/// A record's kind, then its fields.
fn line(record: &Value) -> String {
    let mut line = record["kind"].as_str().unwrap_or_default().to_owned();
    for (name, value) in record.as_object().into_iter().flatten() {
        // Writing to a String cannot fail.
        let _ = match (name.as_str(), value) {
            ("kind", _) | (_, Value::Null) => Ok(()),
            (_, Value::Array(list)) if name == "requests" => write!(line, " requests={}", list.len()),
            ("payload", Value::String(text)) => write!(line, " payload=\"{text}\""),
            (_, Value::String(text)) => write!(line, " {name}={}", text.replace(' ', "_")),
            (_, value) => write!(line, " {name}={value}"),
        };
    }
    line
}

fn verify(out: &mut impl Write, journal: &Path) -> anyhow::Result<Report> {
    let report = journal_tool::read(journal, &mut |_| Ok(()), &mut progress())?;
    let owner = report.owner.as_ref();
    let owner = owner.map_or("nobody knows which member".to_owned(), |owner| {
        format!("member {} of cluster {}", owner.id, owner.cluster)
    });
    writeln!(out, "{}: of {owner}", journal.display())?;
    for segment in &report.segments {
        writeln!(out, "  {}", describe(segment))?;
    }
    match report.verdict {
        Verdict::Whole => writeln!(out, "  whole")?,
        Verdict::Torn { segment } => writeln!(
            out,
            "  whole but for the last write, in segment {segment}, which was cut short: nothing rests on it, and the \
             server removes it when it starts"
        )?,
        Verdict::Forgotten | Verdict::Damaged { .. } => writeln!(out, "  damaged")?,
    }
    Ok(report)
}

fn describe(segment: &Segment) -> String {
    let Segment { file, frames, end, highest, .. } = segment;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if !segment.header {
        return format!("segment {name}: the header does not check out, so nothing in it can be read");
    }
    let mut text = match (frames, segment.head) {
        (0, true) => format!("segment {name}: made ahead of need, nothing is written in it"),
        (_, true) => format!("segment {name}: {frames} frames check out, up to byte {end}; highest slot {highest}"),
        (_, false) => format!("segment {name}: its first frame, at byte {end}, does not check out"),
    };
    if let Some(remains) = segment.remains {
        let _ = write!(text, "; bytes {end} to {remains} are no frame");
    }
    if let Some(valid) = segment.valid {
        let _ = write!(text, "; behind them, at byte {valid}, a frame checks out");
    }
    text
}

/// Shows on a terminal how far a long read is.
fn progress() -> impl FnMut(u64, u64) {
    let shown = io::stderr().is_terminal();
    let mut last = None;
    move |done, total| {
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
        if shown && total >= LONG_BYTES && last != Some(percent) {
            last = Some(percent);
            let end = if done == total { "\n" } else { "" };
            // Nobody needs it.
            let _ = write!(io::stderr(), "\r{percent} % of {} MiB read{end}", total >> 20);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_begins_with_the_kind_and_counts_requests() {
        let record = json!({ "kind": "accepted", "slot": 7, "requests": [1, 2], "silent": null });
        assert_eq!(line(&record), "accepted requests=2 slot=7");
        assert_eq!(line(&json!({ "kind": "call", "payload": "a b" })), "call payload=\"a b\"");
    }

    #[test]
    fn a_directory_without_a_journal_is_refused() {
        let none = Command::Verify { data_dir: "/nowhere/at/all".into() };
        assert_eq!(run(none).expect_err("there is none").exit(), Exit::Failed);
    }
}
