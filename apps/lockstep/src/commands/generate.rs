//! Help that is made from the flags themselves: completions for shells, and man pages.

use crate::cli::Cli;
use crate::exit::{Exit, Failure};
use anyhow::Context;
use clap::CommandFactory;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Settings of `completions`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Completions {
    /// For which shell; to be read by it, such as `source <(lockstep completions bash)`
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Settings of `man`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Man {
    /// Write a page for each subcommand into this directory, which must be there; without it all go to stdout, one after another
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Writes them to stdout.
pub(crate) fn completions(args: &Completions) {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lockstep", &mut text);
    // A closed stdout leaves the exit code.
    let _ = std::io::stdout().write_all(&text);
}

/// Writes the pages.
pub(crate) fn man(args: &Man) -> Result<(), Failure> {
    let pages = pages()?;
    match &args.dir {
        Some(dir) => write_all(&pages, dir),
        None => {
            let mut stdout = std::io::stdout();
            for (_, page) in &pages {
                let _ = stdout.write_all(page);
            }
            Ok(())
        }
    }
}

fn write_all(pages: &[(String, Vec<u8>)], dir: &Path) -> Result<(), Failure> {
    if !dir.is_dir() {
        return Err(Failure::new(Exit::Usage, format!("--dir: there is no directory {}", dir.display())));
    }
    for (name, page) in pages {
        let path = dir.join(format!("{name}.1"));
        std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A page for the program and one for each subcommand at any depth, by its name.
fn pages() -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, "lockstep", &mut pages).context("a page cannot be made")?;
    Ok(pages)
}

fn add(command: &clap::Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone().display_name(name)).render(&mut page)?;
    pages.push((name.to_owned(), page));
    let below = command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help");
    below.into_iter().try_for_each(|below| add(below, &format!("{name}-{}", below.get_name()), pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_every_subcommand_at_any_depth() {
        let pages = pages().expect("they can be made");
        let of =
            |name: &str| pages.iter().find(|(known, _)| known == name).map(|(_, page)| String::from_utf8_lossy(page));
        for (name, word) in
            [("lockstep", "sidecar"), ("lockstep-up", "replicas"), ("lockstep-certs-rotate-ca", "start")]
        {
            let page = of(name).unwrap_or_else(|| panic!("no page {name}"));
            assert!(page.starts_with(".ie") && page.contains(word), "{name}: {page}");
        }
    }

    #[test]
    fn every_shell_has_its_completions() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "lockstep", &mut text);
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(text.contains("smart-client") && text.contains("reply-vote"), "{shell}");
        }
    }
}
