//! Files of certificates and keys: created exclusively, synced, replaced by renaming.

use crate::error::CertsError;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Mode of keys.
pub(crate) const SECRET: u32 = 0o600;
/// Mode of certificates.
pub(crate) const PUBLIC: u32 = 0o644;

/// Bytes of a certificate, key or bundle that are read at most.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Makes an error of `action` on `path`.
pub(crate) fn failed(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> CertsError {
    move |source| CertsError::Io { path: path.to_owned(), action, source }
}

/// Creates a file that must not exist, with all of `bytes` on the disk.
pub(crate) fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CertsError> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed(path, "created"))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed(path, "written"))
}

/// Puts `bytes` at `path` in one step, whatever was there before.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CertsError> {
    let staged = staging(path)?;
    create(&staged, bytes, mode)?;
    if let Err(source) = fs::rename(&staged, path) {
        let _ = fs::remove_file(&staged);
        return Err(failed(path, "replaced")(source));
    }
    sync_parent(path)
}

/// Makes directory `path`, with all that `fill` puts into it, in one step.
///
/// # Errors
/// [`CertsError::Exists`] if there is one that is not empty; or whatever `fill` says.
pub(crate) fn create_dir_with(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&Path) -> Result<(), CertsError>,
) -> Result<(), CertsError> {
    let staged = staging(path)?;
    DirBuilder::new().mode(mode).create(&staged).map_err(failed(&staged, "created"))?;
    let done = fill(&staged).and_then(|()| match fs::rename(&staged, path) {
        Ok(()) => sync_parent(path),
        Err(_) if path.exists() => Err(CertsError::Exists(path.to_owned())),
        Err(source) => Err(failed(path, "created")(source)),
    });
    if done.is_err() {
        let _ = fs::remove_dir_all(&staged);
    }
    done
}

/// Makes a directory and those above it, if missing.
pub(crate) fn ensure_dir(path: &Path) -> Result<(), CertsError> {
    fs::create_dir_all(path).map_err(failed(path, "created"))
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String, CertsError> {
    read_open(path, File::open(path).map_err(failed(path, "opened"))?)
}

/// The text of a key, refused if others may read or the group may write it. The mode is that of what was opened,
/// behind every symlink.
pub(crate) fn read_secret(path: &Path) -> Result<String, CertsError> {
    let file = File::open(path).map_err(failed(path, "opened"))?;
    let mode = file.metadata().map_err(failed(path, "examined"))?.mode();
    if mode & 0o027 != 0 {
        return Err(CertsError::Insecure { path: path.to_owned(), mode: mode & 0o7777 });
    }
    read_open(path, file)
}

/// 128 random bits of the system.
pub(crate) fn random() -> Result<[u8; 16], CertsError> {
    let (path, mut bytes) = (Path::new("/dev/urandom"), [0; 16]);
    let mut source = File::open(path).map_err(failed(path, "opened"))?;
    source.read_exact(&mut bytes).map_err(failed(path, "read"))?;
    Ok(bytes)
}

fn read_open(path: &Path, file: File) -> Result<String, CertsError> {
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed(path, "read"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(CertsError::unusable(path, "too large to be what it should be"));
    }
    Ok(text)
}

/// A hidden name of its own beside `path`.
fn staging(path: &Path) -> Result<PathBuf, CertsError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(path.with_file_name(format!(".{name}.{:032x}", u128::from_be_bytes(random()?))))
}

fn sync_parent(path: &Path) -> Result<(), CertsError> {
    let parent = path.parent().unwrap_or(path);
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed(parent, "synced"))
}
