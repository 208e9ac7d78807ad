//! Settings in three layers: flags win over the environment (`LOCKSTEP_<FLAG>`), which wins over the TOML file that
//! `--config` names (the flag with `_`).
//!
//! The flags are declared once, with clap. What the command line does not give is looked up in the other layers and
//! put before the command line's own arguments; so clap sees one command line, and required settings, defaults and
//! conflicts need no second implementation. Every bad value of every layer is found before giving up.

use clap::builder::{BoolishValueParser, OsStringValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;
use std::process::ExitCode;

/// Before the name of a flag in the environment.
pub const ENV_PREFIX: &str = "LOCKSTEP_";

/// Bytes of a settings file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Exit code for wrong usage or configuration.
const USAGE: u8 = 2;

/// Why there are no settings.
#[derive(Debug)]
pub enum SettingsError {
    /// The command line itself: an unknown flag, a missing subcommand, or a wish for help.
    CommandLine(clap::Error),
    /// Bad settings, all of them, a line each.
    Bad(Vec<String>),
}

impl SettingsError {
    /// Tells the user, on stderr (help goes to stdout), and gives the exit code: 0 for help, otherwise 2.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        match self {
            Self::CommandLine(error) => {
                // A closed stream leaves nobody to tell.
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
            }
            Self::Bad(_) => {
                let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{self}\n").as_bytes());
                ExitCode::from(USAGE)
            }
        }
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine(error) => error.fmt(f),
            Self::Bad(problems) => {
                let lines: Vec<String> = problems.iter().map(|problem| format!("error: {problem}")).collect();
                f.write_str(&lines.join("\n"))
            }
        }
    }
}

impl std::error::Error for SettingsError {}

/// Collects problems, so that all are reported at once.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Notes a problem unless `holds`.
    pub fn check(&mut self, holds: bool, problem: impl Into<String>) {
        if !holds {
            self.0.push(problem.into());
        }
    }

    /// The value, or its error noted under the name of the setting.
    pub fn take<T, E: fmt::Display>(&mut self, setting: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.0.push(format!("{setting}: {error}"))).ok()
    }

    /// `value` if nothing was noted and there is one.
    ///
    /// # Errors
    /// All that was noted.
    pub fn into_result<T>(self, value: Option<T>) -> Result<T, SettingsError> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(SettingsError::Bad(self.0)),
        }
    }
}

/// The settings of this process, from its own command line and environment.
///
/// # Errors
/// Everything that is wrong with them; see [`SettingsError::report`].
pub fn load<T: clap::Parser>() -> Result<T, SettingsError> {
    load_from(&std::env::args_os().collect::<Vec<_>>(), &|name| std::env::var_os(name))
}

/// The settings from this command line (the program's name first) and this environment.
///
/// # Errors
/// Everything that is wrong with them.
pub fn load_from<T: clap::Parser>(
    argv: &[OsString],
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<T, SettingsError> {
    let (matches, _) = layered(&T::command(), argv, env)?;
    T::from_arg_matches(&matches).map_err(SettingsError::CommandLine)
}

/// A setting of the subcommand that was asked for, and where its value is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its flag, without the dashes.
    pub name: String,
    /// What it is; more than one for a list, none where it is not set.
    pub values: Vec<String>,
    /// `flag`, the name in the environment, the file and the key in it, `default`, or `not set`.
    pub source: String,
}

