//! The file that makes a call's request run exactly once: session, next number, and the request in doubt.

use crate::exit::{Exit, Failure};
use anyhow::Context;
use bytes::Bytes;
use mesh::client::{Session, SessionName};
use mesh::ids::Seq;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Of the file's format.
const VERSION: u32 = 2;

/// What is known of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Its name.
    pub(super) session: SessionName,
    /// The number of the request in doubt, or of the next one: nothing of that number was sent then.
    pub(super) next: Seq,
    /// The request in doubt.
    pub(super) request: Option<Bytes>,
}

impl Stored {
    pub(super) fn of(session: &Session, request: Option<Bytes>) -> Self {
        Self { session: session.name(), next: session.next(), request }
    }
}

/// The same as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    cluster: String,
    session: SessionName,
    next: Seq,
    /// In hexadecimal: it may be any bytes.
    in_doubt: Option<String>,
}

/// The file, which nobody else uses meanwhile.
#[derive(Debug)]
pub(super) struct SessionFile {
    path: PathBuf,
    cluster: String,
    _lock: File,
}

impl SessionFile {
    /// Takes the file at `path`, which may not be there yet.
    ///
    /// # Errors
    /// Another call uses it, or the directory cannot be written.
    pub(super) fn take(path: &Path, cluster: &str) -> Result<Self, Failure> {
        let lock_path = beside(path, ".lock");
        let lock = private(&lock_path).with_context(|| format!("cannot open {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = format!("another call uses {}: one at a time", path.display());
                return Err(Failure::new(Exit::Refused, what));
            }
            Err(TryLockError::Error(error)) => {
                return Err(anyhow::Error::from(error).context(format!("cannot lock {}", lock_path.display())).into());
            }
        }
        Ok(Self { path: path.to_owned(), cluster: cluster.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it says; `None` if it is not there.
    ///
    /// # Errors
    /// It is damaged, or of another cluster.
    pub(super) fn load(&self) -> Result<Option<Stored>, Failure> {
        let at = self.path.display();
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(anyhow::Error::from(error).context(format!("cannot read {at}")).into()),
        };
        let invalid = |why: String| Failure::new(Exit::Invalid, format!("{at} is no session file: {why}"));
        let written: Written = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        if written.version != VERSION {
            return Err(invalid(format!("its version is {}, this program knows {VERSION}", written.version)));
        }
        if written.cluster != self.cluster {
            let what = format!("{at} is of cluster {:?}, and this is {:?}", written.cluster, self.cluster);
            return Err(Failure::new(Exit::Refused, what));
        }
        let request = match written.in_doubt {
            Some(digits) => Some(from_hex(&digits).ok_or_else(|| invalid("in_doubt is not hexadecimal".to_owned()))?),
            None => None,
        };
        Ok(Some(Stored { session: written.session, next: written.next, request }))
    }

    /// Writes it: after a crash it is as it was before, or as it is now.
    ///
    /// # Errors
    /// It could not be written or synced.
    pub(super) fn store(&self, stored: &Stored) -> anyhow::Result<()> {
        let written = Written {
            version: VERSION,
            cluster: self.cluster.clone(),
            session: stored.session,
            next: stored.next,
            in_doubt: stored.request.as_deref().map(hex),
        };
        let next = beside(&self.path, ".new");
        let write = || -> std::io::Result<()> {
            let mut file = private(&next)?;
            file.set_len(0)?;
            file.write_all(&serde_json::to_vec_pretty(&written)?)?;
            file.sync_all()?;
            std::fs::rename(&next, &self.path)?;
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// A file that only its owner reads: requests may hold secrets.
fn private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(digits: &str) -> Option<Bytes> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok().filter(|text| text.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        u8::from_str_radix(text, 16).ok().filter(|_| pair.len() == 2)
    };
    pairs.map(byte).collect::<Option<Vec<u8>>>().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that goes away.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("lockstep-session-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn stored(request: Option<&'static [u8]>) -> Stored {
        let session = "2a@7@1-00000000000000ff".parse().expect("a name");
        Stored { session, next: Seq(3), request: request.map(Bytes::from_static) }
    }

    #[test]
    fn what_is_stored_is_loaded_and_nothing_else_is() {
        let folder = Folder::new("load");
        let path = folder.0.join("s");
        let file = SessionFile::take(&path, "demo").expect("free");
        assert_eq!(file.load().expect("not there"), None);
        for request in [Some(&b"PUT a \xff\n"[..]), None] {
            file.store(&stored(request)).expect("a writable directory");
            assert_eq!(file.load().expect("it is there"), Some(stored(request)));
        }
        for damaged in [
            "",
            "{",
            "{\"version\":2}",
            "{\"version\":9,\"cluster\":\"demo\",\"session\":\"2a@7@1-00000000000000ff\",\"next\":1}",
        ] {
            std::fs::write(&path, damaged).expect("a writable directory");
            assert_eq!(file.load().expect_err("damaged").exit(), Exit::Invalid, "{damaged}");
        }
    }

    #[test]
    fn a_file_of_another_cluster_or_in_use_is_refused() {
        let folder = Folder::new("refuse");
        let path = folder.0.join("s");
        let file = SessionFile::take(&path, "demo").expect("free");
        file.store(&stored(None)).expect("a writable directory");
        assert_eq!(SessionFile::take(&path, "demo").expect_err("in use").exit(), Exit::Refused);
        drop(file);
        let other = SessionFile::take(&path, "other").expect("free again");
        assert_eq!(other.load().expect_err("another cluster's").exit(), Exit::Refused);
    }

    #[test]
    fn no_damage_makes_a_panic_and_what_is_loaded_is_stored_the_same() {
        let folder = Folder::new("damage");
        let file = SessionFile::take(&folder.0.join("s"), "demo").expect("free");
        file.store(&stored(Some(b"PUT a \xff\n"))).expect("a writable directory");
        let whole = std::fs::read(file.path()).expect("it is there");
        let mut loaded = 0;
        for at in 0..whole.len() {
            for change in [b'0', b'"', b'{', b'-', 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = change;
                for damaged in [&damaged[..], &damaged[..at], &[&whole[..at], &damaged[at..], &whole[at..]].concat()] {
                    std::fs::write(file.path(), damaged).expect("a writable directory");
                    let Ok(Some(read)) = file.load() else { continue };
                    loaded += 1;
                    file.store(&read).expect("a writable directory");
                    assert_eq!(file.load().expect("it is whole"), Some(read));
                }
            }
        }
        assert!(loaded > 0, "a digit more or less is a number still");
    }

    #[test]
    fn digits_that_are_no_bytes_are_refused() {
        assert_eq!(from_hex("00ff").as_deref(), Some(&[0, 0xff][..]));
        for wrong in ["0", "0g", "+1", "00f"] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
    }
}
