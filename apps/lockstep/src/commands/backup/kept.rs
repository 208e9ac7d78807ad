//! Backups by the time they were made at, and which of them are kept.

use crate::exit::{Exit, Failure};
use anyhow::Context;
use certs::Moment;
use std::path::{Path, PathBuf};

/// What is replaced in a name.
const TIME: &str = "{time}";
/// The length of what takes its place: 20261130T052200Z.
const TIME_LENGTH: usize = 16;

/// A file that is to be made, and the older ones like it.
#[derive(Debug)]
pub(super) struct Named {
    /// The file.
    pub(super) file: PathBuf,
    /// What stands before and behind the time, and how many are kept.
    kept: Option<(String, String, usize)>,
}

impl Named {
    pub(super) fn of(file: &Path, keep: Option<u32>) -> Result<Self, Failure> {
        let usage = |text: &str| Failure::new(Exit::Usage, text);
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some((before, behind)) = name.split_once(TIME) else {
            if keep.is_some() {
                return Err(usage("--keep needs {time} in the file's name: otherwise there is one file only"));
            }
            return Ok(Self { file: file.to_owned(), kept: None });
        };
        let file = file.with_file_name(format!("{before}{}{behind}", text(Moment::now())));
        let kept = keep.map(|keep| (before.to_owned(), behind.to_owned(), keep as usize));
        Ok(Self { file, kept })
    }

    /// After the new one is there.
    pub(super) fn remove_oldest(&self) -> Result<(), Failure> {
        let Some((before, behind, keep)) = &self.kept else { return Ok(()) };
        let dir = match self.file.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let cannot = || format!("cannot look for older backups in {}", dir.display());
        let mut like = Vec::new();
        for entry in std::fs::read_dir(dir).with_context(cannot)? {
            let path = entry.with_context(cannot)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let time = name.strip_prefix(before.as_str()).and_then(|rest| rest.strip_suffix(behind.as_str()));
            if time.is_some_and(is_time) {
                like.push(path);
            }
        }
        like.sort();
        let surplus = like.len().saturating_sub(*keep);
        for old in &like[..surplus] {
            std::fs::remove_file(old).with_context(|| format!("cannot remove {}", old.display()))?;
            super::say(&format!("{} is removed: {keep} are kept\n", old.display()));
        }
        Ok(())
    }
}

fn is_time(text: &str) -> bool {
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    text.len() == TIME_LENGTH
        && text.is_ascii()
        && digits(&text[..8])
        && &text[8..9] == "T"
        && digits(&text[9..15])
        && text.ends_with('Z')
}

/// A moment in UTC, sorted as time goes.
fn text(moment: Moment) -> String {
    moment.to_string().replace(['-', ':'], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_from_other_names() {
        assert!(is_time(&text(Moment::now())), "{}", text(Moment::now()));
        assert!(is_time("20261130T052200Z") && !is_time("20261130T05220xZ") && !is_time("today"));
    }

    #[test]
    fn the_oldest_go_and_nothing_else_does() {
        let dir = std::env::temp_dir().join(format!("lockstep-kept-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("room");
        let names = ["a-20250101T000000Z.b", "a-20250102T000000Z.b", "a-x.b", "c-20240101T000000Z.b"];
        names.iter().for_each(|name| std::fs::write(dir.join(name), "").expect("room"));
        let named = Named::of(&dir.join("a-{time}.b"), Some(2)).expect("it can be made");
        std::fs::write(&named.file, "").expect("room");
        named.remove_oldest().expect("they can be removed");
        let left = |name: &str| dir.join(name).exists();
        assert!(!left(names[0]) && left(names[1]) && left(names[2]) && left(names[3]) && named.file.exists());
        std::fs::remove_dir_all(&dir).expect("it is there");
        assert!(Named::of(&dir.join("a.b"), Some(2)).is_err());
    }
}
