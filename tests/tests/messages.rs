//! Every message that an operator can see at level warn or error is in README.md's troubleshooting section, and nothing
//! else is: a list that nobody keeps is worse than none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is shipped.
const SOURCES: [&str; 7] =
    ["mesh/src", "sidecar/src", "proxy/src", "certs/src", "apps/bench/src", "apps/hashmap/src", "apps/lockstep/src"];
/// The section of README.md.
const SECTION: &str = "## Troubleshooting";
/// In the place of what a message says anew each time.
const ANYTHING: char = '…';
/// A row may have only the beginning of a long message.
const BEGINNING: usize = 10;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests have a workspace").to_owned()
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_test = name == "tests" || name == "testing.rs" || name.trim_end_matches(".rs").ends_with("tests");
        if is_test {
            continue;
        }
        if path.is_dir() {
            sources(&path, files);
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
}

/// The string literal whose opening quote is at `from`, as it is written, and where it ends.
fn literal(text: &[u8], from: usize) -> (String, usize) {
    let mut at = from + 1;
    while text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    (String::from_utf8_lossy(&text[from + 1..at]).into_owned(), at)
}

/// The constants of type `&str`, by their names.
fn constants(text: &str, found: &mut BTreeMap<String, String>) {
    for (at, _) in text.match_indices(": &str =") {
        let name = text[..at].rsplit(|c: char| !c.is_ascii_uppercase() && c != '_').next().unwrap_or_default();
        let value = text[at..].find('"').map(|quote| literal(text.as_bytes(), at + quote).0);
        if let Some(value) = value.filter(|_| !name.is_empty()) {
            found.insert(name.to_owned(), value);
        }
    }
}

/// The messages of `warn!` and `error!`: the last string of each at its own level.
fn messages(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    for word in ["warn!(", "error!("] {
        for (at, _) in text.match_indices(word) {
            let before = text[..at].chars().next_back().unwrap_or(' ');
            if before.is_ascii_alphanumeric() || before == '_' {
                continue;
            }
            let (mut at, mut depth, mut last) = (at + word.len(), 1, None);
            while depth > 0 {
                match bytes[at] {
                    b'"' => {
                        let (text, end) = literal(bytes, at);
                        if depth == 1 {
                            last = Some(text);
                        }
                        at = end;
                    }
                    b'(' | b'[' | b'{' => depth += 1,
                    b')' | b']' | b'}' => depth -= 1,
                    _ => {}
                }
                at += 1;
            }
            found.push(last.unwrap_or_default());
        }
    }
    found
}

/// As it is logged, with [`ANYTHING`] for what is filled in.
fn logged(raw: &str, constants: &BTreeMap<String, String>) -> String {
    let mut lines = raw.split("\\\n");
    let mut text = lines.next().unwrap_or_default().to_owned();
    lines.for_each(|line| text.push_str(line.trim_start()));
    let text = text.replace("\\\"", "\"");
    let mut said = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        said.push_str(before);
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        match constants.get(name) {
            Some(value) => said.push_str(&logged(value, constants)),
            None if said.ends_with(ANYTHING) => {}
            None => said.push(ANYTHING),
        }
        rest = after;
    }
    said + rest
}

/// All messages, each with the file that logs it.
fn all() -> Vec<(String, String)> {
    let mut files = Vec::new();
    SOURCES.iter().for_each(|folder| sources(&root().join(folder), &mut files));
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap_or(path).display().to_string();
            (name, std::fs::read_to_string(path).expect("a readable source"))
        })
        .collect();
    let mut known = BTreeMap::new();
    texts.iter().for_each(|(_, text)| constants(text, &mut known));
    let of = |(file, text): &(String, String)| -> Vec<(String, String)> {
        messages(text).iter().map(|raw| (logged(raw, &known), file.clone())).collect()
    };
    texts.iter().flat_map(of).collect()
}

/// The first cells of the section's tables: the messages, or their beginnings.
fn rows(readme: &str) -> Vec<String> {
    let section = readme.split_once(SECTION).expect("README.md has the section").1;
    let section = section.split("\n## ").next().unwrap_or_default();
    let cell = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    section.lines().filter_map(cell).collect()
}

/// Whether the row stands for the message: whole, or by a beginning that ends with [`ANYTHING`].
fn stands_for(row: &str, message: &str) -> bool {
    row == message || row.strip_suffix(ANYTHING).is_some_and(|beginning| message.starts_with(beginning))
}

#[test]
fn every_warning_and_error_is_in_the_readme_and_nothing_else_is() {
    let messages = all();
    assert!(messages.len() > 80, "the sources are written otherwise than expected: {} messages", messages.len());
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the README is there");
    let rows = rows(&readme);
    let mut faults = Vec::new();
    for (message, file) in &messages {
        if message.chars().filter(|c| c.is_alphanumeric()).count() < BEGINNING {
            faults.push(format!("{file}: \"{message}\" says nothing by itself: put words into it"));
        } else if !rows.iter().any(|row| stands_for(row, message)) {
            faults.push(format!("{file}: \"{message}\" is not in README.md: say what it means and what to do"));
        }
    }
    for row in &rows {
        if row.chars().count() < BEGINNING || !messages.iter().any(|(message, _)| stands_for(row, message)) {
            faults.push(format!("README.md: \"{row}\" is logged nowhere, or too short"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn messages_are_read_as_they_are_logged() {
    let text = "warn!(%error, n = f(\"x\"), \"a \\\"b\\\" {n} \\\n   c: {WHY}\", 1); log_error!(\"no\"); tracing::error!(\"{a}{b}\");";
    let mut known = BTreeMap::new();
    constants("const WHY: &str =\n    \"because\";", &mut known);
    let said: Vec<String> = messages(text).iter().map(|raw| logged(raw, &known)).collect();
    assert_eq!(said, ["a \"b\" … c: because", "…"]);
    assert!(stands_for("a \"b\"…", &said[0]) && !stands_for("a \"b\"", &said[0]) && !stands_for("x…", &said[0]));
}
