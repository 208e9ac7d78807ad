//! Whoever knows which incarnation of the application runs, and can bring it to its initial state.

use super::found::Found;
use super::supervisor::Supervisor;
use std::net::SocketAddr;

/// The two ways in which there is an application.
#[derive(Debug)]
pub(super) enum Keeper {
    /// A child of this sidecar.
    Child(Supervisor),
    /// Somebody else's.
    Found(Found),
}

impl Keeper {
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

    /// Brings it to its initial state; returns when it listens.
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
    pub(super) fn same(&mut self) -> bool {
        match self {
            Self::Child(child) => child.runs(),
            Self::Found(found) => found.same(),
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
