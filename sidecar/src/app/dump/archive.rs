//! A directory as one stream of bytes: folders, files and symbolic links with their permissions; no owners, no times.
//!
//! An entry is its kind (1 folder, 2 file, 3 link), mode (u32), length of its path (u32), path, and for a file its length
//! (u64) and bytes, for a link the length of its target (u32) and that; numbers are little-endian. Folders come before
//! what is in them, links last, so that nothing is ever written through one. The end is 0 and the number of entries (u64).

use super::LoadError;
use super::stream::{Sink, Source, other_kind};
use anyhow::{Context, ensure};
use bytes::Bytes;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

const MAGIC: &[u8] = b"lockstep-directory\x01";
const END: u8 = 0;
const FOLDER: u8 = 1;
const FILE: u8 = 2;
const LINK: u8 = 3;
/// Bytes of a file that are read at once.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait to be stored.
const PIECES: usize = 4;
/// What a path has at most on Linux.
const PATH_BYTES: u32 = 4096;

/// Everything in `dir` except the names in `ours`.
pub(super) async fn pack(dir: &Path, ours: &'static [&'static str], sink: &mut Sink) -> anyhow::Result<()> {
    let (pieces, mut packed) = mpsc::channel(PIECES);
    let packer = Packer { root: dir.to_owned(), pieces, links: Vec::new(), entries: 0 };
    let packing = tokio::task::spawn_blocking(move || packer.run(ours));
    while let Some(piece) = packed.recv().await {
        sink.put(&piece).await?;
    }
    packing.await.context("the archiver ended")?
}

struct Packer {
    root: PathBuf,
    pieces: mpsc::Sender<Bytes>,
    links: Vec<PathBuf>,
    entries: u64,
}

impl Packer {
    fn run(mut self, ours: &[&str]) -> anyhow::Result<()> {
        self.give(MAGIC.to_vec())?;
        self.folder(Path::new(""), ours)?;
        for link in std::mem::take(&mut self.links) {
            let target = fs::read_link(self.root.join(&link)).with_context(|| failed(&link))?;
            let mut head = self.head(LINK, 0o777, &link)?;
            head.extend_from_slice(&u32::try_from(target.as_os_str().len())?.to_le_bytes());
            head.extend_from_slice(target.as_os_str().as_bytes());
            self.give(head)?;
        }
        let end = [&[END][..], &self.entries.to_le_bytes()].concat();
        self.give(end)
    }

    fn folder(&mut self, folder: &Path, without: &[&str]) -> anyhow::Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.root.join(folder)).with_context(|| failed(folder))? {
            names.push(entry.with_context(|| failed(folder))?.file_name());
        }
        names.sort_unstable();
        for name in names.iter().filter(|name| without.iter().all(|ours| *name != ours)) {
            let path = folder.join(name);
            let about = fs::symlink_metadata(self.root.join(&path)).with_context(|| failed(&path))?;
            let mode = about.permissions().mode();
            if about.is_dir() {
                let head = self.head(FOLDER, mode, &path)?;
                self.give(head)?;
                self.folder(&path, &[])?;
            } else if about.is_file() {
                self.file(&path, mode, about.len())?;
            } else if about.is_symlink() {
                self.links.push(path);
            }
            // Sockets and the like are made anew by whoever needs them.
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, mode: u32, length: u64) -> anyhow::Result<()> {
        let mut head = self.head(FILE, mode, path)?;
        head.extend_from_slice(&length.to_le_bytes());
        self.give(head)?;
        let mut file = File::open(self.root.join(path)).with_context(|| failed(path))?.take(length);
        let mut left = length;
        while left > 0 {
            let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES))];
            let count = file.read(&mut piece).with_context(|| failed(path))?;
            ensure!(count > 0, "{} became shorter while it was read: does something else write there?", path.display());
            piece.truncate(count);
            left -= count as u64;
            self.give(piece)?;
        }
        Ok(())
    }

    fn head(&mut self, kind: u8, mode: u32, path: &Path) -> anyhow::Result<Vec<u8>> {
        self.entries += 1;
        let path = path.as_os_str().as_bytes();
        let mut head = vec![kind];
        head.extend_from_slice(&mode.to_le_bytes());
        head.extend_from_slice(&u32::try_from(path.len())?.to_le_bytes());
        head.extend_from_slice(path);
        Ok(head)
    }

    fn give(&self, bytes: Vec<u8>) -> anyhow::Result<()> {
        self.pieces.blocking_send(bytes.into()).ok().context("nobody takes the archive any more")
    }
}

fn failed(path: &Path) -> String {
    format!("cannot read {} of the application's directory", path.display())
}

/// Brings it back into an empty directory. Nothing is written outside of it.
pub(super) async fn unpack(dir: &Path, ours: &[&str], source: &mut Source) -> Result<(), LoadError> {
    source.expect(MAGIC).await?;
    let (mut entries, mut links) = (0, false);
    loop {
        let kind = source.exactly(1).await?[0];
        if kind == END {
            break;
        }
        let mode = source.u32().await? & 0o7777;
        let path = inside(source, ours).await?;
        let to = dir.join(&path);
        let refused =
            |error: std::io::Error| anyhow::Error::new(error).context(format!("cannot write {}", to.display()));
        entries += 1;
        match kind {
            FOLDER if !links => {
                fs::create_dir(&to).map_err(refused)?;
                fs::set_permissions(&to, Permissions::from_mode(mode | 0o700)).map_err(refused)?;
            }
            FILE if !links => {
                let length = source.u64().await?;
                unpack_file(&to, length, source).await?;
                fs::set_permissions(&to, Permissions::from_mode(mode)).map_err(refused)?;
            }
            LINK => {
                links = true;
                let target = path_bytes(source).await?;
                if !leads_through_folders(dir, &path) {
                    return Err(other_kind("a link is in a place that is no folder"));
                }
                symlink(target, &to).map_err(refused)?;
            }
            _ => return Err(other_kind("an entry is of no known kind, or in no known order")),
        }
    }
    if source.u64().await? == entries { Ok(()) } else { Err(other_kind("entries are missing")) }
}

async fn unpack_file(to: &Path, length: u64, source: &mut Source) -> Result<(), LoadError> {
    let failed = || format!("cannot write {}", to.display());
    let mut file = tokio::fs::File::create_new(to).await.with_context(failed)?;
    let mut left = length;
    while left > 0 {
        let piece = source.exactly(PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES))).await?;
        left -= piece.len() as u64;
        file.write_all(&piece).await.with_context(failed)?;
    }
    file.flush().await.with_context(failed)?;
    Ok(())
}

/// A path that stays in the directory, and is none of this process' own files.
async fn inside(source: &mut Source, ours: &[&str]) -> Result<PathBuf, LoadError> {
    let path = PathBuf::from(path_bytes(source).await?);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let first = path.components().next().map(Component::as_os_str).unwrap_or_default();
    if plain && !path.as_os_str().is_empty() && ours.iter().all(|name| first != OsStr::new(name)) {
        Ok(path)
    } else {
        Err(other_kind("a path leads out of the directory"))
    }
}

async fn path_bytes(source: &mut Source) -> Result<OsString, LoadError> {
    let length = source.u32().await?;
    if length > PATH_BYTES {
        return Err(other_kind("a path is too long"));
    }
    Ok(OsString::from_vec(source.exactly(length as usize).await?.to_vec()))
}

fn leads_through_folders(dir: &Path, path: &Path) -> bool {
    let folders = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
    folders.map(|folder| dir.join(folder)).all(|folder| fs::symlink_metadata(folder).is_ok_and(|about| about.is_dir()))
}
