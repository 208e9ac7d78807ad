//! Exit codes: a contract with scripts.

use mesh::node::config::SettingsError;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// Every end but success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It failed.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// It exists already, is in use, or would break a rule.
    Refused = 3,
    /// Input that is invalid, expired or not trusted.
    Invalid = 4,
    /// Not healthy.
    Unhealthy = 5,
    /// `call`: it may have run, or not.
    UnknownOutcome = 6,
    /// `call`: the service refused it, it did not run.
    RefusedByService = 7,
}

/// Why a subcommand did not end well.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    error: anyhow::Error,
}

impl Failure {
    /// A failure with an exit code of its own.
    pub(crate) fn new(exit: Exit, error: impl Display) -> Self {
        Self { exit, error: anyhow::anyhow!("{error:#}") }
    }

    /// Tells the user, on stderr, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let mut text = format!("{:#}", self.error);
        // Settings come with a line, and the word, for each problem.
        if !text.starts_with("error: ") {
            text.insert_str(0, "error: ");
        }
        // A closed stderr leaves nobody to tell.
        let _ = writeln!(std::io::stderr(), "{text}");
        ExitCode::from(self.exit as u8)
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { exit: Exit::Failed, error }
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self { exit: Exit::Usage, error: error.into() }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.error)
    }
}
