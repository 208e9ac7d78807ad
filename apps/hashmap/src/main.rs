//! The `hashmap` program: the example application by itself.

use std::process::ExitCode;

#[derive(clap::Parser)]
#[command(name = "hashmap", version, about)]
struct Cli {
    #[command(flatten)]
    args: hashmap::Args,
}

fn main() -> ExitCode {
    let cli = <Cli as clap::Parser>::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(hashmap::run(cli.args)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hashmap: {error:#}");
            ExitCode::FAILURE
        }
    }
}
