//! The bundle while it is written: a tar archive over independent frames, encrypted or not, under a
//! temporary name until it is sealed.
//!
//! Every member's SHA-256 goes into the manifest. A part that was written survives a kill: the
//! frames before it are whole. A member for which there is no room within the limits is left out as
//! a whole, and the manifest says so; there is always room for the manifest itself.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bundle::encrypted::{Encrypted, Recipients};
use bundle::frames::FrameWriter;
use bundle::{
    FORMAT_VERSION, GapRecord, Manifest, MemberRecord, Outcome, Redaction, SourceRecord, member,
};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::allowance::{Allowance, Ceiling};
use crate::number::{bytes, human};
use crate::outlet::{Gauge, Outlet};
use crate::place::{Output, Place, PlaceError};
use crate::pseudonyms::Pseudonyms;
use crate::redact::Masker;

/// The bundle cannot be written.
#[derive(Debug, Error)]
pub enum BundleError {
    /// It cannot go where it was to go.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The disk is full, or worse.
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, #[source] io::Error),
}

/// How a bundle is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    /// zstd level.
    pub(crate) level: i32,
    /// For whom; nobody: plain.
    pub(crate) recipients: Recipients,
    /// How large it may become.
    pub(crate) ceiling: Ceiling,
}

/// A bundle being written.
#[derive(Debug)]
pub struct Bundle {
    tar: Archive,
    gauge: Gauge,
    allowance: Allowance,
    level: i32,
    made: u64,
    manifest: Manifest,
    source: String,
    left_out: BTreeMap<(String, String), LeftOut>,
    masker: Arc<Masker>,
    pseudonyms: Option<Pseudonyms>,
    redactions: Vec<Redaction>,
}

/// Members that were left out for the same reason.
#[derive(Clone, Debug, Default)]
struct LeftOut {
    first: String,
    members: u64,
    bytes: u64,
}

/// A sealed bundle.
#[derive(Debug)]
pub struct Sealed {
    /// What it is called.
    pub path: PathBuf,
    /// Bytes of its file.
    pub length: u64,
    /// Its last member.
    pub manifest: Manifest,
    /// Why it could not be given its name.
    pub unnamed: Option<String>,
}

struct Archive(tar::Builder<FrameWriter<Sink>>);

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Archive")
    }
}

/// What takes the frames.
enum Sink {
    Plain(Outlet),
    Encrypted(Encrypted<Outlet>),
}

impl Sink {
    fn finish(self) -> io::Result<Outlet> {
        match self {
            Self::Plain(outlet) => Ok(outlet),
            Self::Encrypted(encrypted) => encrypted.finish(),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(outlet) => outlet.write(content),
            Self::Encrypted(encrypted) => encrypted.write(content),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(outlet) => outlet.flush(),
            Self::Encrypted(encrypted) => encrypted.flush(),
        }
    }
}

/// Threads that compress.
fn workers() -> NonZeroUsize {
    let most = NonZeroUsize::new(4).unwrap_or(NonZeroUsize::MIN);
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN).min(most)
}

impl Bundle {
    /// A plain bundle without limits: creates `PATH.partial`, readable by its owner only.
    ///
    /// # Errors
    /// Either name is taken, or the folder cannot be written to.
    pub fn create(path: &Path, level: i32) -> Result<Self, BundleError> {
        let place = Place::open(&Output::File(path.to_owned()), false)?;
        Self::begin_at(place, Manner { level, ..Manner::default() })
    }

