//! Files of certificates and keys: created exclusively, synced, replaced in one step. Every change of the disk is made
//! here, so that tests can stop a command after each of them.

use crate::error::CertsError;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Mode of keys.
pub(crate) const SECRET: u32 = 0o600;
/// Mode of certificates.
pub(crate) const PUBLIC: u32 = 0o644;

/// Bytes of a certificate, key or bundle that are read at most.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// The record of what was issued: about 250 bytes for each certificate, so a million of them.
const RECORD_BYTES_MAX: u64 = 256 << 20;

/// Makes an error of `action` on `path`.
pub(crate) fn failed(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> CertsError {
    move |source| CertsError::Io { path: path.to_owned(), action, source }
}

/// A file to be: its name, what is in it, its mode.
pub(crate) struct NewFile {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
}

/// Creates a file that must not exist, with all of `bytes` on the disk.
pub(crate) fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CertsError> {
    step(path)?;
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed(path, "created"))?;
    write(path, &mut file, bytes)
}

/// Puts `bytes` at `path` in one step, whatever was there before.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CertsError> {
    let staged = staging(path)?;
    create(&staged, bytes, mode)?;
    if let Err(problem) = rename(&staged, path) {
        let _ = remove(&staged);
        return Err(problem);
    }
    Ok(())
}

/// Adds a line at the end of a file, on the disk when this returns. Half a line at its end, which a kill left, goes.
pub(crate) fn append_line(path: &Path, line: &str) -> Result<(), CertsError> {
    step(path)?;
    let is_new = !path.exists();
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PUBLIC)
        .open(path)
        .map_err(failed(path, "opened"))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(failed(path, "read"))?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole < text.len() {
        step(path)?;
        file.set_len(whole as u64).map_err(failed(path, "cut"))?;
    }
    file.seek(SeekFrom::Start(whole as u64)).map_err(failed(path, "written"))?;
    write(path, &mut file, format!("{line}\n").as_bytes())?;
    if is_new { sync_parent(path) } else { Ok(()) }
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
    make_dir(&staged, mode)?;
    let done = fill(&staged).and_then(|()| sync_dir(&staged)).and_then(|()| match rename(&staged, path) {
        Err(CertsError::Io { .. }) if path.exists() => Err(CertsError::Exists(path.to_owned())),
        other => other,
    });
    if done.is_err() {
        let _ = remove(&staged);
    }
    done
}

/// Puts files into directory `path` in one step, all or none of them: a directory that has them and what else was there
/// is made beside it and exchanged for it. Where there is no such directory, it is made.
pub(crate) fn put_into_dir(path: &Path, mode: u32, files: &[NewFile]) -> Result<(), CertsError> {
    let fill = |dir: &Path| files.iter().try_for_each(|file| create(&dir.join(file.name), &file.bytes, file.mode));
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return create_dir_with(path, mode, fill),
        found => found.map_err(failed(path, "examined"))?,
    };
    if !found.is_dir() {
        return Err(CertsError::unusable(path, "not a directory: certificates are not renewed through links"));
    }
    let staged = staging(path)?;
    make_dir(&staged, mode)?;
    let done = carry_over(path, &staged, files).and_then(|()| fill(&staged)).and_then(|()| sync_dir(&staged));
    let done = done.and_then(|()| {
        step(path)?;
        renameat_with(CWD, &staged, CWD, path, RenameFlags::EXCHANGE)
            .map_err(|errno| failed(path, "exchanged for its successor (use a local file system)")(errno.into()))?;
        sync_parent(path)
    });
    // It is the old directory now, or what came of the new one.
    let removed = remove(&staged);
    done.and(removed)
}

/// Links what is in `old` into `new`, but for what is about to be made.
fn carry_over(old: &Path, new: &Path, files: &[NewFile]) -> Result<(), CertsError> {
    for entry in fs::read_dir(old).map_err(failed(old, "listed"))? {
        let entry = entry.map_err(failed(old, "listed"))?;
        let name = entry.file_name();
        if files.iter().any(|file| OsStr::new(file.name) == name) || is_staging(&name) {
            continue;
        }
        if !entry.file_type().map_err(failed(old, "examined"))?.is_file() {
            return Err(CertsError::unusable(
                entry.path(),
                "not a file: move it out of the directory of a certificate",
            ));
        }
        step(new)?;
        fs::hard_link(entry.path(), new.join(&name)).map_err(failed(new, "filled"))?;
    }
    Ok(())
}

/// Renames what is at `from`, on the disk when this returns.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), CertsError> {
    step(to)?;
    fs::rename(from, to).map_err(failed(to, "replaced"))?;
    sync_parent(to)
}

/// Makes a directory and those above it, if missing.
pub(crate) fn ensure_dir(path: &Path) -> Result<(), CertsError> {
    if path.is_dir() {
        return Ok(());
    }
    step(path)?;
    fs::create_dir_all(path).map_err(failed(path, "created"))?;
    sync_parent(path)
}

