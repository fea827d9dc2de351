//! The command `collect-evidence`.
fn main() {}
