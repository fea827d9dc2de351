//! The bundle on disk: a tar archive over independent frames, under a temporary name until it is
//! sealed.
//!
//! Every member's SHA-256 goes into the manifest. A part that was written survives a kill: the
//! frames before it are whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bundle::frames::FrameWriter;
use bundle::{
    FORMAT_VERSION, GapRecord, Manifest, MemberRecord, Outcome, Redaction, SourceRecord, member,
};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::number::bytes;
use crate::redact::Masker;

/// The bundle cannot be written.
#[derive(Debug, Error)]
pub enum BundleError {
    /// There is a file of that name.
    #[error("{0} exists already")]
    Exists(PathBuf),
    /// The file cannot be made.
    #[error("cannot create {0}: {1}")]
    Create(PathBuf, #[source] io::Error),
    /// The disk is full, or worse.
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, #[source] io::Error),
}

/// A bundle being written.
#[derive(Debug)]
pub struct Bundle {
    tar: Archive,
    path: PathBuf,
    partial: PathBuf,
    made: u64,
    manifest: Manifest,
    source: String,
    masker: Arc<Masker>,
    redactions: Vec<Redaction>,
}

struct Archive(tar::Builder<FrameWriter<File>>);

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Archive")
    }
}

impl Bundle {
    /// Creates `PATH.partial`, readable by its owner only.
    ///
    /// # Errors
    /// [`BundleError::Exists`] if either name is taken, or the folder cannot be written to.
    pub fn create(path: &Path, level: i32) -> Result<Self, BundleError> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        if path.symlink_metadata().is_ok() {
            return Err(BundleError::Exists(path.to_owned()));
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&partial);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => BundleError::Exists(partial.clone()),
            _ => BundleError::Create(partial.clone(), error),
        })?;
        let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let workers = workers.min(NonZeroUsize::new(4).unwrap_or(NonZeroUsize::MIN));
        Ok(Self {
            tar: Archive(tar::Builder::new(FrameWriter::new(file, level, workers))),
            path: path.to_owned(),
            partial,
            made: u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0),
            manifest: Manifest { format: FORMAT_VERSION, ..Manifest::default() },
            source: String::new(),
            masker: Arc::default(),
            redactions: Vec::new(),
        })
    }

    /// The file as it is called until it is sealed.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Secrets are masked by this one from now on.
    pub fn mask_with(&mut self, masker: Arc<Masker>) {
        self.masker = masker;
    }

    /// What masks its secrets.
    pub fn masker(&self) -> &Arc<Masker> {
        &self.masker
    }

    /// What the manifest says so far.
    pub fn manifest(&mut self) -> &mut Manifest {
        &mut self.manifest
    }

    /// Names the source of the members that follow.
    pub fn begin(&mut self, source: &str) {
        source.clone_into(&mut self.source);
    }

    /// Records how a source ended.
    pub fn record(&mut self, mut source: SourceRecord) {
        if let Outcome::Failed { error } = &mut source.outcome {
            *error = self.masker.mask_words(error);
        }
        tracing::info!(name = source.name, micros = source.micros, outcome = ?source.outcome);
        self.manifest.sources.push(source);
    }

    /// Records what is missing; once.
    pub fn gap(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.push_gap(GapRecord { what: what.into(), why: why.into(), expected: false });
    }

    /// Notes what is left out on purpose, or by its nature.
    pub fn expected_gap(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.push_gap(GapRecord { what: what.into(), why: why.into(), expected: true });
    }

    fn push_gap(&mut self, mut gap: GapRecord) {
        gap.what = self.masker.mask_words(&gap.what);
        gap.why = self.masker.mask_words(&gap.why);
        tracing::warn!(what = gap.what, why = gap.why, "gap");
        if !self.manifest.gaps.contains(&gap) {
            self.manifest.gaps.push(gap);
        }
    }

    /// Adds a member of `size` bytes.
    ///
    /// # Errors
    /// Those of writing; a reader that gives fewer bytes is one.
    pub fn add(
        &mut self,
        path: &str,
        size: u64,
        origin: Option<String>,
        reader: impl Read,
    ) -> Result<(), BundleError> {
        let mut reader = Hashing { reader, hash: Sha256::new(), length: 0 };
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(self.made);
        header.set_entry_type(tar::EntryType::Regular);
        let result = self.tar.0.append_data(&mut header, path, &mut reader);
        let result = result.and_then(|()| match reader.length == size {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "{path} has {} bytes instead of {size}",
                reader.length
            ))),
        });
        result.map_err(|error| self.write_error(error))?;
        let hash = reader.hash.finalize();
        self.manifest.members.push(MemberRecord {
            path: path.to_owned(),
            size,
            sha256: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            source: self.source.clone(),
            origin,
        });
        Ok(())
    }

    /// Adds a member from memory.
    ///
    /// # Errors
    /// Those of writing.
    pub fn add_bytes(
        &mut self,
        path: &str,
        origin: Option<String>,
        content: &[u8],
    ) -> Result<(), BundleError> {
        self.add(path, bytes(content.len()), origin, content)
    }

    /// Adds a text; its secrets are masked, and noted.
    ///
    /// # Errors
    /// Those of writing.
    pub fn add_text(
        &mut self,
        path: &str,
        origin: Option<String>,
        mut content: Vec<u8>,
    ) -> Result<(), BundleError> {
        let redactions = self.masker.mask(path, &mut content);
        self.redactions.extend(redactions);
        self.add_bytes(path, origin, &content)
    }

    /// Notes what was masked in a member that is no text.
    pub fn redacted(&mut self, redactions: Vec<Redaction>) {
        self.redactions.extend(redactions);
    }

    /// Adds the collector's own trace, and then what was masked in all members so far.
    ///
    /// # Errors
    /// Those of writing.
    pub fn add_last_texts(&mut self, trace: Vec<u8>) -> Result<(), BundleError> {
        self.begin("collector");
        self.add_text(member::TRACE, None, trace)?;
        let redactions = std::mem::take(&mut self.redactions);
        self.add_json(member::REDACTIONS, &redactions)
    }

    /// Adds a member as JSON.
    ///
    /// # Errors
    /// Those of writing.
    pub fn add_json(
        &mut self,
        path: &str,
        value: &impl serde::Serialize,
    ) -> Result<(), BundleError> {
        let content = serde_json::to_vec_pretty(value);
        let content = content.map_err(|error| self.write_error(io::Error::other(error)))?;
        self.add_bytes(path, None, &content)
    }

    /// Writes what is pending, so that it survives whatever comes.
    ///
    /// # Errors
    /// Those of writing.
    pub fn checkpoint(&mut self) -> Result<(), BundleError> {
        let result = self.tar.0.get_mut().end_frame();
        result.map_err(|error| self.write_error(error))
    }

    /// Uncompressed bytes so far.
    pub fn content_length(&self) -> u64 {
        self.tar.0.get_ref().content_length()
    }

    /// Writes the manifest and the seek table, and waits for the disk. With `rename` the file gets
    /// its name. Gives its path and length.
    ///
    /// # Errors
    /// Those of writing.
    pub fn seal(mut self, rename: bool) -> Result<(PathBuf, u64, Manifest), BundleError> {
        self.begin("manifest");
        let mut manifest = std::mem::take(&mut self.manifest);
        manifest.finished = jiff::Zoned::now().to_string();
        self.add_json(member::MANIFEST, &manifest)?;
        let partial = self.partial;
        let failed = |error| BundleError::Write(partial.clone(), error);
        let file = self.tar.0.into_inner().and_then(FrameWriter::finish).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if !rename {
            return Ok((partial, length, manifest));
        }
        fs::rename(&partial, &self.path).map_err(failed)?;
        Ok((self.path, length, manifest))
    }

    fn write_error(&self, error: io::Error) -> BundleError {
        BundleError::Write(self.partial.clone(), error)
    }
}

struct Hashing<R> {
    reader: R,
    hash: Sha256,
    length: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(into)?;
        if let Some(taken) = into.get(..length) {
            self.hash.update(taken);
        }
        self.length += bytes(length);
        Ok(length)
    }
}
