//! The supervisor of an application in a container of its own (`lockstep exec`), asked over a Unix socket on a volume that
//! both containers mount: "restart" is answered with "restarted" once the old process is dead and the new one runs.

use anyhow::{Context, bail};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// What is asked.
pub const RESTART: &[u8] = b"restart\n";
/// How the answer begins when it is done.
pub const RESTARTED: &str = "restarted";
/// Bytes of an answer at most.
const ANSWER_BYTES: u64 = 4096;
/// How long a restart may take: the kernel ends the old process, and starts the new one.
const PATIENCE: Duration = Duration::from_secs(15);

/// Has the application restarted.
///
/// # Errors
/// Nobody answers there, or it could not be done.
pub(super) async fn restart(socket: &Path) -> anyhow::Result<()> {
    let asked = async {
        let mut stream = UnixStream::connect(socket).await.context("cannot connect")?;
        stream.write_all(RESTART).await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES).read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = timeout(PATIENCE, asked).await.context("no answer in time").flatten();
    match answer.with_context(|| format!("the application's supervisor at {}", socket.display()))? {
        answer if answer.starts_with(RESTARTED) => Ok(()),
        answer => bail!("the application's supervisor could not restart it: {}", answer.trim_end()),
    }
}
