//! Drives real processes from outside: a running `lockstep up`, its parts, their admin ports. For tests and for programs;
//! nothing here panics or asserts.

pub mod http;
mod process;
mod up;

pub use process::{Process, lives, signal};
pub use rustix::process::Signal;
pub use up::Up;
