//! The whole directory as one document, for a place that keeps no files: a Kubernetes Secret.

use crate::error::CertsError;
use crate::files::{self, failed};
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// Relative paths, and what the files hold.
type Files = BTreeMap<String, String>;

/// Reads all files of a directory of certificates.
///
/// # Errors
/// One that cannot be read.
pub fn pack(dir: &Path) -> Result<String, CertsError> {
    let mut packed = Files::new();
    read_all(dir, dir, &mut packed)?;
    serde_json::to_string(&packed).map_err(|error| CertsError::unusable(dir, error.to_string()))
}

/// Writes the files of a document into an empty directory.
///
/// # Errors
/// [`CertsError::Unusable`] for what [`pack`] did not make; the file system's.
pub fn unpack(document: &str, dir: &Path) -> Result<(), CertsError> {
    let broken = |problem: String| CertsError::unusable(dir, format!("cannot be made from what was stored: {problem}"));
    let packed: Files = serde_json::from_str(document).map_err(|error| broken(error.to_string()))?;
    for (name, text) in &packed {
        let path = Path::new(name);
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(broken(format!("\"{name}\" is no place in it")));
        }
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed(parent, "created"))?;
        }
        files::create(&path, text.as_bytes(), files::SECRET)?;
    }
    Ok(())
}

fn read_all(root: &Path, dir: &Path, packed: &mut Files) -> Result<(), CertsError> {
    for path in files::list(dir)? {
        // Locks, and what a change that was interrupted left.
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() {
            read_all(root, &path, packed)?;
        } else if let Ok(name) = path.strip_prefix(root) {
            packed.insert(name.to_string_lossy().into_owned(), files::read_record(&path)?);
        }
    }
    Ok(())
}
