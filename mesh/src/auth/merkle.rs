//! One signature for many statements: the root of a hash tree is signed, and each statement carries its path to it
//! (Merkle, "A Digital Signature Based on a Conventional Encryption Function", 1987).

use super::key::{PublicKey, SecretKey, Signature};
use crate::ids::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// The key of a node's hash, so that it is the hash of no statement: those are hashed without a key. A node is one block.
const NODE: &[u8; 32] = b"lockstep node v2: left and right";

/// Statements under one signature at most.
pub const BATCH_MAX: usize = 1 << STEPS_MAX;
/// Steps of a path at most.
const STEPS_MAX: usize = 12;

/// What shows that a statement was signed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Proof {
    /// The signature over the root.
    signature: Signature,
    /// From the statement up to the root.
    path: Vec<Step>,
}

/// One step up: the hash beside ours, on its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Step {
    left: bool,
    beside: Digest,
}

impl Proof {
    /// The root that it claims for a statement; `None` if the path is longer than any that we make.
    #[must_use]
    pub fn root(&self, statement: &Digest) -> Option<Digest> {
        if !self.is_bounded() {
            return None;
        }
        let up = |below, step: &Step| if step.left { node(&step.beside, &below) } else { node(&below, &step.beside) };
        Some(self.path.iter().fold(*statement, up))
    }

    /// Whether `key` has signed the statement.
    #[must_use]
    pub fn holds(&self, statement: &Digest, key: &PublicKey) -> bool {
        self.root(statement).is_some_and(|root| key.has_signed(&root, &self.signature))
    }

    /// Whether its path is no longer than any that we make.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.path.len() <= STEPS_MAX
    }

    /// Bytes that it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        64 + self.path.len() * 33
    }
}

/// Signs statements, at most [`BATCH_MAX`], with one signature; the proofs are in their order.
#[must_use]
pub fn sign(key: &SecretKey, statements: &[Digest]) -> Vec<Proof> {
    assert!(statements.len() <= BATCH_MAX, "more statements than a path can be long for");
    let mut paths = vec![Vec::new(); statements.len()];
    // The level's nodes, each with the statements below it.
    let mut level: Vec<(Digest, std::ops::Range<usize>)> =
        statements.iter().enumerate().map(|(index, statement)| (*statement, index..index + 1)).collect();
    while level.len() > 1 {
        let mut above = Vec::with_capacity(level.len().div_ceil(2));
        for pair in level.chunks(2) {
            let [(left, under_left), (right, under_right)] = pair else {
                // An odd one goes up as it is.
                above.extend(pair.iter().cloned());
                continue;
            };
            for path in &mut paths[under_left.clone()] {
                path.push(Step { left: false, beside: *right });
            }
            for path in &mut paths[under_right.clone()] {
                path.push(Step { left: true, beside: *left });
            }
            above.push((node(left, right), under_left.start..under_right.end));
        }
        level = above;
    }
    let Some((root, _)) = level.first() else { return Vec::new() };
    let signature = key.sign(root);
    paths.into_iter().map(|path| Proof { signature, path }).collect()
}

fn node(left: &Digest, right: &Digest) -> Digest {
    let mut both = [0; 64];
    both[..32].copy_from_slice(&left.0);
    both[32..].copy_from_slice(&right.0);
    Digest(*blake3::keyed_hash(NODE, &both).as_bytes())
}

/// Judges proofs, and remembers the newest roots whose signatures held: the statements of one batch cost one signature.
/// What is remembered changes what a judgement costs, never the judgement: a known root says nothing of another
/// signature over it, or replicas that have seen other requests of its batch would judge otherwise (rule 16).
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    held: BTreeSet<Question>,
    order: VecDeque<Question>,
}

/// Roots that are remembered.
const ROOTS_MAX: usize = 4096;

impl Verifier {
    /// Whether `key` has signed the statement.
    pub fn holds(&mut self, proof: &Proof, statement: &Digest, key: &PublicKey) -> bool {
        match self.question(proof, statement, key) {
            Asked::Known => true,
            Asked::Nonsense => false,
            Asked::Sought(question) => {
                let answered = question.answer();
                if let Some(answered) = &answered {
                    self.remember(answered);
                }
                answered.is_some()
            }
        }
    }

    /// What is left to be found out, so that another thread can do it.
    #[must_use]
    pub fn question(&self, proof: &Proof, statement: &Digest, key: &PublicKey) -> Asked {
        match Question::of(proof, statement, key) {
            None => Asked::Nonsense,
            Some(question) if self.held.contains(&question) => Asked::Known,
            Some(question) => Asked::Sought(question),
        }
    }

