//! What signatures and hashes cost on one core.

use super::Number;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long each is tried.
const TIME: Duration = Duration::from_millis(500);
/// Between two looks at the clock.
const BATCH: u32 = 16;

/// A signature of 100 bytes, its check, and hashes.
pub(super) fn measure() -> anyhow::Result<Vec<Number>> {
    let message = [7; 100];
    let failed = |_| anyhow::anyhow!("no ed25519 key can be made");
    let key = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).map_err(failed)?;
    let signature = key.sign(&message);
    let public = UnparsedPublicKey::new(&ED25519, key.public_key().as_ref().to_vec());
    let mut all = vec![
        per_operation("ed25519-sign-100B", || {
            let _ = black_box(key.sign(black_box(&message)));
        }),
        per_operation("ed25519-verify-100B", || {
            let _ = black_box(public.verify(black_box(&message), signature.as_ref()));
        }),
    ];
    for (name, bytes) in [("blake3-100B", 100), ("blake3-4KiB", 4 << 10), ("blake3-64KiB", 64 << 10)] {
        let body = vec![7; bytes];
        all.push(per_operation(name, || {
            black_box(blake3::hash(black_box(&body)));
        }));
    }
    Ok(all)
}

fn per_operation(name: &str, mut operation: impl FnMut()) -> Number {
    let (begun, mut count) = (Instant::now(), 0_u32);
    while begun.elapsed() < TIME {
        (0..BATCH).for_each(|_| operation());
        count += BATCH;
    }
    let per_op_us = begun.elapsed().as_secs_f64() * 1e6 / f64::from(count);
    Number::new(name, [("per_op_us", per_op_us), ("rate", 1e6 / per_op_us)])
}
