//! Sends one request exactly once, however often this program is killed and started again.
//!
//! ```sh
//! cargo run --example exactly_once -- CLUSTER PKI_DIR HOST:PORT FILE 'INCR visits'
//! ```
//!
//! Started again with the same FILE it goes on with the request that is stored there, and prints its reply.

use mesh::client::{Client, ClientConfig, SessionName};
use mesh::ids::Seq;
use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Durable and atomic: after a crash the file is as it was before, or as it is now.
fn store(file: &Path, name: SessionName, seq: Seq, request: &str) -> std::io::Result<()> {
    let next = file.with_extension("next");
    let mut written = File::create(&next)?;
    write!(written, "{name} {seq} {request}")?;
    written.sync_all()?;
    fs::rename(&next, file)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn stored(file: &Path) -> Option<(SessionName, Seq, String)> {
    let text = fs::read_to_string(file).ok()?;
    let mut words = text.splitn(3, ' ');
    let name = words.next()?.parse().ok()?;
    let seq = words.next()?.parse().ok()?;
    Some((name, Seq(seq), words.next()?.to_owned()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [cluster, pki, smart_client, file, request] = &arguments[..] else {
        return Err("usage: exactly_once CLUSTER PKI_DIR HOST:PORT FILE REQUEST".into());
    };
    let file = Path::new(file);
    let client = Client::connect(ClientConfig::new(cluster, "0", pki, [smart_client])).await?;
    let (mut session, line) = match stored(file) {
        Some((name, seq, request)) => (client.resume_in_doubt(name, seq, request.clone()), request),
        None => {
            let session = client.open_session().await?;
            let line = format!("{request}\n");
            store(file, session.name(), session.next(), &line)?;
            (session, line)
        }
    };
    let reply = session.invoke(line).await?;
    std::io::stdout().write_all(&reply)?;
    fs::remove_file(file)?;
    session.close().await?;
    client.shutdown().await;
    Ok(())
}