    /// Spares whoever asks the same again.
    pub fn remember(&mut self, Answered(question): &Answered) {
        if self.held.insert(*question) {
            self.order.push_back(*question);
        }
        if self.order.len() > ROOTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.held.remove(&oldest);
        }
    }
}

/// What a [`Verifier`] knows of a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It holds.
    Known,
    /// It cannot hold.
    Nonsense,
    /// It holds if this does.
    Sought(Question),
}

/// Whether a key has signed a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    key: PublicKey,
    root: Digest,
    signature: Signature,
}

impl Question {
    /// The question of a proof, whether its answer is known or not; `None` where it cannot hold.
    #[must_use]
    pub(super) fn of(proof: &Proof, statement: &Digest, key: &PublicKey) -> Option<Self> {
        Some(Self { key: *key, root: proof.root(statement)?, signature: proof.signature })
    }

    /// Computes the answer: some 40 µs.
    #[must_use]
    pub fn answer(&self) -> Option<Answered> {
        self.key.has_signed(&self.root, &self.signature).then_some(Answered(*self))
    }
}

/// A question whose answer is yes: only [`Question::answer`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answered(Question);

impl Answered {
    /// Which.
    #[must_use]
    pub fn question(&self) -> &Question {
        &self.0
    }
}

/// A proof that many hold: requests are copied for each server.
pub type SharedProof = Arc<Proof>;

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SecretKey {
        SecretKey::from_seed(&[7; 32]).unwrap()
    }

    fn statements(count: usize) -> Vec<Digest> {
        (0..count).map(|number| Digest::of(&number.to_le_bytes())).collect()
    }

    #[test]
    fn every_statement_of_a_batch_of_any_size_is_proved_and_no_other() {
        let (key, stranger) = (key(), SecretKey::from_seed(&[8; 32]).unwrap());
        for count in (1..34).chain([255, 256, 257]) {
            let statements = statements(count);
            let proofs = sign(&key, &statements);
            assert_eq!(proofs.len(), count);
            for (index, (statement, proof)) in statements.iter().zip(&proofs).enumerate() {
                let mut verifier = Verifier::default();
                assert!(verifier.holds(proof, statement, &key.public()), "{index} of {count}");
                assert!(!verifier.holds(proof, &Digest::of(b"other"), &key.public()));
                assert!(!verifier.holds(proof, statement, &stranger.public()));
                if count > 1 {
                    assert!(!verifier.holds(proof, &statements[(index + 1) % count], &key.public()));
                }
            }
        }
    }

    #[test]
    fn a_batch_costs_one_question() {
        let statements = statements(100);
        let proofs = sign(&key(), &statements);
        let mut verifier = Verifier::default();
        let Asked::Sought(question) = verifier.question(&proofs[0], &statements[0], &key().public()) else {
            panic!("nothing is known yet")
        };
        verifier.remember(&question.answer().expect("it was signed"));
        for (statement, proof) in statements.iter().zip(&proofs) {
            assert_eq!(verifier.question(proof, statement, &key().public()), Asked::Known);
        }
        // Mutant: a memory of roots alone takes the garbled signature, and only where the root is remembered.
        for (statement, proof) in statements.iter().zip(&proofs) {
            let garbled = Proof { signature: key().sign(statement), path: proof.path.clone() };
            assert!(matches!(verifier.question(&garbled, statement, &key().public()), Asked::Sought(_)));
            assert!(!verifier.holds(&garbled, statement, &key().public()));
        }
        // A root that held for one key says nothing of another.
        let other = SecretKey::from_seed(&[8; 32]).unwrap().public();
        assert!(matches!(verifier.question(&proofs[0], &statements[0], &other), Asked::Sought(_)));
    }

    #[test]
    fn an_inner_node_is_no_statement() {
        let statements = statements(2);
        let proofs = sign(&key(), &statements);
        let inner = node(&statements[0], &statements[1]);
        let shortened = Proof { signature: proofs[0].signature, path: Vec::new() };
        // It is what the signature is over; that no statement can have this hash is the business of the domains.
        assert!(shortened.holds(&inner, &key().public()));
        assert!(!shortened.holds(&statements[0], &key().public()));
    }

    #[test]
    fn the_memory_is_bounded_and_a_path_too() {
        let mut verifier = Verifier::default();
        for number in 0..ROOTS_MAX + 10 {
            let root = Digest::of(&number.to_le_bytes());
            verifier.remember(&Answered(Question { key: key().public(), root, signature: key().sign(&root) }));
        }
        assert_eq!((verifier.held.len(), verifier.order.len()), (ROOTS_MAX, ROOTS_MAX));
        let step = Step { left: true, beside: Digest([0; 32]) };
        let long = Proof { signature: key().sign(&Digest([0; 32])), path: vec![step; STEPS_MAX + 1] };
        assert_eq!(long.root(&Digest([0; 32])), None);
    }
}
