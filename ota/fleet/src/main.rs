//! sedge-fleet.
fn main() {}
