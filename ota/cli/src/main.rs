//! sedge.
fn main() {}
