//! A cluster in network namespaces.

use super::cluster::Cluster;
use super::options::{Options, Setup};
use crate::driver::Process;
use std::fmt;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Server(u64),
    SmartClient(u64),
}
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
#[derive(Clone, Copy, Debug)]
pub(super) enum Harm {
    Cut,
    OneWay,
    OtherWay,
    Lossy(u64),
}
impl Harm {
    pub(super) fn name(self) -> &'static str {
        "x"
    }
}
impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("cut"),
            Self::OneWay | Self::OtherWay => f.write_str("one-way"),
            Self::Lossy(percent) => write!(f, "lossy ({percent} %)"),
        }
    }
}
#[derive(Debug)]
pub(super) struct Cut;
pub(super) struct Network;
impl Network {
    pub(super) fn harm(&self, _: Node, _: Node, _: Harm) -> anyhow::Result<Cut> {
        anyhow::bail!("no")
    }
    pub(super) fn mend(&self, _: &Cut) -> anyhow::Result<()> {
        Ok(())
    }
}
pub(super) struct Isolated;
impl Isolated {
    pub(super) fn start(_: &Options, _: &Setup, _: &Path, _: impl FnMut() -> bool) -> anyhow::Result<Self> {
        anyhow::bail!("not yet")
    }
}
impl Cluster for Isolated {
    fn ingress(&self) -> &str {
        ""
    }
    fn parts(&self) -> Vec<Process> {
        Vec::new()
    }
    fn tend(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
    fn ask_app(&self, _: u64, _: &str, _: &str) -> anyhow::Result<String> {
        anyhow::bail!("no")
    }
}
