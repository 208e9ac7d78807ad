//! The command line of the application, for its own binary and for `lockstep hashmap`.

use crate::{Options, serve};
use anyhow::Context;
use std::io::Write;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A hashmap over TCP: PUT, GET, REMOVE, SIZE, DUMP, LOAD, one request a line
#[derive(clap::Args, Clone, Debug, PartialEq, Eq)]
pub struct Args {
    /// Where to listen, HOST:PORT; without it 127.0.0.1 and the port in the environment variable PORT
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Close the connection after every reply
    #[arg(long)]
    pub close: bool,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When there is no address, or it cannot be had.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let address = address(args.listen, std::env::var("PORT").ok().as_deref())?;
    let listener = TcpListener::bind(&address).await.with_context(|| format!("cannot listen on {address}"))?;
    // A closed stderr is no reason to end.
    let _ = writeln!(std::io::stderr(), "hashmap: listening on {}", listener.local_addr()?);
    // As the first process of a container it gets no default handler from the kernel.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        () = serve(listener, Options { close: args.close, ..Options::default() }) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn address(listen: Option<String>, port: Option<&str>) -> anyhow::Result<String> {
    match (listen, port) {
        (Some(address), _) => Ok(address),
        (None, Some(port)) => {
            let port: u16 = port.parse().with_context(|| format!("PORT is \"{port}\", which is no port number"))?;
            Ok(format!("127.0.0.1:{port}"))
        }
        (None, None) => anyhow::bail!("say where to listen: --listen ADDR, or PORT in the environment"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_port_in_the_environment() {
        assert_eq!(address(Some("[::1]:1".into()), Some("2")).expect("an address"), "[::1]:1");
        assert_eq!(address(None, Some("2")).expect("an address"), "127.0.0.1:2");
        assert!(address(None, Some("two")).is_err() && address(None, None).is_err());
    }
}
