//! Whoever knows which incarnation of the application runs, and can bring it to its initial state.

use super::Settings;
use super::found::Found;
use super::supervisor::Supervisor;
use crate::App;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The two ways in which there is an application.
#[derive(Debug)]
pub(super) enum Keeper {
    /// A child of this sidecar.
    Child(Supervisor),
    /// Somebody else's.
    Found(Found),
}

impl Keeper {
    /// `awaits_restart` is told whoever can have somebody else's application restarted.
    pub(super) fn new(app: &App, settings: &Settings, awaits_restart: &Arc<AtomicBool>) -> Self {
        match app {
            App::Command { argv, port, dir } => {
                let owns_dir = settings.snapshot.ends_application();
                Self::Child(Supervisor::new(argv, settings.id, *port, dir, owns_dir))
            }
            App::Address(address) => {
                // Config::validate demands one.
                let data_dir = settings.data_dir.clone().unwrap_or_else(|| PathBuf::from("."));
                let supervisor = settings.supervisor.clone();
                Self::Found(Found::new(*address, &data_dir, Arc::clone(awaits_restart), supervisor))
            }
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Child(child) => child.address(),
            Self::Found(found) => found.address(),
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Child(child) => child.pid(),
            Self::Found(_) => None,
        }
    }

    /// A name of the incarnation that runs.
    pub(super) fn incarnation(&self) -> Option<String> {
        match self {
            Self::Child(child) => child.incarnation(),
            Self::Found(found) => found.incarnation(),
        }
    }

    /// Whether it can be restarted at once.
    pub(super) const fn restarts(&self) -> bool {
        match self {
            Self::Child(_) => true,
            Self::Found(found) => found.is_supervised(),
        }
    }

    /// Takes over what runs already, of an earlier process of this member; false if there is nothing of that.
    pub(super) fn adopt(&mut self) -> bool {
        match self {
            Self::Child(child) => child.adopt(),
            Self::Found(found) => found.adopt(),
        }
    }

    /// Whether the application of the last run is there to be reset in its own protocol.
    pub(super) fn is_used(&mut self) -> bool {
        match self {
            Self::Child(child) => child.runs(),
            Self::Found(found) => found.is_used(),
        }
    }

    /// Brings it to its initial state by other means than its protocol; returns when it listens.
    pub(super) async fn reset(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Child(child) => child.reset().await,
            Self::Found(found) => found.reset().await,
        }
    }

    /// Resolves when it is known to have ended. Cancel safe.
    pub(super) async fn exited(&mut self) -> String {
        match self {
            Self::Child(child) => child.exited().await,
            Self::Found(_) => std::future::pending().await,
        }
    }

    /// Whether the incarnation of the last reset still runs.
    pub(super) fn same(&self) -> bool {
        match self {
            Self::Child(child) => child.runs(),
            Self::Found(found) => found.same(),
        }
    }

    /// Whether it is certain at once, and at little cost, that it ended. Somebody else's is looked for at the end of a slot.
    pub(super) fn is_known_dead(&self) -> bool {
        match self {
            Self::Child(child) => !child.runs(),
            Self::Found(_) => false,
        }
    }

    /// To be called before it is sent anything that may change it.
    pub(super) fn mark_used(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Child(_) => Ok(()),
            Self::Found(found) => found.mark_used(),
        }
    }

    /// Ends it, if it is ours.
    pub(super) async fn end(&mut self) {
        if let Self::Child(child) = self {
            child.end().await;
        }
    }
}
