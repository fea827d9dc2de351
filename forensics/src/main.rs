//! The command `forensics`.
fn main() {}