/// The settings that [`load_from`] would take, one by one. What follows `--` is no setting.
///
/// # Errors
/// Everything that is wrong with them.
pub fn explain_from<T: clap::CommandFactory>(
    argv: &[OsString],
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Vec<Setting>, SettingsError> {
    let strict = T::command();
    let (matches, sources) = layered(&strict, argv, env)?;
    let (leaf, _, given) = leaf(&strict, &matches);
    let shown = leaf.get_arguments().filter(|arg| !arg.is_hide_set() && takes_value(arg));
    let setting = |arg: &Arg| {
        let id = arg.get_id().as_str();
        let raw = given.get_raw(id).into_iter().flatten();
        let otherwise = if given.value_source(id).is_some() { "default" } else { "not set" };
        Some(Setting {
            name: arg.get_long()?.to_owned(),
            values: raw.map(|value| value.to_string_lossy().into_owned()).collect(),
            source: sources.get(id).cloned().unwrap_or_else(|| otherwise.to_owned()),
        })
    };
    Ok(shown.filter_map(setting).collect())
}

/// Neither help nor version.
fn takes_value(arg: &Arg) -> bool {
    use ArgAction::{Append, Set, SetFalse, SetTrue};
    matches!(arg.get_action(), Set | Append | SetTrue | SetFalse)
}

/// Where each setting is from that is set, by the argument's id.
type Sources = BTreeMap<String, String>;

/// All layers as one command line, parsed.
fn layered(
    strict: &Command,
    argv: &[OsString],
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<(ArgMatches, Sources), SettingsError> {
    let lenient = lenient(strict.clone());
    let matches = lenient.try_get_matches_from(argv).map_err(SettingsError::CommandLine)?;
    let (leaf, path, given) = leaf(strict, &matches);
    let (layers, sources) = resolve(leaf, given, env)?;
    let (head, own) = argv.split_at(behind(argv, &path));
    let whole: Vec<OsString> = head.iter().cloned().chain(layers).chain(own.iter().cloned()).collect();
    let matches = strict.clone().try_get_matches_from(whole).map_err(SettingsError::CommandLine)?;
    Ok((matches, sources))
}

/// The place behind the words that name the subcommand; flags of the commands above it may stand between them.
fn behind(argv: &[OsString], path: &[&str]) -> usize {
    let mut at = argv.len().min(1);
    for name in path {
        at += argv[at..].iter().position(|word| word == name).map_or(0, |found| found + 1);
    }
    at
}

/// The same command with every value taken as it is and nothing required: tells what the command line gives, and has
/// the names in the environment in its help.
fn lenient(command: Command) -> Command {
    let env = |arg: Arg| match env_name(&arg) {
        Some(name) => arg.env(forever(name)).hide_env_values(true),
        None => arg,
    };
    let loose = move |arg: Arg| {
        let arg = env(arg).required(false);
        match arg.get_action() {
            ArgAction::Set | ArgAction::Append => {
                let shown = shown_values(&arg);
                let arg = arg.value_parser(OsStringValueParser::new());
                if shown.is_empty() { arg } else { with_help(arg, &shown) }
            }
            ArgAction::SetTrue | ArgAction::SetFalse => arg.value_parser(BoolishValueParser::new()),
            _ => arg,
        }
    };
    command.mut_args(loose).mut_subcommands(lenient)
}

/// Clap holds on to names for ever. One allocation for each flag, once in the life of the process.
fn forever(name: String) -> &'static str {
    Box::leak(name.into_boxed_str())
}

/// The names that an enumerated setting takes, which its own parser would have shown in the help.
fn shown_values(arg: &Arg) -> String {
    let names: Vec<String> =
        arg.get_possible_values().iter().filter(|v| !v.is_hide_set()).map(|v| v.get_name().to_owned()).collect();
    if names.is_empty() { String::new() } else { format!(" [possible values: {}]", names.join(", ")) }
}

fn with_help(arg: Arg, more: &str) -> Arg {
    let text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let long = arg.get_long_help().map(|help| format!("{help}{more}"));
    let arg = arg.help(format!("{text}{more}"));
    match long {
        Some(long) => arg.long_help(long),
        None => arg,
    }
}

/// The subcommand that was asked for, the names down to it, and what the command line gives it.
fn leaf<'a>(command: &'a Command, matches: &'a ArgMatches) -> (&'a Command, Vec<&'a str>, &'a ArgMatches) {
    let (mut command, mut matches, mut path) = (command, matches, Vec::new());
    while let Some((name, below)) = matches.subcommand() {
        let Some(next) = command.find_subcommand(name) else { break };
        (command, matches) = (next, below);
        path.push(name);
    }
    (command, path, matches)
}

