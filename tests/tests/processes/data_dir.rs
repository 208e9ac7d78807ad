//! A data directory that outlives an `up`, and what can be done to the files in it while nothing runs.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a journal segment's header.
const HEADER: u64 = 4096;
/// Bytes before a frame's payload; the first four are its length.
const FRAME_HEAD: u64 = 16;

/// Removed at the end, unless the test failed.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lockstep-test-data-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().expect("a path of ASCII")
    }

    /// Where a server keeps its journal and snapshots.
    pub(crate) fn server(&self, id: u64) -> PathBuf {
        self.0.join(format!("server-{id}"))
    }

    /// A server's newest journal segment.
    pub(crate) fn segment(&self, id: u64) -> PathBuf {
        let numbered = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
        };
        newest(&self.server(id).join("journal"), numbered).expect("a journal has a segment")
    }

    /// A server's newest snapshot.
    pub(crate) fn snapshot(&self, id: u64) -> Option<PathBuf> {
        newest(&self.server(id).join("snapshots"), |path| path.extension().is_some_and(|end| end == "snapshot"))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

fn newest(folder: &Path, fits: impl Fn(&PathBuf) -> bool) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    entries.flatten().map(|entry| entry.path()).filter(fits).max()
}

/// The frames of a journal's segment: where each begins and how long it is.
pub(crate) fn frames(segment: &Path) -> Vec<(u64, u64)> {
    let file = File::open(segment).expect("a segment");
    let (mut at, mut frames) = (HEADER, Vec::new());
    loop {
        let mut length = [0; 4];
        if file.read_exact_at(&mut length, at).is_err() || length == [0; 4] {
            return frames;
        }
        let length = FRAME_HEAD + u64::from(u32::from_le_bytes(length));
        frames.push((at, length));
        at = (at + length).next_multiple_of(8);
    }
}

/// Flips one bit of a byte.
pub(crate) fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], at).expect("a byte");
}

/// What a write leaves that a power cut stops halfway: its second half is not there.
pub(crate) fn tear(segment: &Path) {
    let (at, length) = *frames(segment).last().expect("a journal has frames");
    let file = File::options().write(true).open(segment).expect("a segment");
    let half = length / 2;
    let zeros = vec![0; usize::try_from(length - half).expect("a frame fits into memory")];
    file.write_all_at(&zeros, at + half).expect("the end of a frame");
}
