//! The chance in client ids, which nobody foretells: where requests are not signed, whoever knows a session's name can use it, and a SMaRtClient
//! sees those of the sessions that come by it, but must not compute the others from them.

use crate::ids::Digest;

/// Draws it: a keyed hash of the number of draws.
#[derive(Debug)]
pub(super) struct Names {
    secret: Digest,
    count: u64,
}

impl Names {
    /// All follows from the seed.
    pub(super) fn new(seed: [u64; 4]) -> Self {
        let bytes: Vec<u8> = seed.iter().flat_map(|word| word.to_le_bytes()).collect();
        Self { secret: Digest::of(b"lockstep: client ids").chain(&bytes), count: 0 }
    }

    pub(super) fn next(&mut self) -> u128 {
        self.count += 1;
        let hash = self.secret.chain(&self.count.to_le_bytes());
        let mut half = [0; 16];
        half.copy_from_slice(&hash.0[..16]);
        u128::from_le_bytes(half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_from_the_whole_seed_and_never_come_again() {
        let ids = |seed| {
            let mut names = Names::new(seed);
            [(); 1000].map(|()| names.next())
        };
        let first = ids([1, 2, 3, 4]);
        assert_eq!(first, ids([1, 2, 3, 4]));
        let mut all = first.to_vec();
        for at in 0..4 {
            let mut seed = [1, 2, 3, 4];
            seed[at] = 9;
            all.extend(ids(seed));
        }
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
