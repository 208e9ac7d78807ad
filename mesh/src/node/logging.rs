//! Logs on stderr, for people or as JSON, with a level that can be changed while the process runs.

use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::OnceLock;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// The filter when neither `LOCKSTEP_LOG` nor `RUST_LOG` says another.
pub const DEFAULT_FILTER: &str = "info";

/// The longest filter that is taken.
pub const FILTER_BYTES_MAX: usize = 4096;

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Why logging cannot be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error(
        "log filter \"{filter}\": {reason}: write a level such as debug, or target=level pairs such as info,mesh=debug"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Logging is set up already.
    #[error("logging is set up already")]
    Twice,
    /// Logging is not set up.
    #[error("logging is not set up in this process")]
    Missing,
}

/// Begins logging on stderr. `filter` (the flag or `LOCKSTEP_LOG`) wins over `RUST_LOG`, which wins over [`DEFAULT_FILTER`].
///
/// # Errors
/// For a filter that cannot be read, and when called twice.
pub fn init(format: LogFormat, filter: Option<&str>) -> Result<(), LogError> {
    let rust_log = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let filter = parse_filter(filter.or(rust_log.as_deref()).unwrap_or(DEFAULT_FILTER))?;
    let (filter, handle) = reload::Layer::new(filter);
    // A closed stderr must not end the process: a failed write of a line is dropped.
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|_| LogError::Twice)?;
    FILTER.set(handle).map_err(|_| LogError::Twice)
}

/// Changes the filter of a running process.
///
/// # Errors
/// For a filter that cannot be read, and before [`init`].
pub fn set_filter(filter: &str) -> Result<(), LogError> {
    let filter = parse_filter(filter)?;
    FILTER.get().ok_or(LogError::Missing)?.reload(filter).map_err(|_| LogError::Missing)
}

/// The filter in force; `None` before [`init`].
#[must_use]
pub fn filter() -> Option<String> {
    FILTER.get()?.with_current(ToString::to_string).ok()
}

fn parse_filter(text: &str) -> Result<EnvFilter, LogError> {
    let text = text.trim();
    let bad = |reason: String| LogError::Filter { filter: text.chars().take(100).collect(), reason };
    if text.is_empty() {
        return Err(bad("it is empty".to_owned()));
    }
    if text.len() > FILTER_BYTES_MAX {
        return Err(bad(format!("it is longer than {FILTER_BYTES_MAX} bytes")));
    }
    EnvFilter::from_str(text).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_targets_with_levels() {
        for good in ["debug", "info,mesh=debug", " off\n"] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
        for bad in ["", "   ", "mesh=loud", &"a,".repeat(FILTER_BYTES_MAX)] {
            assert!(parse_filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_level_of_a_running_process_can_be_changed() {
        assert!(matches!(set_filter("debug"), Err(LogError::Missing)));
        init(LogFormat::Json, Some("warn")).expect("the first set-up holds");
        assert_eq!(filter().as_deref(), Some("warn"));
        set_filter("mesh=debug").expect("a good filter");
        assert_eq!(filter().as_deref(), Some("mesh=debug"));
        assert!(matches!(init(LogFormat::Text, None), Err(LogError::Twice)));
    }
}
