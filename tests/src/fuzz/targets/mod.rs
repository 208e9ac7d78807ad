//! What is fuzzed.

mod clients;
mod disk;
mod framing;
mod names;
mod order;
mod text;
mod wire;

use super::{Bound, Target};

/// Every target.
#[must_use]
pub fn all() -> Vec<Target> {
    let lists = [
        wire::TARGETS,
        names::TARGETS,
        framing::TARGETS,
        disk::TARGETS,
        text::TARGETS,
        order::TARGETS,
        clients::TARGETS,
    ];
    lists.concat()
}

/// What the harness itself takes beside a few times the input.
const SMALL: Bound = Bound { per_byte: 32, base: 64 << 10 };
