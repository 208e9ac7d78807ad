//! How layers of settings override each other, and what is refused.

use super::*;
use crate::node::human;
use std::path::PathBuf;
use std::time::Duration;

#[derive(clap::Parser, Debug, PartialEq)]
#[command(name = "program")]
struct Cli {
    #[command(subcommand)]
    part: Part,
}

#[derive(clap::Subcommand, Debug, PartialEq)]
enum Part {
    /// One part
    Run(Run),
}

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Colour {
    Red,
    Blue,
}

#[derive(clap::Args, Debug, PartialEq)]
struct Run {
    /// Settings file
    #[arg(long)]
    config: Option<PathBuf>,
    /// Name
    #[arg(long)]
    cluster: String,
    /// Number
    #[arg(long, default_value_t = 7)]
    some_number: u32,
    /// Colour
    #[arg(long, value_enum, default_value = "red")]
    colour: Colour,
    /// Time
    #[arg(long, value_parser = human::parse_duration, default_value = "20s")]
    wait: Duration,
    /// Switch
    #[arg(long)]
    fast: bool,
    /// Many
    #[arg(long, value_delimiter = ',')]
    seeds: Vec<String>,
    /// Command
    #[arg(last = true)]
    command: Vec<String>,
}

fn load_with(argv: &[&str], env: &[(&str, &str)]) -> Result<Run, SettingsError> {
    let argv: Vec<OsString> = ["program", "run"].iter().chain(argv).map(Into::into).collect();
    let env = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    load_from::<Cli>(&argv, &env).map(|Cli { part: Part::Run(run) }| run)
}

fn problems(result: Result<Run, SettingsError>) -> Vec<String> {
    match result {
        Err(SettingsError::Bad(problems)) => problems,
        other => panic!("expected bad settings, got {other:?}"),
    }
}

/// A file that goes away with the test.
struct File(PathBuf);

impl File {
    fn with(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lockstep-settings-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).expect("the temporary directory can be written");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("an ASCII path")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let file = File::with(
        "layers",
        "cluster = \"file\"\nsome_number = 1\nwait = \"3s\"\nfast = true\nseeds = [\"x:1\", \"y:2\"]\n",
    );
    let run = load_with(
        &["--config", file.path(), "--cluster", "flag", "--", "app", "--fast"],
        &[("LOCKSTEP_CLUSTER", "environment"), ("LOCKSTEP_SOME_NUMBER", "2"), ("LOCKSTEP_COLOUR", "blue")],
    )
    .expect("all settings are good");
    assert_eq!(run.cluster, "flag");
    assert_eq!(run.some_number, 2);
    assert_eq!(run.colour, Colour::Blue);
    assert_eq!(run.wait, Duration::from_secs(3));
    assert!(run.fast);
    assert_eq!(run.seeds, ["x:1", "y:2"]);
    assert_eq!(run.command, ["app", "--fast"]);
}

#[test]
fn defaults_stand_where_no_layer_says_more() {
    let run = load_with(&["--cluster", "c"], &[]).expect("only the cluster is required");
    assert_eq!((run.some_number, run.colour, run.wait, run.fast), (7, Colour::Red, Duration::from_secs(20), false));
}

#[test]
fn a_required_setting_may_come_from_the_environment() {
    let env = [("LOCKSTEP_CLUSTER", "c"), ("LOCKSTEP_SEEDS", "a:1,b:2"), ("LOCKSTEP_FAST", "0")];
    let run = load_with(&[], &env).expect("the environment has the cluster");
    assert_eq!((run.cluster.as_str(), run.fast), ("c", false));
    assert_eq!(run.seeds, ["a:1", "b:2"]);
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let file = File::with("named", "cluster = \"file\"\n");
    let run = load_with(&[], &[("LOCKSTEP_CONFIG", file.path())]).expect("the file has the cluster");
    assert_eq!(run.cluster, "file");
}

#[test]
fn all_bad_settings_of_all_layers_are_reported_at_once() {
    let file = File::with("bad", "colour = \"green\"\nspeed = 3\nseeds = [{a = 1}]\n");
    let found = problems(load_with(
        &["--config", file.path(), "--some-number", "many"],
        &[("LOCKSTEP_WAIT", "soon"), ("LOCKSTEP_FAST", "perhaps")],
    ));
    let expected = [
        "--some-number",
        "LOCKSTEP_WAIT",
        "LOCKSTEP_FAST",
        "colour: invalid",
        "speed: unknown key",
        "seeds: a list",
        "--cluster is missing",
    ];
    for part in expected {
        assert_eq!(found.iter().filter(|line| line.contains(part)).count(), 1, "{part} in {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn a_file_that_is_not_there_or_not_toml_is_a_bad_setting() {
    let found = problems(load_with(&["--cluster", "c", "--config", "/nowhere/at/all.toml"], &[]));
    assert!(found[0].contains("/nowhere/at/all.toml"), "{found:?}");
    let file = File::with("broken", "cluster = \n");
    let found = problems(load_with(&["--cluster", "c", "--config", file.path()], &[]));
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_list_for_a_single_setting_is_refused() {
    let file = File::with("list", "cluster = [\"a\", \"b\"]\n");
    assert!(problems(load_with(&["--config", file.path()], &[]))[0].contains("one value"));
}

#[test]
fn an_unknown_flag_is_an_error_of_the_command_line() {
    let error = load_with(&["--cluster", "c", "--speed", "3"], &[]).expect_err("there is no such flag");
    assert!(matches!(error, SettingsError::CommandLine(_)), "{error:?}");
}

#[test]
fn the_help_names_the_environment_and_the_possible_values() {
    let SettingsError::CommandLine(help) = load_with(&["--help"], &[]).expect_err("help is not settings") else {
        panic!("help comes from the command line");
    };
    let text = help.to_string();
    assert_eq!(help.exit_code(), 0);
    assert!(text.contains("LOCKSTEP_SOME_NUMBER") && text.contains("possible values: red, blue"), "{text}");
}

#[test]
fn each_setting_is_explained_with_where_it_is_from() {
    let file = File::with("explained", "cluster = \"file\"\nfast = true\nseeds = [\"x:1\", \"y:2\"]\n");
    let argv = ["program", "run", "--config", file.path(), "--some-number", "9", "--", "app", "--fast"];
    let env = |name: &str| (name == "LOCKSTEP_WAIT").then(|| "3s".into());
    let found = explain_from::<Cli>(&argv.map(Into::into), &env).expect("all settings are good");
    let shown: Vec<String> =
        found.iter().map(|one| format!("{}={} ({})", one.name, one.values.join(","), one.source)).collect();
    let of = |key: &str| format!("{}: {key}", file.path());
    let expected = [
        format!("config={} (flag)", file.path()),
        format!("cluster=file ({})", of("cluster")),
        "some-number=9 (flag)".to_owned(),
        "colour=red (default)".to_owned(),
        "wait=3s (LOCKSTEP_WAIT)".to_owned(),
        format!("fast=true ({})", of("fast")),
        format!("seeds=x:1,y:2 ({})", of("seeds")),
    ];
    assert_eq!(shown, expected);
    assert!(explain_from::<Cli>(&["program", "run"].map(Into::into), &|_| None).is_err(), "the cluster is missing");
}
