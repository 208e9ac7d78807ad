//! The `hashmap` program.
fn main() {}
