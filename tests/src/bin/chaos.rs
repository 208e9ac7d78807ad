//! Harms real clusters, seed after seed, and judges what their clients saw.

use clap::Parser;
use lockstep_tests::chaos::{self, Options};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by Ctrl-C and SIGTERM: everything that was started is ended.
static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(file) = &options.check {
        return match chaos::check(file) {
            Ok(checked) => {
                println!("linearizable: {checked:?}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                println!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    if let Err(error) = listen_for_the_end() {
        eprintln!("cannot listen for Ctrl-C: {error}");
        return ExitCode::FAILURE;
    }
    let mut reports = Vec::new();
    for seed in options.first_seed..options.first_seed.saturating_add(options.seeds) {
        eprintln!("seed {seed}");
        match chaos::run(&options, seed, &STOP) {
            Ok(report) => {
                println!("{report}");
                reports.push(report);
            }
            Err(error) => {
                println!("seed {seed}: no verdict: {error:#}");
                println!("{}", chaos::table(&reports));
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{}", chaos::table(&reports));
    if reports.iter().all(chaos::Report::passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn listen_for_the_end() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    drop(_entered);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            STOP.store(true, Ordering::Relaxed);
            // A second one must not end the program before what it started.
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
        });
    });
    Ok(())
}
