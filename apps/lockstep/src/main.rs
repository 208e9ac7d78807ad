//! The `lockstep` program: parses the settings, runs one subcommand, turns its end into an exit code.

mod cli;
mod commands;
mod exit;
mod http;
mod kubernetes;
mod parts;
mod process;
mod up;

use cli::{Cli, Command};
use exit::Failure;
use mesh::node::{Version, config, grid, set_version};
use mimalloc::MiMalloc;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    set_version(Version { number: env!("CARGO_PKG_VERSION"), commit: env!("LOCKSTEP_BUILD_COMMIT") });
    let cli: Cli = match config::load() {
        Ok(cli) => cli,
        Err(error) => return error.report(),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let runtime = grid::runtime().map_err(anyhow::Error::from)?;
    runtime.block_on(async {
        match cli.command {
            Command::Exec(args) => parts::exec::run(args).await,
            Command::Idle => {
                commands::idle::run().await;
                Ok(())
            }
            Command::Up(args) => up::run(*args).await,
            Command::Sidecar(args) => parts::sidecar::run(*args).await,
            Command::SmartClient(args) => parts::smart_client::run(*args).await,
            Command::Ingress(args) => parts::ingress::run(*args).await,
            Command::Bootstrap(args) => commands::bootstrap::run(args).await,
            Command::Status(args) => commands::status::run(args).await,
            Command::Top(args) => commands::top::run(args).await,
            Command::Smoke(args) => commands::smoke::run(args).await,
            Command::Debug(args) => commands::debug::run(args).await,
            Command::Config { command } => commands::config::run(command),
            Command::Completions(args) => {
                commands::generate::completions(&args);
                Ok(())
            }
            Command::Man(args) => commands::generate::man(&args),
            Command::Check(args) => commands::check::run(args).await,
            Command::Bench(args) => bench::run(*args).await.map_err(Failure::from),
            Command::Call(args) => commands::call::run(args).await,
            Command::Snapshot { command } => commands::snapshot::run(command).await,
            Command::Backup { command } => commands::backup::run(command).await,
            Command::Members { command } => commands::members::run(command).await,
            Command::Abort(args) => commands::abort::run(args).await,
            Command::Diff(args) => commands::diff::run(&args),
            Command::Certs { command } => commands::certs::run(command).await,
            Command::Inject(args) => commands::inject::run(&args),
            Command::Journal { command } => commands::journal::run(command),
            Command::Hashmap(args) => hashmap::run(args).await.map_err(Failure::from),
        }
    })
}

/// Reads a command line, for tests.
#[cfg(test)]
fn parse(argv: &[&str]) -> Result<Command, config::SettingsError> {
    let argv: Vec<std::ffi::OsString> =
        std::iter::once("lockstep").chain(argv.iter().copied()).map(Into::into).collect();
    config::load_from::<Cli>(&argv, &|_| None).map(|cli| cli.command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_line_is_consistent_and_every_setting_is_explained() {
        let mut command = Cli::command();
        command.build();
        for subcommand in command.get_subcommands() {
            assert!(subcommand.get_about().is_some(), "{}", subcommand.get_name());
            for arg in subcommand.get_arguments().filter(|arg| !arg.is_hide_set()) {
                assert!(arg.get_help().is_some(), "{} {}", subcommand.get_name(), arg.get_id());
            }
        }
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["lockstep"]).is_err());
    }
}
