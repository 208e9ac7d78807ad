//! `lockstep config`: what a part would be started with, and what is wrong with it, without starting it.

use crate::cli::Cli;
use crate::exit::Failure;
use crate::parts::{ingress, sidecar, smart_client};
use crate::up;
use crate::up::output::Format;
use mesh::node::config::{Setting, SettingsError, explain_from};
use mesh::node::hide;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::Write;

/// What to do with the settings.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Say everything that is wrong with a part's settings, from file, environment and flags; exit code 2 if anything is
    Check {
        /// Whose settings
        #[command(subcommand)]
        part: Part,
    },
    /// Show a part's merged settings, each with where it is from; passwords and their like are hidden
    Show {
        /// How to print it; before the part
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
        output: Format,
        /// Whose settings
        #[command(subcommand)]
        part: Part,
    },
}

/// A part, with its flags.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Part {
    /// Those of `lockstep up`
    Up(Box<up::Args>),
    /// Those of `lockstep sidecar`
    Sidecar(Box<sidecar::Args>),
    /// Those of `lockstep smart-client`
    SmartClient(Box<smart_client::Args>),
    /// Those of `lockstep ingress`
    Ingress(Box<ingress::Args>),
}

impl Part {
    /// What the layers alone do not tell: settings that do not go together.
    fn check(self) -> Result<(), SettingsError> {
        match self {
            Self::Up(args) => args.check(),
            Self::Sidecar(args) => args.check(),
            Self::SmartClient(args) => args.check(),
            Self::Ingress(args) => args.check(),
        }
    }
}

/// Checks them, and shows them if that is wished. Whoever comes here has settings that are good one by one.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let text = match command {
        Command::Check { part } => {
            part.check()?;
            "the settings are good\n".to_owned()
        }
        Command::Show { output, part } => {
            part.check()?;
            let settings = explain_from::<Cli>(&argv, &|name| std::env::var_os(name))?;
            match output {
                Format::Json => format!("{}\n", document(&settings)),
                Format::Text => table(&settings),
            }
        }
    };
    // A closed stdout leaves the exit code.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// The values as they may be seen.
fn shown(setting: &Setting) -> Vec<String> {
    if setting.name.ends_with("request") {
        return setting.values.iter().map(|value| hide::request(value)).collect();
    }
    let named = format!("--{}", setting.name);
    let words = |value: &String| hide::secrets(&[named.clone(), value.clone()]).swap_remove(1);
    // Files that hold secrets are named here, and not shown.
    let is_file = ["file", "tls-key"].iter().any(|end| setting.name.ends_with(end));
    if is_file { setting.values.clone() } else { setting.values.iter().map(words).collect() }
}

fn document(settings: &[Setting]) -> Value {
    let one = |setting: &Setting| {
        (setting.name.replace('-', "_"), json!({ "values": shown(setting), "source": setting.source }))
    };
    Value::Object(settings.iter().map(one).collect())
}

fn table(settings: &[Setting]) -> String {
    let rows: Vec<(String, String, &str)> = settings
        .iter()
        .map(|setting| (format!("--{}", setting.name), shown(setting).join(","), setting.source.as_str()))
        .collect();
    let width = |of: fn(&(String, String, &str)) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let (names, values) = (width(|row| row.0.chars().count()), width(|row| row.1.chars().count()).min(48));
    rows.iter().map(|(name, value, source)| format!("{name:<names$}  {value:<values$}  {source}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_shown_with_where_they_are_from_and_without_secrets() {
        let setting = |name: &str, value: &str, source: &str| Setting {
            name: name.to_owned(),
            values: vec![value.to_owned()],
            source: source.to_owned(),
        };
        let settings = [
            setting("cluster", "demo", "LOCKSTEP_CLUSTER"),
            setting("app-reset-request", "AUTH abc", "flag"),
            setting("tls-key", "key.pem", "flag"),
        ];
        assert_eq!(
            table(&settings),
            "--cluster            demo           LOCKSTEP_CLUSTER\n\
             --app-reset-request  AUTH (hidden)  flag\n\
             --tls-key            key.pem        flag\n"
        );
        assert_eq!(document(&settings)["app_reset_request"]["values"], json!(["AUTH (hidden)"]));
        assert_eq!(document(&settings)["cluster"]["source"], "LOCKSTEP_CLUSTER");
    }
}
