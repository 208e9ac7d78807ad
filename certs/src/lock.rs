//! One command at a time changes a directory.

use crate::error::CertsError;
use crate::files::failed;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a command waits for another one.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Held, nobody else changes the directory; let go when dropped, or by the system when the process ends.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock of `dir`, an advisory one (flock) of the file `.lock` in it.
    pub(crate) fn take(dir: &Path) -> Result<Self, CertsError> {
        let path = dir.join(".lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed(&path, "opened"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(POLL),
                Err(TryLockError::WouldBlock) => return Err(CertsError::Busy(dir.to_owned())),
                Err(TryLockError::Error(source)) => return Err(failed(&path, "locked")(source)),
            }
        }
    }
}
