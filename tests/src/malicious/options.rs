//! How a malicious SMaRtClient is started.

use super::behaviour::Wish;
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A server's id and HOST:PORT.
pub(super) type Server = (u32, String);

/// A SMaRtClient that works, but for what it is told to do. Prints `{"event":"ready",…}`, and at SIGTERM
/// `{"event":"ended","did":…}`: what it did, and what came of it; the same is in /status at the admin port
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// The cluster's name
    #[arg(long, default_value = "local")]
    pub cluster: String,
    /// Its id, as in its certificate
    #[arg(long)]
    pub id: String,
    /// The directory of its certificate: pki/smart-client/ID
    #[arg(long)]
    pub pki: PathBuf,
    /// Where ingresses and native clients come in
    #[arg(long, default_value = "127.0.0.1:0")]
    pub quic: SocketAddr,
    /// The admin port
    #[arg(long, default_value = "127.0.0.1:0")]
    pub admin: SocketAddr,
    /// The servers: ID=HOST:PORT,…
    #[arg(long, required = true, value_delimiter = ',', value_parser = server)]
    pub servers: Vec<Server>,
    /// What to do, NAME or NAME=PROBABILITY; again for more
    #[arg(long = "do", value_name = "NAME[=P]")]
    pub wishes: Vec<Wish>,
    /// How late what is delayed is passed on
    #[arg(long, default_value = "300ms", value_parser = humantime::parse_duration)]
    pub late: Duration,
    /// The request that is forged, without its line's end
    #[arg(long, default_value = "PUT forged 1")]
    pub forged: String,
    /// The reply that is invented, without its line's end
    #[arg(long, default_value = "OK")]
    pub invented: String,
    /// Messages a second of a flood
    #[arg(long, default_value_t = 1000)]
    pub flood: u32,
    /// Draws what is left to chance
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

fn server(text: &str) -> Result<Server, String> {
    let parsed = text.split_once('=').and_then(|(id, address)| Some((id.parse().ok()?, address.to_owned())));
    parsed.ok_or_else(|| format!("\"{text}\": write ID=HOST:PORT"))
}
