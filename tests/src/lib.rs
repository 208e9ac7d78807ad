//! Lockstep's tests: the deterministic simulator of whole clusters ([`sim`]), the checkers ([`check`]) that judge its
//! runs, one for each property, and what the programs that measure have in common ([`load`], [`cluster`]).

pub mod check;
pub mod cluster;
pub mod load;
pub mod sim;