fn env_name(arg: &Arg) -> Option<String> {
    Some(format!("{ENV_PREFIX}{}", arg.get_long()?.replace('-', "_").to_ascii_uppercase()))
}

fn file_key(arg: &Arg) -> Option<String> {
    Some(arg.get_long()?.replace('-', "_"))
}

/// Arguments for all settings that the command line leaves to the environment and the file.
fn resolve(
    leaf: &Command,
    given: &ArgMatches,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<(Vec<OsString>, Sources), SettingsError> {
    let mut problems = Vec::new();
    let mut sources = Sources::new();
    let mut file = match file_path(leaf, given, env) {
        Some(path) => read_file(Path::new(&path), &mut problems),
        None => FileLayer::default(),
    };
    let mut whole = Vec::new();
    for arg in leaf.get_arguments() {
        let id = arg.get_id().as_str();
        let in_file = file_key(arg).and_then(|key| file.table.remove(&key));
        let (source, values) = if given.value_source(id) == Some(ValueSource::CommandLine) {
            let raw: Vec<OsString> = given.get_raw(id).into_iter().flatten().map(OsStr::to_owned).collect();
            // Its words are on the command line already.
            sources.insert(id.to_owned(), "flag".to_owned());
            check(arg, "", &raw, &mut problems);
            continue;
        } else if let Some((name, value)) = env_name(arg).and_then(|name| env(&name).map(|value| (name, value))) {
            (name, vec![value])
        } else if let Some(value) = in_file {
            let source = format!("{}: {}", file.path, file_key(arg).unwrap_or_default());
            match words(&value) {
                Ok(words) => (source, words),
                Err(reason) => {
                    problems.push(format!("{source}: {reason}"));
                    continue;
                }
            }
        } else {
            missing(arg, &mut problems);
            continue;
        };
        if check(arg, &format!("{source}: "), &values, &mut problems) {
            whole.extend(arguments(arg, &values));
            sources.insert(id.to_owned(), source);
        }
    }
    unknown_keys(leaf, &file, &mut problems);
    if problems.is_empty() { Ok((whole, sources)) } else { Err(SettingsError::Bad(problems)) }
}

/// The settings file, as it was read.
#[derive(Default)]
struct FileLayer {
    path: String,
    table: toml::Table,
}

fn file_path(leaf: &Command, given: &ArgMatches, env: &dyn Fn(&str) -> Option<OsString>) -> Option<OsString> {
    let arg = leaf.get_arguments().find(|arg| arg.get_long() == Some("config"))?;
    if given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) {
        return given.get_raw(arg.get_id().as_str())?.next().map(OsStr::to_owned);
    }
    env(&env_name(arg)?)
}

