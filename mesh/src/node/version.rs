//! Which program this is: its version and the commit that it was built from.

use std::fmt;
use std::sync::OnceLock;

static VERSION: OnceLock<Version> = OnceLock::new();

/// A program's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// As in its Cargo.toml.
    pub number: &'static str,
    /// The git commit, "unknown" when it was not built from a repository.
    pub commit: &'static str,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.number, self.commit)
    }
}

/// Says which program this is. The first call counts; the binary makes it before anything else.
pub fn set_version(version: Version) {
    let _ = VERSION.set(version);
}

/// What [`set_version`] said; without it, the version of this crate.
#[must_use]
pub fn version() -> Version {
    VERSION.get().copied().unwrap_or(Version { number: env!("CARGO_PKG_VERSION"), commit: "unknown" })
}
