//! Rules that run: what the sources and the dependencies must look like.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of a source file, and of one function, at most.
const FILE_LINES: usize = 900;
const FUNCTION_LINES: usize = 80;

/// Words that have no place in the sources, and what belongs there instead. Split so that this file may name them.
const BANNED: [(&str, &str, &str); 6] = [
    ("unbounded_", "channel", "a channel bounded by a limit that has a name"),
    ("FIX", "ME", "finish it"),
    ("TO", "DO", "finish it, or leave it out and say so in ARCHITECTURE.md"),
    ("dbg", "!(", "tracing"),
    ("install_", "default(", "pass the crypto provider explicitly"),
    ("XX", "X:", "finish it"),
];

/// Crates that must not be in the tree: a second crypto provider, or a second TLS.
const BANNED_CRATES: [&str; 4] = ["ring", "openssl", "native-tls", "async-std"];

/// Crates that are there in two versions because two of our dependencies ask for different ones.
const DOUBLED: [&str; 3] = ["getrandom", "syn", "untrusted"];

/// Licences of which a dependency offers at least one.
const LICENCES: [&str; 9] =
    ["MIT", "Apache-2.0", "ISC", "BSD-3-Clause", "BSD-2-Clause", "Zlib", "Unicode-3.0", "CC0-1.0", "Unlicense"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests have a workspace").to_owned()
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            rust_files(&path, files);
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
}

/// The functions that are longer than they may be, by their first line and their length.
fn long_functions(text: &str) -> Vec<(String, usize)> {
    let mut long = Vec::new();
    let mut open: Option<(String, usize, usize)> = None;
    for (number, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let starts = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        let starts = starts.trim_start_matches("pub(super) ").trim_start_matches("const ").trim_start_matches("async ");
        if open.is_none() && starts.starts_with("fn ") && !line.trim_end().ends_with(';') {
            open = Some((line.trim().to_owned(), indent, number));
        } else if let Some((name, at, from)) = &open
            && line.trim_end() == format!("{}}}", " ".repeat(*at))
        {
            if number - from > FUNCTION_LINES {
                long.push((name.clone(), number - from));
            }
            open = None;
        }
    }
    long
}

#[test]
fn sources_are_tidy() {
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    assert!(files.len() > 40, "the sources are somewhere else than expected");
    let mut faults = Vec::new();
    for path in files {
        let name = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        let text = std::fs::read_to_string(&path).expect("a readable source");
        for (first, second, instead) in BANNED {
            let word = format!("{first}{second}");
            if text.contains(&word) {
                faults.push(format!("{name}: {word}: rather {instead}"));
            }
        }
        if !text.starts_with("//!") {
            faults.push(format!("{name}: no //! line that says what it is for"));
        }
        if text.lines().count() > FILE_LINES {
            faults.push(format!("{name}: {} lines; {FILE_LINES} at most", text.lines().count()));
        }
        for (function, lines) in long_functions(&text) {
            faults.push(format!("{name}: {function} has {lines} lines; {FUNCTION_LINES} at most"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_pure_half_has_no_io_in_its_tree() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "-p", "mesh", "--no-default-features", "-e", "normal", "--prefix", "none", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
    assert!(tree.contains("postcard"), "cargo tree failed: {tree}");
    for io in ["tokio", "quinn", "rustls", "hyper", "rand", "tracing"] {
        assert!(!tree.lines().any(|line| line.starts_with(&format!("{io} "))), "the pure half depends on {io}");
    }
}

#[test]
fn dependencies_keep_the_policy() {
    // Only of this platform: other platforms' crates may never have been downloaded here.
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", &platform()])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).expect("cargo metadata prints JSON");
    let used = used_on_this_platform();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().unwrap_or_default();
        let version = package["version"].as_str().unwrap_or_default();
        if !used.contains(&format!("{name} v{version}")) {
            continue;
        }
        if BANNED_CRATES.contains(&name) {
            faults.push(format!("{name} is in the tree"));
        }
        let licence = package["license"].as_str().unwrap_or("none");
        if !LICENCES.iter().any(|allowed| licence.contains(allowed)) {
            faults.push(format!("{name}: licence {licence}"));
        }
        if package["source"].as_str().is_some_and(|source| source.starts_with("git")) {
            faults.push(format!("{name} comes from a repository, not from a registry"));
        }
        versions.entry(name).or_default().push(version);
    }
    assert!(versions.len() > 50, "the tree was not read");
    for (name, versions) in versions.iter().filter(|(name, versions)| versions.len() > 1 && !DOUBLED.contains(name)) {
        faults.push(format!("{name} is there as {}", versions.join(" and ")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The platform that this runs on, as cargo names it.
fn platform() -> String {
    let rustc = Command::new("rustc").arg("-vV").current_dir(root()).output().expect("rustc runs");
    let text = String::from_utf8_lossy(&rustc.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host").to_owned()
}

/// "name vVERSION" of everything that is built here: cargo metadata also lists what is not.
fn used_on_this_platform() -> std::collections::BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "-e", "normal,build", "--prefix", "none", "--offline", "--no-dedupe"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let text = String::from_utf8_lossy(&tree.stdout).into_owned();
    text.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}
