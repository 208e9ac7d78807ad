//! `lockstep diff`: what a replica that diverged said, beside what it said after it was rebuilt.

use crate::exit::Failure;
use crate::up::output::Format;
use anyhow::Context;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Bytes of one request or reply that people are shown.
const SHOWN: usize = 200;
/// Folders below the given one that are looked into.
const MEMBERS: usize = 64;

/// Settings of the comparison.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Data directory of a sidecar, or of an `up`
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// How to print it
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// Prints every divergence that is kept.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let found = find(&args.data_dir)?;
    let text = match args.output {
        Format::Json => format!("{}\n", json!({ "divergences": found })),
        Format::Text if found.is_empty() => format!(
            "no divergence is kept in {}: either none was found, or its replies did not differ again after the rebuild\n",
            args.data_dir.display()
        ),
        Format::Text => found.iter().map(render).collect(),
    };
    // Whoever closes stdout wants no more.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// The files of the directory, and of the members' directories below that of an `up`, in order of slots.
fn find(dir: &Path) -> anyhow::Result<Vec<Value>> {
    let mut found = read_all(dir)?;
    let mut members: Vec<PathBuf> =
        entries(dir)?.into_iter().filter(|path| path.is_dir() && !path.is_symlink()).collect();
    members.sort_unstable();
    for member in members.iter().take(MEMBERS) {
        found.extend(read_all(member)?);
    }
    found.sort_by_key(|file| file["slot"].as_u64());
    Ok(found)
}

fn read_all(dir: &Path) -> anyhow::Result<Vec<Value>> {
    let mut found = Vec::new();
    for path in entries(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with("divergence-") || !name.ends_with(".json") {
            continue;
        }
        let failed = || format!("cannot read {}", path.display());
        let bytes = std::fs::read(&path).with_context(failed)?;
        let mut file: Value = serde_json::from_slice(&bytes).with_context(failed)?;
        if let Some(fields) = file.as_object_mut() {
            fields.insert("file".to_owned(), path.display().to_string().into());
        }
        found.push(file);
    }
    Ok(found)
}

fn entries(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let failed = || format!("cannot read {}: is it the data directory?", dir.display());
    let entries = std::fs::read_dir(dir).with_context(failed)?;
    entries.map(|entry| entry.map(|entry| entry.path()).with_context(failed)).collect()
}

/// One divergence, for people.
fn render(file: &Value) -> String {
    let mut text = format!(
        "divergence judged at slot {}, last agreed slot {} ({})\n",
        file["slot"],
        file["agreed"],
        file["file"].as_str().unwrap_or_default()
    );
    for pair in file["pairs"].as_array().into_iter().flatten() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  slot {}, call {}", pair["slot"], pair["call"]);
        for (name, key) in [("request", "request"), ("before", "before"), ("rebuilt", "after")] {
            let _ = writeln!(text, "    {name:<8} {}", shown(&pair[key]));
        }
    }
    text
}

/// Text with everything that is none escaped, and cut.
fn shown(part: &Value) -> String {
    let text = part["text"].as_str().unwrap_or_default();
    let bytes = part["hex"].as_str().map_or(0, |hex| hex.len() / 2);
    let cut: String = text.chars().take(SHOWN).flat_map(char::escape_default).collect();
    if text.chars().nth(SHOWN).is_some() { format!("\"{cut}\"… ({bytes} bytes)") } else { format!("\"{cut}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergences_of_all_members_are_shown_in_order() {
        let dir = std::env::temp_dir().join(format!("lockstep-diff-{}", std::process::id()));
        let member = dir.join("server-1");
        std::fs::create_dir_all(&member).expect("a directory");
        let file = |slot: u64, reply: &str| {
            let part = |text: &str| json!({ "text": text, "hex": "00".repeat(text.len()) });
            let pair = json!({
                "slot": slot, "call": 2, "request": part("GET a\n"), "before": part(reply), "after": part("right"),
            });
            json!({ "slot": slot, "agreed": slot - 1, "pairs": [pair] }).to_string()
        };
        std::fs::write(dir.join("divergence-7.json"), file(7, &"x".repeat(500))).expect("written");
        std::fs::write(member.join("divergence-5.json"), file(5, "wrong\u{1b}[1m")).expect("written");
        std::fs::write(dir.join("other.json"), "none of ours").expect("written");
        let found = find(&dir).expect("readable");
        let text: String = found.iter().map(render).collect();
        std::fs::remove_dir_all(&dir).expect("removed");
        assert_eq!(found.iter().map(|file| file["slot"].as_u64()).collect::<Vec<_>>(), [Some(5), Some(7)]);
        assert!(text.starts_with("divergence judged at slot 5, last agreed slot 4 ("), "{text}");
        assert!(text.contains("before   \"wrong\\u{1b}[1m\"\n    rebuilt  \"right\"\n"), "{text}");
        assert!(text.contains("request  \"GET a\\n\"") && text.contains("xxx\"… (500 bytes)"), "{text}");
    }

    #[test]
    fn a_directory_that_is_not_there_is_said() {
        let error = find(Path::new("/nonexistent")).expect_err("nothing is there");
        assert!(format!("{error:#}").contains("is it the data directory?"));
    }
}
