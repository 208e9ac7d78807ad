//! `lockstep up`: everything on this machine around any TCP server, each part a process of its own.
//!
//! Settings ([`args`]) become a plan ([`plan`], with [`ports`], certificates in [`pki`]) in a data directory
//! ([`data_dir`]); the plan becomes processes ([`children`]), which are watched ([`observe`], [`ready`]) and told about
//! ([`output`]; [`state`] is what is kept on disk for other commands); [`supervisor`] is the loop, [`stop`] its end.

mod args;
mod children;
pub(crate) mod data_dir;
mod observe;
pub(crate) mod output;
mod pki;
mod plan;
mod ports;
mod ready;
pub(crate) mod state;
mod stop;
mod supervisor;

pub(crate) use args::Args;

use crate::exit::Failure;
use crate::parts::recovery::{LOG_GROWS, Mode};
use args::Settings;
use data_dir::DataDir;
use supervisor::Supervisor;

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let logging = args.logging.clone();
    let settings = args.settings()?;
    logging.init()?;
    warn(&settings);
    let dir = DataDir::open(settings.data_dir.as_deref()).await?;
    let plan = plan::plan(&settings, &dir)?;
    let operator = pki::prepare(&settings, &plan)?;
    // The directory is unlocked, or removed, when everything has ended.
    let result = Supervisor::new(settings, plan).run(operator).await;
    drop(dir);
    result
}

fn warn(settings: &Settings) {
    let n = settings.members();
    if n.is_multiple_of(2) {
        tracing::warn!("an even number of members: {n} survive the loss of no more than {} do", n - 1);
    }
    if settings.recovery.mode(settings.protocol, true) == Mode::None {
        tracing::warn!("{LOG_GROWS}");
    }
}
