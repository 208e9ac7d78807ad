//! Where the data of a stopped member is: in a directory of its own, or in that of an `up`.

use crate::exit::Failure;
use crate::up::data_dir::DataDir;
use std::path::{Path, PathBuf};

/// The data directory of one member.
#[derive(Debug)]
pub(crate) struct Place {
    /// Where it is.
    pub(crate) dir: PathBuf,
    /// No `up` runs there while this lives.
    _up: Option<DataDir>,
}

impl Place {
    /// Of the member `id`, where `dir` is its own data directory or the one of an `up`.
    pub(crate) async fn of(dir: &Path, id: u32) -> Result<Self, Failure> {
        if !DataDir::is_one(dir) {
            return Ok(Self { dir: dir.to_owned(), _up: None });
        }
        let up = DataDir::open(Some(dir)).await?;
        Ok(Self { dir: up.member(id), _up: Some(up) })
    }
}
