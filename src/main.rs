//! The thin entry.
fn main() {}
