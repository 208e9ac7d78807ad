//! sidecar

#![allow(dead_code)]
mod entropy;
mod journal;
#[cfg(test)]
mod testing;
