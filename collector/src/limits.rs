//! How long a run may take, how large its bundle may become, and for whom it is encrypted.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use bundle::encrypted::Recipients;

use crate::cli::{parse_seconds, parse_size};

/// A recipients file is longer by nothing than the keys of some hundred people.
const LARGEST_KEY_FILE: u64 = 1 << 20;
/// The smallest bundle that holds its own manifest and a little more.
const LEAST_SIZE: u64 = 1 << 20;

/// The options about that.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct LimitOptions {
    /// Encrypt the bundle for this age recipient (age1…); may be repeated
    #[arg(long, value_name = "RECIPIENT")]
    pub encrypt_to: Vec<String>,
    /// Encrypt the bundle for everybody in this age recipients file; may be repeated
    #[arg(long, value_name = "FILE")]
    pub encrypt_to_file: Vec<PathBuf>,
    /// Ask no source any more after so many seconds, and seal what there is
    #[arg(long, value_name = "SECONDS", default_value_t = 300.0, value_parser = parse_seconds)]
    pub deadline: f64,
    /// The most that the bundle's file may have, for instance 500M; what does not fit is left out
    #[arg(long, value_name = "SIZE", value_parser = parse_file_size)]
    pub max_size: Option<u64>,
    /// Leave so much free on the bundle's disk [default: 5 %, at most 512M; nothing with --force]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub keep_free: Option<u64>,
    /// How the progress on stderr is written; docs/collector-progress.md describes the JSON
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Form::Lines)]
    pub progress: Form,
}

/// How progress is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// Lines for a person.
    #[default]
    Lines,
    /// One JSON object a line.
    Json,
}

impl LimitOptions {
    /// Of the whole run.
    pub fn deadline(&self) -> Duration {
        Duration::try_from_secs_f64(self.deadline).unwrap_or(Duration::from_secs(300))
    }

    /// Whether the bundle is to be encrypted.
    pub fn is_encrypted(&self) -> bool {
        !self.encrypt_to.is_empty() || !self.encrypt_to_file.is_empty()
    }

    /// Everybody that was named.
    ///
    /// # Errors
    /// One of them is no recipient, a file cannot be read, or this build cannot encrypt.
    pub fn recipients(&self) -> anyhow::Result<Recipients> {
        let mut recipients = Recipients::default();
        for text in &self.encrypt_to {
            recipients.add(text).context("--encrypt-to")?;
        }
        for path in &self.encrypt_to_file {
            let text = read_small(path);
            let added = text.and_then(|text| Ok(recipients.add_file(&text)?));
            added.with_context(|| format!("--encrypt-to-file {}", path.display()))?;
        }
        anyhow::ensure!(
            self.is_encrypted() != recipients.is_empty(),
            "nobody to encrypt the bundle for"
        );
        Ok(recipients)
    }
}

/// A small text file; never waits.
fn read_small(path: &Path) -> anyhow::Result<String> {
    let mut options = File::options();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    anyhow::ensure!(file.metadata()?.is_file(), "not a regular file");
    let mut text = String::new();
    file.take(LARGEST_KEY_FILE).read_to_string(&mut text)?;
    Ok(text)
}

fn parse_file_size(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        size if size < LEAST_SIZE => Err(format!("{text} is too small for any bundle; 1M or more")),
        size => Ok(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOMEBODY: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

    #[test]
    #[cfg(feature = "encrypt")]
    fn recipients_come_from_the_command_line_and_from_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, format!("# us\n{SOMEBODY}\n")).unwrap();
        let some = LimitOptions {
            encrypt_to: vec![SOMEBODY.into()],
            encrypt_to_file: vec![file.path().into()],
            ..LimitOptions::default()
        };
        assert!(some.is_encrypted() && !some.recipients().unwrap().is_empty());
        let none = LimitOptions::default();
        assert!(!none.is_encrypted() && none.recipients().unwrap().is_empty());
        std::fs::write(&file, "ssh-ed25519 AAAA\n").unwrap();
        let words = format!("{:#}", some.recipients().unwrap_err());
        assert!(words.contains("is not an age recipient"), "{words}");
    }

    #[test]
    #[cfg(not(feature = "encrypt"))]
    fn a_build_without_encryption_refuses_and_never_writes_plain_text() {
        let some = LimitOptions { encrypt_to: vec![SOMEBODY.into()], ..LimitOptions::default() };
        let words = format!("{:#}", some.recipients().unwrap_err());
        assert!(words.contains("made without encryption"), "{words}");
    }

    #[test]
    fn a_keys_file_that_is_no_file_does_not_hang() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(read_small(&fifo).unwrap_err().to_string(), "not a regular file");
        assert!(read_small(Path::new("/dev/zero")).is_err());
    }

    #[test]
    fn the_smallest_bundle_has_a_mebibyte() {
        assert_eq!(parse_file_size("1M"), Ok(1 << 20));
        assert!(parse_file_size("1023K").is_err());
        assert!(parse_file_size("-1").is_err());
    }
}
