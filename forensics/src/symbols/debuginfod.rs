//! The debuginfod client of elfutils: what it has downloaded before, and, only if the user asked
//! for it, its program `debuginfod-find`, which asks the servers in `DEBUGINFOD_URLS`.

use std::env;
use std::ffi::OsString;
use std::io::{ErrorKind, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for one file.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often the program is asked whether it has ended.
const PAUSE: Duration = Duration::from_millis(5);
/// Most that is read of its answers, in bytes.
const LONGEST: u64 = 4096;

/// The folders where the client keeps downloaded files, as debuginfod_find_debuginfo(3) names them.
pub fn caches() -> Vec<PathBuf> {
    caches_of(|name| env::var_os(name).filter(|value| !value.is_empty()))
}

fn caches_of(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    if let Some(named) = variable("DEBUGINFOD_CACHE_PATH") {
        return vec![named.into()];
    }
    let home = variable("HOME").map(PathBuf::from);
    let below_home = |name: &str| home.as_ref().map(|home| home.join(name));
    let folder = variable("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| below_home(".cache"));
    let folder = folder.map(|folder| folder.join("debuginfod_client"));
    folder.into_iter().chain(below_home(".debuginfod_client_cache")).collect()
}

/// Why the servers gave no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// None of them has it.
    NotThere,
    /// None of them was asked, and for no other file one need be.
    NotPossible(String),
    /// Words for a person.
    Failed(String),
}

/// Asks the servers for debug information; where it was stored.
pub(super) fn fetch(build_id: &str) -> Result<PathBuf, Refusal> {
    let urls = env::var("DEBUGINFOD_URLS").unwrap_or_default();
    if urls.trim().is_empty() {
        let why = "the environment variable DEBUGINFOD_URLS names no server";
        return Err(Refusal::NotPossible(why.to_owned()));
    }
    let mut command = Command::new("debuginfod-find");
    command.args(["debuginfo", build_id]);
    // What it would tell of its progress nobody reads.
    command.env_remove("DEBUGINFOD_VERBOSE").env_remove("DEBUGINFOD_PROGRESS");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        Refusal::NotPossible(match error.kind() {
            ErrorKind::NotFound => {
                "the program debuginfod-find is not installed (Debian and Ubuntu: package \
                 debuginfod; Fedora and Red Hat: elfutils-debuginfod-client)"
                    .to_owned()
            }
            _ => format!("the program debuginfod-find did not start: {error}"),
        })
    })?;
    let status = wait(&mut child, PATIENCE);
    let (out, errors) = (text(child.stdout.take()), text(child.stderr.take()));
    match status {
        Some(status) if status.success() => Ok(PathBuf::from(out.trim_end_matches('\n'))),
        Some(_) if errors.contains("No such file or directory") => Err(Refusal::NotThere),
        Some(status) => Err(Refusal::Failed(failure(&errors, status))),
        None => {
            let seconds = PATIENCE.as_secs();
            Err(Refusal::Failed(format!("debuginfod-find gave no answer within {seconds} s")))
        }
    }
}

fn failure(errors: &str, status: ExitStatus) -> String {
    match errors.lines().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => format!("debuginfod-find: {line}"),
        None => format!("debuginfod-find: {status}"),
    }
}

/// Waits for the program; ends it when it takes too long, and then returns `None`.
fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if started.elapsed() < patience => thread::sleep(PAUSE),
            _ => {
                // It may have ended just now; there is nothing else to do about it.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

/// What is in a pipe; the program has ended and writes no more than fits into one.
fn text(pipe: Option<impl std::io::Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let _ = pipe.take(LONGEST).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caches_with(set: &[(&str, &str)]) -> Vec<PathBuf> {
        caches_of(|name| {
            let found = set.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_cache_is_where_the_client_keeps_it() {
        let named = [("DEBUGINFOD_CACHE_PATH", "/c"), ("HOME", "/home/a")];
        assert_eq!(caches_with(&named), [PathBuf::from("/c")]);
        assert_eq!(
            caches_with(&[("HOME", "/home/a")]),
            [
                PathBuf::from("/home/a/.cache/debuginfod_client"),
                PathBuf::from("/home/a/.debuginfod_client_cache")
            ]
        );
        assert_eq!(
            caches_with(&[("XDG_CACHE_HOME", "/x")]),
            [PathBuf::from("/x/debuginfod_client")]
        );
        assert_eq!(caches_with(&[]), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(wait(&mut child, Duration::from_millis(20)), None);
        assert!(child.try_wait().unwrap().is_some());
    }
}
