//! Lockstep's tests: the deterministic simulator of whole clusters ([`sim`]) and the checkers ([`check`]) that judge
//! its runs, one for each property; real clusters under faults ([`chaos`]), driven from outside ([`driver`]), and the
//! checker ([`linear`]) that judges them by what their clients saw; a SMaRtClient that lies ([`malicious`]) and its trial;
//! restarts of every part under clients ([`rolling`]); whether one build is slower than another ([`regression`]); what the
//! programs that measure have in common ([`load`], [`cluster`]).

pub mod chaos;
pub mod check;
pub mod cluster;
pub mod driver;
pub mod fuzz;
pub mod linear;
pub mod load;
pub mod malicious;
pub mod regression;
pub mod rolling;
pub mod sim;
pub mod steady;
