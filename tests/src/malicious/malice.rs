//! What all parts of a malicious SMaRtClient share: its orders, its dice, its memory, its counts.

use super::behaviour::Behaviour;
use super::memory::Memory;
use super::options::Options;
use super::tally::Tally;
use bytes::{Bytes, BytesMut};
use mesh::rng::Rng;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Debug)]
pub(super) struct Malice {
    pub(super) options: Options,
    pub(super) tally: Tally,
    per_mille: BTreeMap<Behaviour, u32>,
    chance: Mutex<Rng>,
    memory: Mutex<Memory>,
}

impl Malice {
    pub(super) fn new(options: Options) -> Self {
        Self {
            per_mille: options.wishes.iter().map(|wish| (wish.behaviour, wish.per_mille)).collect(),
            chance: Mutex::new(Rng::from_seed(options.seed)),
            tally: Tally::default(),
            memory: Mutex::default(),
            options,
        }
    }

    /// Whether it was told to do this at all.
    pub(super) fn may(&self, behaviour: Behaviour) -> bool {
        self.per_mille.get(&behaviour).is_some_and(|per_mille| *per_mille > 0)
    }

    /// Whether it is to be done now.
    pub(super) fn wants(&self, behaviour: Behaviour) -> bool {
        self.per_mille.get(&behaviour).is_some_and(|per_mille| self.chance().chance(*per_mille))
    }

    /// The same, and then it is counted as done.
    pub(super) fn does(&self, behaviour: Behaviour) -> bool {
        let wants = self.wants(behaviour);
        if wants {
            self.tally.did(behaviour);
        }
        wants
    }

    /// Not to be held while anything else here is called.
    pub(super) fn chance(&self) -> MutexGuard<'_, Rng> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks into the memory with dice at hand.
    pub(super) fn recall<T>(&self, look: impl FnOnce(&mut Memory, &mut Rng) -> T) -> T {
        let mut dice = self.chance().fork();
        look(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner), &mut dice)
    }

    /// The request that nobody sent.
    pub(super) fn forged(&self) -> Bytes {
        format!("{}\n", self.options.forged).into()
    }

    /// Bytes of chance.
    pub(super) fn noise(&self, length: usize) -> Bytes {
        let mut dice = self.chance().fork();
        (0..length).map(|_| dice.next_u64() as u8).collect()
    }
}

/// The same message with another last byte, its line's end not counted: still one message of the protocol.
pub(super) fn altered(bytes: &Bytes) -> Bytes {
    let mut altered = BytesMut::from(&bytes[..]);
    if let Some(last) = altered.iter_mut().rev().find(|byte| !matches!(byte, b'\r' | b'\n')) {
        *last ^= 1;
    }
    altered.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_altered_line_is_another_line() {
        let altered = |text: &'static str| altered(&Bytes::from_static(text.as_bytes()));
        assert_eq!(altered("STEP a-2\n"), "STEP a-3\n");
        assert_eq!(altered("x\r\n"), "y\r\n");
        assert_eq!(altered("\n"), "\n");
    }
}