/// Removes what commands that were killed left unfinished in `dir`. The caller holds the lock: nobody works there.
pub(crate) fn sweep(dir: &Path) -> Result<(), CertsError> {
    for entry in list(dir)? {
        if is_staging(entry.file_name().unwrap_or_default()) {
            remove(&entry)?;
        }
    }
    Ok(())
}

/// What is in a directory, sorted; nothing where there is none.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>, CertsError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed(dir, "listed"))?,
    };
    let entries: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut entries = entries.map_err(failed(dir, "listed"))?;
    entries.sort();
    Ok(entries)
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String, CertsError> {
    read_open(path, File::open(path).map_err(failed(path, "opened"))?, FILE_BYTES_MAX)
}

/// The text of a file, empty if there is none.
pub(crate) fn read_if_there(path: &Path) -> Result<String, CertsError> {
    read_at_most(path, FILE_BYTES_MAX)
}

/// The same of the record, which grows with every certificate.
pub(crate) fn read_record(path: &Path) -> Result<String, CertsError> {
    read_at_most(path, RECORD_BYTES_MAX)
}

fn read_at_most(path: &Path, most: u64) -> Result<String, CertsError> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        file => read_open(path, file.map_err(failed(path, "opened"))?, most),
    }
}

/// The text of a key, refused if others may read or the group may write it. The mode is that of what was opened,
/// behind every symlink.
pub(crate) fn read_secret(path: &Path) -> Result<String, CertsError> {
    let file = File::open(path).map_err(failed(path, "opened"))?;
    let mode = file.metadata().map_err(failed(path, "examined"))?.mode();
    if mode & 0o027 != 0 {
        return Err(CertsError::Insecure { path: path.to_owned(), mode: mode & 0o7777 });
    }
    read_open(path, file, FILE_BYTES_MAX)
}

/// 128 random bits of the system.
pub(crate) fn random() -> Result<[u8; 16], CertsError> {
    let (path, mut bytes) = (Path::new("/dev/urandom"), [0; 16]);
    let mut source = File::open(path).map_err(failed(path, "opened"))?;
    source.read_exact(&mut bytes).map_err(failed(path, "read"))?;
    Ok(bytes)
}

fn read_open(path: &Path, file: File, most: u64) -> Result<String, CertsError> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed(path, "read"))?;
    if bytes.len() as u64 > most {
        return Err(CertsError::unusable(path, "too large to be what it should be"));
    }
    String::from_utf8(bytes).map_err(|_| CertsError::unusable(path, "not text: PEM is expected"))
}

fn write(path: &Path, file: &mut File, bytes: &[u8]) -> Result<(), CertsError> {
    // In halves, so that a test can stop between them.
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for half in [first, second] {
        step(path)?;
        file.write_all(half).map_err(failed(path, "written"))?;
    }
    step(path)?;
    file.sync_all().map_err(failed(path, "synced"))
}

fn make_dir(path: &Path, mode: u32) -> Result<(), CertsError> {
    step(path)?;
    DirBuilder::new().mode(mode).create(path).map_err(failed(path, "created"))
}

fn remove(path: &Path) -> Result<(), CertsError> {
    step(path)?;
    let is_dir = fs::symlink_metadata(path).map_err(failed(path, "examined"))?.is_dir();
    let removed = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(failed(path, "removed"))
}

/// A hidden name of its own beside `path`.
fn staging(path: &Path) -> Result<PathBuf, CertsError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(path.with_file_name(format!(".{name}.{:032x}", u128::from_be_bytes(random()?))))
}

/// Whether [`staging`] gave this name.
fn is_staging(name: &OsStr) -> bool {
    let end = name.to_str().and_then(|name| name.strip_prefix('.')?.rsplit_once('.'));
    end.is_some_and(|(_, end)| end.len() == 32 && end.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn sync_parent(path: &Path) -> Result<(), CertsError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

fn sync_dir(dir: &Path) -> Result<(), CertsError> {
    step(dir)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir, "synced"))
}

/// Comes before every change of the disk: where a test stops a command as a kill would, nothing follows any more.
#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "tests make it fail")]
fn step(_: &Path) -> Result<(), CertsError> {
    Ok(())
}

#[cfg(test)]
use interruption::step;

#[cfg(test)]
pub(crate) mod interruption {
    //! Stops a command after a number of changes of the disk.

    use super::{CertsError, failed};
    use std::cell::Cell;
    use std::path::Path;

    thread_local! {
        static LEFT: Cell<u32> = const { Cell::new(u32::MAX) };
    }

    pub(super) fn step(path: &Path) -> Result<(), CertsError> {
        match LEFT.get() {
            u32::MAX => Ok(()),
            0 => Err(failed(path, "changed: interrupted")(std::io::ErrorKind::Interrupted.into())),
            left => {
                LEFT.set(left - 1);
                Ok(())
            }
        }
    }

    /// Runs `command` and stops it after `steps` changes. Returns what it said and whether it was stopped.
    pub(crate) fn after<T>(steps: u32, command: impl FnOnce() -> T) -> (T, bool) {
        LEFT.set(steps);
        let said = command();
        (said, LEFT.replace(u32::MAX) == 0)
    }
}
