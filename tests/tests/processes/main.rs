//! Real processes: `lockstep up` around real servers, real sockets, real signals.
//!
//! Each test has the machine to itself. Tests around Redis are skipped where there is no `redis-server`, and say so,
//! unless `LOCKSTEP_REQUIRE_REDIS=1` is set. Nothing here asserts how long anything takes: waits have a deadline that
//! only a hang can reach.

mod admin;
mod bad_input;
mod binary;
mod chaos;
mod counters;
mod crashes;
mod data_dir;
mod disk;
mod diverge;
mod exposed;
mod generations;
mod hashmap;
mod http_adapter;
mod life;
mod malicious;
mod members;
mod misbehave;
mod moves;
mod native;
mod operator;
mod poison;
mod ports;
mod reads;
mod recovery;
mod redis;
mod resp;
mod rolling;
mod scaling;
mod signed_replies;
mod snapshots;
mod state;
mod told;
mod trust;
mod up;
mod wait;
mod witness;
