//! The data of a member that was left behind, set aside so that the member can begin anew.

use crate::app::marker;
use crate::journal::{lock, owner};
use anyhow::{Context, ensure};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What of a data directory is of one generation.
const FOLDERS: [&str; 2] = ["snapshots", "journal"];
/// Follows the name of what was set aside; a number follows.
const ENDING: &str = "superseded-";

/// The data of a stopped member. Its directory is locked while this lives.
#[derive(Debug)]
pub struct Aside {
    dir: PathBuf,
    cluster: String,
    id: u32,
    _lock: File,
}

impl Aside {
    /// Looks at the data directory of a stopped member.
    ///
    /// # Errors
    /// It is in use, or no member's.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        ensure!(dir.is_dir(), "there is no directory {}", dir.display());
        let lock = lock(dir)?;
        let identity = owner(dir)?.with_context(|| format!("there is no journal in {}", dir.display()))?;
        Ok(Self { dir: dir.to_owned(), cluster: identity.cluster, id: identity.id.0, _lock: lock })
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The member.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }
}

/// Sets a member's data aside: at its next start it has no history. Where everything is now.
///
/// # Errors
/// The system's: what could not be renamed is where it was.
pub fn set_aside(member: &Aside) -> anyhow::Result<Vec<PathBuf>> {
    let number = (1..).find(|number| FOLDERS.iter().all(|folder| !aside(&member.dir, folder, *number).exists()));
    let number: u64 = number.context("no number is left")?;
    // What the application did is of the same generation, and is found out anew.
    match std::fs::remove_file(marker::path(&member.dir)) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).context("cannot remove the marker"),
        _ => {}
    }
    let mut moved = Vec::new();
    for folder in FOLDERS {
        let (from, to) = (member.dir.join(folder), aside(&member.dir, folder, number));
        match std::fs::rename(&from, &to) {
            Ok(()) => moved.push(to),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot rename {}", from.display())),
        }
    }
    File::open(&member.dir)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("cannot sync {}", member.dir.display()))?;
    Ok(moved)
}

fn aside(dir: &Path, folder: &str, number: u64) -> PathBuf {
    dir.join(format!("{folder}.{ENDING}{number}"))
}
