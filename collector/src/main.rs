//! The command `collect-evidence`; everything happens in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    collector::cli::main()
}
