//! What it costs to have a record safely on the disk.

use super::{Number, latencies};
use crate::stop;
use anyhow::Context;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long each way is tried.
const TIME: Duration = Duration::from_secs(2);
/// A record, rounded up to what a disk writes at least.
const RECORD: [u8; 4096] = [7; 4096];
/// Made beforehand where the file does not grow; then it begins again at the front.
const ROOM: u64 = 64 << 20;

/// A record and a sync, over and over.
pub(super) fn measure(dir: &Path) -> anyhow::Result<Vec<Number>> {
    let mut all = Vec::new();
    for (name, room, data_only) in [
        ("fsync-growing", false, false),
        ("fdatasync-growing", false, true),
        ("fsync-preallocated", true, false),
        ("fdatasync-preallocated", true, true),
    ] {
        stop::check()?;
        all.push(one(name, &dir.join("sync"), room, data_only).with_context(|| name)?);
    }
    Ok(all)
}

fn one(name: &str, path: &Path, room: bool, data_only: bool) -> anyhow::Result<Number> {
    let mut file = if room { preallocated(path, ROOM)? } else { File::create(path)? };
    let (mut latencies, mut count, mut at) = (latencies(), 0_u32, 0);
    let begun = Instant::now();
    let mut last = begun;
    while last - begun < TIME {
        if room && at + RECORD.len() as u64 > ROOM {
            at = file.seek(SeekFrom::Start(0))?;
        }
        file.write_all(&RECORD)?;
        at += RECORD.len() as u64;
        if data_only {
            file.sync_data()?;
        } else {
            file.sync_all()?;
        }
        let now = Instant::now();
        latencies.record(now - last);
        (last, count) = (now, count + 1);
    }
    drop(file);
    std::fs::remove_file(path)?;
    let seen = latencies.summary();
    let rate = f64::from(count) / (last - begun).as_secs_f64();
    Ok(Number::new(name, [("rate", rate), ("p50_us", seen.p50_us), ("p99_us", seen.p99_us)]))
}

/// A file of zeros that are on the disk: writing over them changes nothing but data.
pub(super) fn preallocated(path: &Path, bytes: u64) -> std::io::Result<File> {
    let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..bytes / zeros.len() as u64 {
        file.write_all(&zeros)?;
    }
    file.sync_all()?;
    file.rewind()?;
    Ok(file)
}
