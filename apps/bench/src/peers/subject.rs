//! What is compared: each thing that is measured, and how it is started.

use super::{etcd, redis, zookeeper};
use crate::children::{Children, find};
use crate::cluster::Cluster;
use crate::machine::version_of;
use crate::wire::{Op, Protocol};
use anyhow::Context;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A virtual machine that compiles as it goes is given this long to do so, at least.
const JAVA_WARMUP: Duration = Duration::from_secs(12);

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// Redis, unreplicated, in memory.
    Application,
    /// The same behind haproxy.
    Proxy,
    /// Three etcd.
    Etcd,
    /// Three ZooKeepers.
    Zookeeper,
    /// Redis with two replicas, each write synced, WAIT 1.
    RedisWait,
    /// Lockstep around the application.
    Lockstep(Variant),
}

/// A way to run Lockstep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Variant {
    replicas: u32,
    durability: &'static str,
    signed: bool,
    /// Whether the ingress has the SMaRtClient inside, and looks for what comes before it sleeps.
    inside: bool,
}

/// Something that runs; dropping it ends it.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) to: Vec<SocketAddr>,
    pub(super) protocol: Protocol,
    pub(super) children: Children,
    pub(super) cluster: Option<Cluster>,
}

impl Started {
    /// Every process of it.
    pub(super) fn pids(&self) -> Vec<u32> {
        let cluster = self.cluster.as_ref().map(Cluster::pids).unwrap_or_default();
        self.children.pids().into_iter().chain(cluster).collect()
    }
}

/// Programs of others, where they are installed.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    redis: Option<PathBuf>,
    haproxy: Option<PathBuf>,
    etcd: Option<PathBuf>,
    java: Option<PathBuf>,
    zookeeper: Option<String>,
}

impl Programs {
    /// Looks for them.
    pub(super) fn find() -> Self {
        Self {
            redis: find("redis-server"),
            haproxy: find("haproxy"),
            etcd: find("etcd"),
            java: find("java"),
            zookeeper: zookeeper::find(),
        }
    }

    /// Name and version of each that is there.
    pub(super) fn versions(&self) -> Vec<(String, String)> {
        let programs = [
            ("redis", &self.redis, "--version"),
            ("haproxy", &self.haproxy, "-v"),
            ("etcd", &self.etcd, "--version"),
            ("java", &self.java, "-version"),
        ];
        let there = |(name, path, argument): (&str, &Option<PathBuf>, &str)| {
            path.as_ref().map(|path| (name.to_owned(), version_of(path, argument)))
        };
        let class_path = self.zookeeper.as_ref().map(|path| ("zookeeper".to_owned(), zookeeper_version(path)));
        programs.into_iter().filter_map(there).chain(class_path).collect()
    }
}

/// What stands beside its jar, with the version in its name; else the class path.
fn zookeeper_version(class_path: &str) -> String {
    let versioned = |name: &str| {
        let version = name.strip_prefix("zookeeper-").and_then(|rest| rest.strip_suffix(".jar"))?;
        version.starts_with(|first: char| first.is_ascii_digit()).then(|| version.to_owned())
    };
    let folder = Path::new(class_path).parent().and_then(|folder| std::fs::read_dir(folder).ok());
    let mut names = folder.into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.find_map(|name| versioned(&name.to_string_lossy())).unwrap_or_else(|| class_path.to_owned())
}

impl Subject {
    /// All, in the order of a round.
    pub(super) fn all() -> Vec<Self> {
        let variants = [3, 5].into_iter().flat_map(|replicas| {
            let plain = move |durability| Variant { replicas, durability, signed: false, inside: false };
            let signed = Variant { signed: true, ..plain("sync") };
            let inside = |durability| Variant { inside: true, ..plain(durability) };
            let all = [plain("sync"), plain("memory"), signed, inside("sync"), inside("memory")];
            all.into_iter().filter(|variant| variant.replicas == 3 || !variant.inside).map(Self::Lockstep)
        });
        [Self::Application, Self::Proxy, Self::RedisWait, Self::Etcd, Self::Zookeeper]
            .into_iter()
            .chain(variants)
            .collect()
    }

    /// Its name in results.
    pub(super) fn name(self) -> String {
        match self {
            Self::Application => "application".to_owned(),
            Self::Proxy => "haproxy".to_owned(),
            Self::Etcd => "etcd".to_owned(),
            Self::Zookeeper => "zookeeper".to_owned(),
            Self::RedisWait => "redis-wait".to_owned(),
            Self::Lockstep(Variant { replicas, durability, signed, inside }) => {
                let more = [if signed { "-signed" } else { "" }, if inside { "-inside" } else { "" }].concat();
                format!("lockstep-n{replicas}-{durability}{more}")
            }
        }
    }

    /// What it is, in words.
    pub(super) fn words(self) -> String {
        match self {
            Self::Application => "Redis alone, in memory".to_owned(),
            Self::Proxy => "the same behind haproxy in TCP mode".to_owned(),
            Self::Etcd => "etcd, 3 nodes, synced, clients at the leader".to_owned(),
            Self::Zookeeper => "ZooKeeper, 3 nodes, synced, sessions spread".to_owned(),
            Self::RedisWait => "Redis, appendfsync always, 2 replicas, WAIT 1".to_owned(),
            Self::Lockstep(Variant { replicas, durability, signed, inside }) => {
                let signed = if signed { ", signatures" } else { "" };
                let tier = if inside { "the SMaRtClient inside the ingress, --spin 50us" } else { "one SMaRtClient" };
                format!("Lockstep around Redis, n = {replicas}, {durability}{signed}, {tier}")
            }
        }
    }