    /// Begins a bundle at a place that was opened.
    pub(crate) fn begin_at(place: Place, manner: Manner) -> Result<Self, BundleError> {
        let Manner { level, recipients, ceiling } = manner;
        let outlet = Outlet::create(place)?;
        let gauge = outlet.gauge();
        let sink = if recipients.is_empty() {
            Sink::Plain(outlet)
        } else {
            let encrypted = recipients.encrypt(outlet);
            Sink::Encrypted(encrypted.map_err(|error| BundleError::Write(gauge.partial(), error))?)
        };
        let encrypted = matches!(sink, Sink::Encrypted(_));
        Ok(Self {
            tar: Archive(tar::Builder::new(FrameWriter::new(sink, level, workers()))),
            allowance: Allowance::new(ceiling, gauge.clone(), encrypted),
            gauge,
            level,
            made: u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0),
            manifest: Manifest { format: FORMAT_VERSION, ..Manifest::default() },
            source: String::new(),
            left_out: BTreeMap::new(),
            masker: Arc::default(),
            pseudonyms: None,
            redactions: Vec::new(),
        })
    }

    /// What became of the file, for those who cannot finish it: in words, where its content is. A
    /// file in which nothing could be found is taken away.
    pub(crate) fn remains(&self) -> String {
        let partial = self.gauge.partial();
        let least = if self.allowance.encrypted { 2 << 16 } else { 1 };
        let usable = self.tar.0.get_ref().frames() > 0 && self.gauge.written() >= least;
        if !usable && self.gauge.discard() {
            return "nothing could be written".to_owned();
        }
        format!("what was collected is in {}", partial.display())
    }

    /// The same for a sealing that fails: everything but the end is there by then.
    pub(crate) fn remains_of_seal(&self) -> String {
        format!("what was collected is in {}", self.gauge.partial().display())
    }

    /// Whether a size was given that it must not pass.
    pub fn is_limited(&self) -> bool {
        self.allowance.ceiling.most.is_some()
    }

    /// Secrets are masked by this one from now on.
    pub fn mask_with(&mut self, masker: Arc<Masker>) {
        self.masker = masker;
    }

    /// Names are replaced by these from now on.
    pub(crate) fn replace_with(&mut self, pseudonyms: Pseudonyms) {
        self.pseudonyms = Some(pseudonyms);
    }

    /// What names were replaced by.
    pub(crate) fn pseudonyms(&self) -> Option<&Pseudonyms> {
        self.pseudonyms.as_ref()
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

    /// Adds a member of `size` bytes; `content` gives them, more than once if asked. Whether there
    /// was room for it.
    ///
    /// # Errors
    /// Those of writing; a reader that gives fewer bytes is one.
    pub fn add<R: Read>(
        &mut self,
        path: &str,
        size: u64,
        origin: Option<String>,
        content: impl Fn() -> R,
    ) -> Result<bool, BundleError> {
        let first = path == member::HEADER;
        if let Some(why) = if first { None } else { self.no_room(size, &content)? } {
            let kept_apart = path.starts_with("shared/") || path.ends_with("/core");
            let what = if kept_apart { path } else { &self.source };
            let left_out = self.left_out.entry((what.to_owned(), why)).or_default();
            if left_out.members == 0 {
                path.clone_into(&mut left_out.first);
            }
            left_out.members += 1;
            left_out.bytes = left_out.bytes.saturating_add(size);
            return Ok(false);
        }
        self.append(path, size, origin, content())?;
        Ok(true)
    }

    /// Why a member of `size` bytes has no room. Where it is not sure to have, it is compressed once
    /// to see.
    fn no_room<R: Read>(
        &mut self,
        size: u64,
        content: &impl Fn() -> R,
    ) -> Result<Option<String>, BundleError> {
        let entries = bytes(
            self.manifest.members.len() + self.manifest.gaps.len() + self.manifest.processes.len(),
        );
        let writer = self.tar.0.get_ref();
        let (pending, frames) = (writer.pending(), writer.frames());
        let Some(left) = self.allowance.left(pending, frames, entries) else { return Ok(None) };
        if Allowance::at_most(size) <= left.bytes {
            return Ok(None);
        }
        self.checkpoint()?;
        let frames = self.tar.0.get_ref().frames();
        let Some(left) = self.allowance.left(0, frames, entries) else { return Ok(None) };
        if Allowance::at_most(size) <= left.bytes {
            return Ok(None);
        }
        let fits = self.allowance.measure(content(), left.bytes, self.level, workers());
        Ok((!fits).then_some(left.why))
    }

    fn append(
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

    /// Adds a member from memory, if there is room for it.
    ///
    /// # Errors
    /// Those of writing.
    pub fn add_bytes(
        &mut self,
        path: &str,
        origin: Option<String>,
        content: &[u8],
    ) -> Result<(), BundleError> {
        self.add(path, bytes(content.len()), origin, || content).map(|_| ())
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
        self.redactions.extend(self.masker.mask(path, &mut content));
        let pseudonyms = self.pseudonyms.as_ref();
        self.redactions.extend(pseudonyms.iter().flat_map(|one| one.replace(path, &mut content)));
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
        let mut content = content.map_err(|error| self.write_error(io::Error::other(error)))?;
        if let Some(pseudonyms) = &self.pseudonyms {
            pseudonyms.replace(path, &mut content);
        }
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
    /// its name.
    ///
    /// # Errors
    /// Those of writing.
    pub fn seal(mut self, rename: bool) -> Result<Sealed, BundleError> {
        self.begin("manifest");
        for ((what, why), left_out) in std::mem::take(&mut self.left_out) {
            let LeftOut { first, members, bytes } = left_out;
            let what = match members {
                1 => format!("{first} ({})", human(bytes)),
                _ => {
                    format!("{members} members of {what} ({}), the first is {first}", human(bytes))
                }
            };
            self.gap(what, why);
        }
        let mut manifest = std::mem::take(&mut self.manifest);
        manifest.finished = jiff::Zoned::now().to_string();
        let content = serde_json::to_vec_pretty(&manifest);
        let content = content.map_err(|error| self.write_error(io::Error::other(error)))?;
        self.append(member::MANIFEST, bytes(content.len()), None, content.as_slice())?;
        let gauge = self.gauge.clone();
        let failed = |error| BundleError::Write(gauge.partial(), error);
        let sink = self.tar.0.into_inner().and_then(FrameWriter::finish).map_err(failed)?;
        let outlet = sink.finish().map_err(failed)?;
        let (path, unnamed) = outlet.seal(rename).map_err(failed)?;
        Ok(Sealed { path, length: gauge.written(), manifest, unnamed })
    }

    fn write_error(&self, error: io::Error) -> BundleError {
        BundleError::Write(self.gauge.partial(), error)
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
