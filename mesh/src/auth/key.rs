//! Ed25519 keys and signatures (RFC 8032), and the one rule by which a signature is judged.

use crate::ids::Digest;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Before every root that is signed: nothing else that an ed25519 key of ours signs begins so.
const DOMAIN: &[u8] = b"lockstep signed root v1\0";

/// An ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

/// An ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Signature {
    r: [u8; 32],
    s: [u8; 32],
}

/// The encodings of points of small order, those of RFC 8032 and the others that decode to one. With such a key a
/// signature fits any message.
const SMALL_ORDER: [[u8; 32]; 14] = {
    const fn ends(first: u8, middle: u8, last: u8) -> [u8; 32] {
        let mut bytes = [middle; 32];
        bytes[0] = first;
        bytes[31] = last;
        bytes
    }
    const A: [u8; 32] = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ];
    const B: [u8; 32] = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ];
    let (mut a, mut b) = (A, B);
    a[31] |= 0x80;
    b[31] |= 0x80;
    [
        ends(0x00, 0x00, 0x00),
        ends(0x00, 0x00, 0x80),
        ends(0x01, 0x00, 0x00),
        ends(0x01, 0x00, 0x80),
        ends(0xec, 0xff, 0x7f),
        ends(0xec, 0xff, 0xff),
        ends(0xed, 0xff, 0x7f),
        ends(0xed, 0xff, 0xff),
        ends(0xee, 0xff, 0x7f),
        ends(0xee, 0xff, 0xff),
        A,
        a,
        B,
        b,
    ]
};

/// Whether an encoding's coordinate is below the field's prime, 2^255 - 19. Implementations differ in whether they take
/// others (RFC 8032, section 5.1.3, does not), and the library has one for each family of processors: it is never asked.
fn is_canonical(key: &[u8; 32]) -> bool {
    let [first, middle @ .., last] = key;
    *first < 0xed || middle.iter().any(|byte| *byte != 0xff) || last & 0x7f != 0x7f
}

impl PublicKey {
    /// Whether `signature` over `root` was made with this key. The strict rule, the same wherever it is asked: a
    /// canonical scalar and key, no cofactor, no key of small order; never a batch of signatures at a time, which may
    /// judge differently.
    #[must_use]
    pub fn has_signed(&self, root: &Digest, signature: &Signature) -> bool {
        if !is_canonical(&self.0) || SMALL_ORDER.contains(&self.0) {
            return false;
        }
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&signature.r);
        bytes[32..].copy_from_slice(&signature.s);
        UnparsedPublicKey::new(&ED25519, self.0).verify(&message(root), &bytes).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {:02x}{:02x}{:02x}{:02x}…", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signature {:02x}{:02x}{:02x}{:02x}…", self.r[0], self.r[1], self.r[2], self.r[3])
    }
}

fn message(root: &Digest) -> [u8; DOMAIN.len() + 32] {
    let mut message = [0; DOMAIN.len() + 32];
    message[..DOMAIN.len()].copy_from_slice(DOMAIN);
    message[DOMAIN.len()..].copy_from_slice(&root.0);
    message
}

/// Bytes that are no ed25519 private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an ed25519 private key (PKCS #8)")]
pub struct BadKey;

/// A private key.
pub struct SecretKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SecretKey {
    /// The key in a PKCS #8 document (RFC 5958), with the public key or without.
    ///
    /// # Errors
    /// It is none.
    pub fn from_pkcs8(document: &[u8]) -> Result<Self, BadKey> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(document).map_err(|_| BadKey).and_then(Self::of)
    }

    /// The key that a seed of 32 bytes makes: for tests and simulations.
    ///
    /// # Errors
    /// Never; the library's signature has one.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, BadKey> {
        Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| BadKey).and_then(Self::of)
    }

    fn of(pair: Ed25519KeyPair) -> Result<Self, BadKey> {
        let public = PublicKey(pair.public_key().as_ref().try_into().map_err(|_| BadKey)?);
        Ok(Self { pair, public })
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs a root. Deterministic, as ed25519 is.
    #[must_use]
    pub fn sign(&self, root: &Digest) -> Signature {
        let signed = self.pair.sign(&message(root));
        let (mut r, mut s) = ([0; 32], [0; 32]);
        r.copy_from_slice(&signed.as_ref()[..32]);
        s.copy_from_slice(&signed.as_ref()[32..]);
        Signature { r, s }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretKey").field(&self.public).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_of_one_key_and_one_root() {
        let (key, other) = (SecretKey::from_seed(&[1; 32]).unwrap(), SecretKey::from_seed(&[2; 32]).unwrap());
        let (root, another) = (Digest::of(b"a"), Digest::of(b"b"));
        let signature = key.sign(&root);
        assert!(key.public().has_signed(&root, &signature));
        assert!(!key.public().has_signed(&another, &signature));
        assert!(!other.public().has_signed(&root, &signature));
        for place in 0..32 {
            for bit in 0..8 {
                let (mut r, mut s) = (signature, signature);
                r.r[place] ^= 1 << bit;
                s.s[place] ^= 1 << bit;
                assert!(!key.public().has_signed(&root, &r) && !key.public().has_signed(&root, &s));
            }
        }
    }

    /// A second signature made of the first by adding the group's order to its scalar would be another encoding of the
    /// same request.
    #[test]
    fn a_scalar_above_the_order_of_the_group_is_refused() {
        let order: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let key = SecretKey::from_seed(&[3; 32]).unwrap();
        let root = Digest::of(b"root");
        let mut signature = key.sign(&root);
        let mut carry = 0;
        for (byte, add) in signature.s.iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert_eq!(carry, 0, "it fits into 32 bytes, so only the rule refuses it");
        assert!(!key.public().has_signed(&root, &signature));
    }

    #[test]
    fn a_key_of_a_coordinate_at_or_above_the_prime_is_refused() {
        let mut key = [0xff; 32];
        for sign in [0x7f, 0xff] {
            key[31] = sign;
            for (first, canonical) in [(0xec, true), (0xed, false), (0xee, false), (0xff, false)] {
                key[0] = first;
                assert_eq!(is_canonical(&key), canonical, "{first:x}");
            }
            key[0] = 0xff;
            for place in 1..31 {
                key[place] = 0xfe;
                assert!(is_canonical(&key));
                key[place] = 0xff;
            }
        }
    }

    /// Mutant: without the list the identity's signature (R = S·B with S = 0, so R is the identity too) fits any message.
    #[test]
    fn keys_of_small_order_sign_nothing() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let forged = Signature { r: identity, s: [0; 32] };
        let unlisted = UnparsedPublicKey::new(&ED25519, identity);
        let bytes: Vec<u8> = identity.into_iter().chain([0; 32]).collect();
        assert!(unlisted.verify(b"anything", &bytes).is_ok(), "the library alone takes it");
        for key in SMALL_ORDER {
            assert!(!PublicKey(key).has_signed(&Digest::of(b"anything"), &forged));
        }
    }
}