    /// What is asked of it. Where reads go another way than writes, they are measured too.
    pub(super) fn ops(self) -> &'static [Op] {
        match self {
            Self::Etcd | Self::Lockstep(Variant { replicas: 3, durability: "sync", signed: false, inside: false }) => {
                &[Op::Put, Op::Get]
            }
            _ => &[Op::Put],
        }
    }

    /// How long it is loaded before it is measured, at least.
    pub(super) fn warmup(self, usual: Duration) -> Duration {
        if self == Self::Zookeeper { usual.max(JAVA_WARMUP) } else { usual }
    }

    /// What it lacks here, if anything.
    pub(super) fn missing(self, programs: &Programs) -> Option<&'static str> {
        let lacks_redis = programs.redis.is_none().then_some("redis-server");
        match self {
            Self::Application | Self::RedisWait | Self::Lockstep(_) => lacks_redis,
            Self::Proxy => lacks_redis.or(programs.haproxy.is_none().then_some("haproxy")),
            Self::Etcd => programs.etcd.is_none().then_some("etcd"),
            Self::Zookeeper if programs.java.is_none() => Some("java"),
            Self::Zookeeper => programs.zookeeper.is_none().then_some("zookeeper.jar (or ZOOKEEPER_CLASSPATH)"),
        }
    }

    /// Starts it with its data in `dir`.
    pub(super) fn start(self, programs: &Programs, dir: &Path) -> anyhow::Result<Started> {
        let found = |program: &Option<PathBuf>| program.clone().context("it is not installed");
        match self {
            Self::Application => redis::alone(&found(&programs.redis)?, dir),
            Self::Proxy => redis::proxied(&found(&programs.redis)?, &found(&programs.haproxy)?, dir),
            Self::RedisWait => redis::replicated(&found(&programs.redis)?, dir),
            Self::Etcd => etcd::start(&found(&programs.etcd)?, dir),
            Self::Zookeeper => {
                let class_path = programs.zookeeper.as_deref().context("it is not installed")?;
                zookeeper::start(&found(&programs.java)?, class_path, dir)
            }
            Self::Lockstep(variant) => {
                let cluster = Cluster::start(&variant.arguments(dir))?;
                Ok(Started {
                    to: vec![cluster.listen()],
                    protocol: cluster.protocol(),
                    children: Children::default(),
                    cluster: Some(cluster),
                })
            }
        }
    }
}

impl Variant {
    fn arguments(self, dir: &Path) -> Vec<String> {
        let replicas = self.replicas.to_string();
        let data = dir.join("lockstep").display().to_string();
        let mut words =
            vec!["-n", &replicas, "--durability", self.durability, "--protocol", "resp", "--data-dir", &data];
        words.extend(self.signed.then_some("--signatures"));
        // As many as the peers have of what stands between clients and servers, or fewer.
        words.extend(if self.inside {
            &["--smart-clients", "0", "--spin", "50us"][..]
        } else {
            &["--smart-clients", "1"]
        });
        words.push("--");
        words.extend(redis::APPLICATION);
        words.into_iter().map(str::to_owned).collect()
    }
}

/// A directory for one server's data.
pub(super) fn local_data(dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = dir.join(name);
    std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_has_a_name_of_its_own() {
        let mut names: Vec<String> = Subject::all().into_iter().map(Subject::name).collect();
        assert!(
            names.contains(&"lockstep-n5-sync-signed".to_owned()) && names.contains(&"lockstep-n3-memory".to_owned())
        );
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_is_not_installed_is_named() {
        let none = Programs { redis: None, haproxy: None, etcd: None, java: None, zookeeper: None };
        assert!(Subject::all().into_iter().all(|subject| subject.missing(&none).is_some()));
        let some = Programs { redis: Some("r".into()), java: Some("j".into()), ..none };
        assert_eq!(Subject::Application.missing(&some), None);
        assert_eq!(Subject::Proxy.missing(&some), Some("haproxy"));
        assert!(Subject::Zookeeper.missing(&some).is_some_and(|what| what.contains("zookeeper.jar")));
    }

    #[test]
    fn the_version_of_zookeeper_is_in_the_name_of_its_jar() {
        let dir = crate::results::tests::Dir::new("zookeeper");
        let jar = dir.0.join("zookeeper.jar").display().to_string();
        assert_eq!(zookeeper_version(&jar), jar, "nobody says");
        for name in ["zookeeper-jute-3.8.0.jar", "zookeeper-3.8.0.jar"] {
            std::fs::write(dir.0.join(name), "").expect("it can be written");
        }
        assert_eq!(zookeeper_version(&jar), "3.8.0");
    }

    #[test]
    fn a_variant_is_told_to_up_by_its_flags() {
        let words = Variant { replicas: 5, durability: "sync", signed: true, inside: false };
        let words = words.arguments(Path::new("/d")).join(" ");
        assert!(
            words.starts_with(
                "-n 5 --durability sync --protocol resp --data-dir /d/lockstep --signatures --smart-clients 1 -- redis-server"
            )
        );
    }
}
