//! A SMaRtClient that lies as it is told. See `lockstep_tests::malicious`.

use clap::Parser;
use lockstep_tests::malicious::{self, Options};
use mesh::node::logging::{self, LogFormat};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    logging::init(LogFormat::Text, None)?;
    malicious::run(options).await
}
