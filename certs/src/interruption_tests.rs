//! Every command, stopped at every change of the disk as by a kill, and run again. At each of these moments: no key of
//! an authority is lost, every certificate that was there has its key, and everybody trusts everybody.

use crate::authority::first_certificate;
use crate::clock::Moment;
use crate::error::CertsError;
use crate::facts::Facts;
use crate::files::interruption::after;
use crate::issue::{Request, Selection};
use crate::leaf::{Kind, OnDisk, State};
use crate::pki::{Access, Pki, Setup};
use crate::plan::Plan;
use crate::revocation::{Revoke, lists_in};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use x509_parser::pem::Pem;

const START: Moment = Moment(1_800_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A directory that goes away.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lockstep-interrupted-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn copy(&self) -> Self {
        let copy = Self::new();
        copy_into(&self.0, &copy.0);
        copy
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy_into(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            fs::create_dir(&target).unwrap();
            copy_into(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

fn open_at(dir: &Path, days: u32) -> Result<Pki, CertsError> {
    Access::new(dir).at(START.plus(DAY * days)).open()
}

/// The keys of all authorities, wherever they are.
fn authority_keys(dir: &Path) -> BTreeSet<Vec<u8>> {
    let mut files = Vec::new();
    files_below(&dir.join("ca"), &mut files);
    let keys = files.into_iter().filter(|path| path.file_name().is_some_and(|name| name == "ca.key"));
    keys.map(|path| fs::read(path).unwrap()).collect()
}

/// The leaves that a process could load now, each with its key and with whom its holder trusts.
fn leaves(dir: &Path) -> Vec<(PathBuf, OnDisk, Vec<Facts>)> {
    let pki = Access::new(dir).view().unwrap();
    let mut leaves = Vec::new();
    for who in pki.everybody().unwrap() {
        let paths = pki.paths_of(&who);
        for kind in Kind::ALL {
            let Some(leaf) = OnDisk::read(&paths.dir, &who, kind).unwrap() else { continue };
            assert!(leaf.has_key, "half a pair in {}", paths.dir.display());
            let text = fs::read_to_string(&paths.authorities).unwrap();
            let trusted = Pem::iter_from_buffer(text.as_bytes()).map(|pem| Facts::of(&pem.unwrap().contents).unwrap());
            leaves.push((paths.dir.clone(), leaf, trusted.collect()));
        }
    }
    leaves
}

fn everybody_trusts_everybody(dir: &Path) {
    let leaves = leaves(dir);
    for (at, _, trusted) in &leaves {
        for (other, leaf, _) in &leaves {
            let known = trusted.iter().any(|ca| ca.subject_key_id == leaf.facts.authority_key_id);
            assert!(known, "{} does not trust {}", at.display(), other.display());
        }
    }
}

/// Stops `command` after each change in turn, in a copy of `before`; `done` says what must be so when it ran again.
fn interrupt(before: &Dir, command: impl Fn(&Path) -> Result<(), CertsError>, done: impl Fn(&Path)) {
    let is_pki = before.0.join("ca/1/ca.crt").exists();
    let count = if is_pki { leaves(&before.0).len() } else { 0 };
    for steps in 0.. {
        assert!(steps < 1000, "it never ends");
        let dir = before.copy();
        let (said, stopped) = after(steps, || command(&dir.0));
        let lost: Vec<_> = authority_keys(&before.0).difference(&authority_keys(&dir.0)).cloned().collect();
        assert!(lost.is_empty(), "a key of an authority is lost after {steps} steps");
        if is_pki {
            assert!(leaves(&dir.0).len() >= count, "a leaf is lost after {steps} steps");
            everybody_trusts_everybody(&dir.0);
        }
        if stopped {
            // What was done already may be refused now.
            let again = command(&dir.0);
            assert!(
                matches!(again, Ok(()) | Err(CertsError::Exists(_) | CertsError::Refused(_))),
                "after {steps} steps: {again:?}"
            );
        } else {
            said.unwrap();
        }
        // Whoever comes next mends the rest.
        drop(open_at(&dir.0, 1).unwrap().locked().unwrap());
        everybody_trusts_everybody(&dir.0);
        let mut files = Vec::new();
        files_below(&dir.0, &mut files);
        let left: Vec<_> = files.iter().filter(|path| path.components().any(is_hidden)).collect();
        assert!(left.is_empty(), "left behind after {steps} steps: {left:?}");
        done(&dir.0);
        if !stopped {
            assert!(steps > 3, "nothing was interrupted");
            return;
        }
    }
}

fn is_hidden(part: std::path::Component<'_>) -> bool {
    let name = part.as_os_str().to_string_lossy();
    name.starts_with('.') && name != ".lock"
}

fn a_cluster() -> Dir {
    let dir = Dir::new();
    let pki = Access::new(&dir.0).at(START).init(&Setup::new("c")).unwrap();
    pki.ensure_signing("server", "0").unwrap();
    pki.ensure("ingress", "a").unwrap();
    dir
}

fn newest_authority(dir: &Path) -> u32 {
    open_at(dir, 1).unwrap().rotation().unwrap().issuing
}

fn serial(dir: &Path, file: &str) -> String {
    let path = dir.join(file);
    let text = fs::read_to_string(&path).unwrap();
    Facts::of(&first_certificate(&path, &text).unwrap()).unwrap().serial
}

#[test]
fn init() {
    let command = |dir: &Path| Access::new(dir).at(START).init(&Setup::new("c")).map(|_| ());
    interrupt(&Dir::new(), command, |dir| {
        open_at(dir, 1).unwrap().ensure("server", "0").unwrap();
        everybody_trusts_everybody(dir);
    });
}

#[test]
fn init_by_force() {
    // Whom it cut off, `renew` brings back; nothing else is promised of it than that keys stay.
    let before = a_cluster();
    let setup = Setup { force: true, ..Setup::new("c") };
    let old = authority_keys(&before.0);
    for steps in 0.. {
        let dir = before.copy();
        let (_, stopped) = after(steps, || Access::new(&dir.0).at(START).init(&setup).map(|_| ()));
        assert!(authority_keys(&dir.0).is_superset(&old));
        if stopped {
            Access::new(&dir.0).at(START).init(&setup).unwrap();
        }
        let pki = open_at(&dir.0, 1).unwrap();
        pki.renew(&Selection::Due, None).unwrap();
        everybody_trusts_everybody(&dir.0);
        assert_eq!(pki.rotation().unwrap().authorities.len(), 1);
        if !stopped {
            return;
        }
    }
}

#[test]
fn issue() {
    let (role, id) = ("server".to_owned(), "1".to_owned());
    let request = Request { role, id, signing: true, ..Request::default() };
    interrupt(
        &a_cluster(),
        |dir| open_at(dir, 1)?.issue_as(&request).map(|_| ()),
        |dir| {
            assert!(dir.join("server/1/signing.crt").exists());
        },
    );
}

#[test]
fn renew() {
    let before = a_cluster();
    let old = serial(&before.0, "server/0/tls.crt");
    interrupt(
        &before,
        |dir| open_at(dir, 80)?.renew(&Selection::Due, None).map(|_| ()),
        |dir| {
            assert_ne!(serial(dir, "server/0/tls.crt"), old);
            let listed = open_at(dir, 81).unwrap().list(false).unwrap();
            assert!(listed.iter().all(|listed| listed.state == Some(State::Good)), "{listed:?}");
        },
    );
}

#[test]
fn apply() {
    let text = "cluster = \"c\"\nsigning = true\nserver = 2\ningress = [\"a\"]\n";
    let plan = |dir: &Path| {
        let file = dir.with_extension("toml");
        fs::write(&file, text).unwrap();
        let plan = Plan::read(&file, |_| Err("none is written".to_owned()));
        fs::remove_file(&file).unwrap();
        plan
    };
    interrupt(
        &a_cluster(),
        |dir| open_at(dir, 80)?.apply(&plan(dir)?).map(|_| ()),
        |dir| {
            assert_eq!(leaves(dir).len(), 6);
        },
    );
}

#[test]
fn the_start_of_a_rotation() {
    interrupt(
        &a_cluster(),
        |dir| open_at(dir, 1)?.rotation_start(None).map(|_| ()),
        |dir| {
            assert_eq!(newest_authority(dir), 2);
            let pki = open_at(dir, 1).unwrap();
            pki.renew(&Selection::All, None).unwrap();
            everybody_trusts_everybody(dir);
            assert_eq!(lists_in(&fs::read_to_string(pki.crl_path()).unwrap()).len(), 2);
        },
    );
}

#[test]
fn a_leaf_of_the_next_authority_is_trusted_by_all_at_every_moment() {
    // Catches an authority that issues before everybody trusts it: what is issued between stop and new start shows it.
    let before = a_cluster();
    for steps in 0.. {
        let dir = before.copy();
        let (_, stopped) = after(steps, || open_at(&dir.0, 1)?.rotation_start(None).map(|_| ()));
        let trusted_before = leaves(&dir.0);
        let pki = open_at(&dir.0, 1).unwrap();
        let path = pki.ensure("client", "new").unwrap().certificate;
        let facts = Facts::of(&first_certificate(&path, &fs::read_to_string(&path).unwrap()).unwrap()).unwrap();
        for (at, _, trusted) in trusted_before {
            let known = trusted.iter().any(|ca| ca.subject_key_id == facts.authority_key_id);
            assert!(known, "{} does not trust the new leaf after {steps} steps", at.display());
        }
        if !stopped {
            return;
        }
    }
}

#[test]
fn the_end_of_a_rotation() {
    let before = a_cluster();
    open_at(&before.0, 1).unwrap().rotation_start(None).unwrap();
    open_at(&before.0, 1).unwrap().renew(&Selection::All, None).unwrap();
    interrupt(
        &before,
        |dir| open_at(dir, 1)?.rotation_finish().map(|_| ()),
        |dir| {
            let rotation = open_at(dir, 1).unwrap().rotation().unwrap();
            assert_eq!((rotation.issuing, rotation.authorities.len()), (2, 1));
        },
    );
}

#[test]
fn a_rotation_given_up() {
    let before = a_cluster();
    open_at(&before.0, 1).unwrap().rotation_start(None).unwrap();
    interrupt(
        &before,
        |dir| open_at(dir, 1)?.rotation_abort().map(|_| ()),
        |dir| {
            assert_eq!(newest_authority(dir), 1);
        },
    );
}

#[test]
fn revoke() {
    let which = Revoke::Part { role: "server".to_owned(), id: "0".to_owned() };
    interrupt(
        &a_cluster(),
        |dir| open_at(dir, 1)?.revoke(&which).map(|_| ()),
        |dir| {
            let lists = lists_in(&fs::read_to_string(dir.join("crl.pem")).unwrap());
            assert_eq!(lists[0].revoked.len(), 2);
            assert!(lists[0].number > Some(1));
        },
    );
}
