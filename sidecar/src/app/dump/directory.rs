//! Snapshots of the working directory of a child: it is ended, the directory archived, and it is started again. What
//! this process keeps there itself is no part of it.

use super::LoadError;
use super::archive;
use super::stream::{Sink, Source};
use crate::app::supervisor::Supervisor;
use anyhow::{Context, ensure};
use std::io;
use std::path::Path;

/// Says that the directory may be emptied.
const OWNED: &str = ".lockstep-empties-this";
/// What is not the application's.
const OURS: [&str; 5] = [OWNED, "application.log", "application.log.old", "application.pid", "application.new"];

/// The child is started again, whatever came of the archive.
pub(super) async fn save(child: &mut Supervisor, sink: &mut Sink) -> anyhow::Result<()> {
    child.quiesce().await?;
    let archived = archive::pack(child.dir(), &OURS, sink).await;
    child.start().await.context("the application could not be started again after its directory was archived")?;
    archived
}

/// The child is started in the directory as it was archived.
pub(super) async fn load(child: &mut Supervisor, source: &mut Source) -> Result<(), LoadError> {
    child.clear().await?;
    archive::unpack(child.dir(), &OURS, source).await?;
    child.start().await?;
    Ok(())
}

/// Empties a directory that is used for this only: one that was not empty at first may hold somebody's data.
pub(in crate::app) fn empty(dir: &Path) -> anyhow::Result<()> {
    let owned = dir.join(OWNED);
    let failed = || format!("cannot empty {}", dir.display());
    let entries: Vec<_> = std::fs::read_dir(dir).and_then(Iterator::collect::<io::Result<_>>).with_context(failed)?;
    let theirs = entries.iter().filter(|entry| OURS.iter().all(|name| entry.file_name() != *name));
    if !owned.exists() {
        ensure!(
            theirs.clone().next().is_none(),
            "with snapshots of its directory the application's directory is emptied at every reset, but {} holds files \
             already: move them away, or choose another with --app-dir",
            dir.display()
        );
        std::fs::write(&owned, "Lockstep empties this directory whenever it resets the application.\n")
            .with_context(failed)?;
    }
    for entry in theirs {
        let path = entry.path();
        // A link is removed, not what it points to.
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(&path),
            _ => std::fs::remove_file(&path),
        };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn only_a_directory_that_was_empty_at_first_is_emptied() {
        let dir = TempDir::new();
        let file = dir.path().join("data");
        std::fs::write(&file, "precious").expect("written");
        assert!(empty(dir.path()).is_err());
        assert!(file.exists());
        std::fs::remove_file(&file).expect("removed");
        std::fs::write(dir.path().join("application.log"), "log").expect("written");
        empty(dir.path()).expect("nothing of anybody's is there");
        std::fs::create_dir(dir.path().join("folder")).expect("made");
        std::fs::write(dir.path().join("folder/data"), "state").expect("written");
        std::fs::write(&file, "state").expect("written");
        empty(dir.path()).expect("it is ours now");
        assert!(!file.exists() && !dir.path().join("folder").exists());
        assert!(dir.path().join("application.log").exists());
    }
}
