//! Small C programs, compiled for one test, which say in one line that they are where they are to be.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::tools::{self, run};

/// Compiles a C file of this workspace into `directory`; the program. Warnings are errors.
#[track_caller]
pub fn compile(source: &str, options: &[&str], directory: &Path) -> PathBuf {
    let source = tools::workspace().join(source);
    let program = directory.join(source.file_stem().unwrap());
    let mut compiler = Command::new("gcc");
    compiler.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]).args(options);
    run(compiler.arg("-o").arg(&program).arg(source), tools::PATIENCE).expect(&[0]);
    program
}

/// A running program; ended with the test.
#[derive(Debug)]
pub struct Program {
    child: Child,
    /// The line that it said first.
    pub said: String,
}

impl Program {
    /// Starts it and waits for its line.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        Self { child, said }
    }

    /// Its PID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
