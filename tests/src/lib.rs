//! Lockstep's tests: the deterministic simulator of whole clusters ([`sim`]) and the checkers ([`check`]) that judge
//! its runs, one for each property.

pub mod check;
pub mod sim;