fn read_file(path: &Path, problems: &mut Vec<String>) -> FileLayer {
    let shown = path.display().to_string();
    let read = || -> Result<toml::Table, String> {
        let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
        if size > FILE_BYTES_MAX {
            return Err(format!("it is longer than {FILE_BYTES_MAX} bytes"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        text.parse().map_err(|error: toml::de::Error| error.to_string().trim_end().to_owned())
    };
    match read() {
        Ok(table) => FileLayer { path: shown, table },
        Err(reason) => {
            problems.push(format!("settings file {shown}: {reason}"));
            FileLayer { path: shown, table: toml::Table::new() }
        }
    }
}

/// What is left in the file's table belongs to no flag.
fn unknown_keys(leaf: &Command, file: &FileLayer, problems: &mut Vec<String>) {
    let known: Vec<String> = leaf.get_arguments().filter_map(file_key).filter(|key| key != "config").collect();
    for key in file.table.keys() {
        problems.push(format!("{}: {key}: unknown key; there are: {}", file.path, known.join(", ")));
    }
}

/// A value of the file as words of a command line.
fn words(value: &toml::Value) -> Result<Vec<OsString>, &'static str> {
    match value {
        toml::Value::Array(list) => {
            let words: Option<Vec<OsString>> = list.iter().map(word).collect();
            words.ok_or("a list holds strings, numbers and booleans only")
        }
        single => word(single).map(|word| vec![word]).ok_or("must be a string, a number, a boolean or a list of them"),
    }
}

fn word(value: &toml::Value) -> Option<OsString> {
    match value {
        toml::Value::String(text) => Some(text.into()),
        toml::Value::Integer(number) => Some(number.to_string().into()),
        toml::Value::Float(number) => Some(number.to_string().into()),
        toml::Value::Boolean(flag) => Some(flag.to_string().into()),
        _ => None,
    }
}

fn missing(arg: &Arg, problems: &mut Vec<String>) {
    if arg.is_required_set() {
        match (arg.get_long(), env_name(arg), file_key(arg)) {
            (Some(long), Some(env), Some(key)) => {
                problems
                    .push(format!("--{long} is missing: give the flag, set {env}, or {key} in the file of --config"));
            }
            _ => problems.push(format!("{arg} is missing")),
        }
    }
}

/// Parses the values of one setting alone. True if they are good.
fn check(arg: &Arg, source: &str, values: &[OsString], problems: &mut Vec<String>) -> bool {
    let Some(long) = arg.get_long() else { return true };
    let mut alone = Arg::new("value").long(forever(long.to_owned())).num_args(1).action(ArgAction::Append);
    alone = match arg.get_action() {
        ArgAction::SetTrue | ArgAction::SetFalse => alone.value_parser(BoolishValueParser::new()),
        _ => alone.value_parser(arg.get_value_parser().clone()),
    };
    if let Some(delimiter) = arg.get_value_delimiter() {
        alone = alone.value_delimiter(delimiter);
    }
    if let Some(names) = arg.get_value_names() {
        alone = alone.value_names(names.iter().cloned());
    }
    let single = matches!(arg.get_action(), ArgAction::Set | ArgAction::SetTrue | ArgAction::SetFalse);
    if single && values.len() > 1 && !source.is_empty() {
        problems.push(format!("{source}takes one value, not a list"));
        return false;
    }
    let mut good = true;
    for value in values {
        let command = Command::new("settings").disable_help_flag(true).no_binary_name(true).arg(alone.clone());
        if let Err(error) = command.try_get_matches_from([flag_with(long, value)]) {
            problems.push(format!("{source}{}", first_paragraph(&error)));
            good = false;
        }
    }
    good
}

/// What clap says without the usage and the hint at `--help`.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let text = lines.join(" ");
    text.strip_prefix("error: ").map_or(text.clone(), ToOwned::to_owned)
}

fn flag_with(long: &str, value: &OsStr) -> OsString {
    let mut word = OsString::from(format!("--{long}="));
    word.push(value);
    word
}

/// The words that give `values` to a setting on a command line.
fn arguments(arg: &Arg, values: &[OsString]) -> Vec<OsString> {
    let Some(long) = arg.get_long() else { return Vec::new() };
    match arg.get_action() {
        ArgAction::SetTrue | ArgAction::SetFalse => {
            let yes = values.iter().any(|value| truthy(value));
            if yes { vec![format!("--{long}").into()] } else { Vec::new() }
        }
        _ => values.iter().map(|value| flag_with(long, value)).collect(),
    }
}

/// As clap's boolish parser, which has accepted the value already.
fn truthy(value: &OsStr) -> bool {
    let text = value.to_string_lossy().to_ascii_lowercase();
    matches!(text.as_str(), "y" | "yes" | "t" | "true" | "on" | "1")
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
