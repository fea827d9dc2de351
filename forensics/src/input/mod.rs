//! What the user gave, opened in place: bundles, cores, directories, plain or compressed.
//!
//! Reads: files named on the command line; hostile until proven tame. Promises: nothing is written
//! but temporary files without a name, nothing is opened that the user did not name, and what can
//! be read of a damaged input is kept with a [`Gap`] that says what is missing. Not for knowing
//! what a core means: that begins with [`crate::core`].

mod archive;
mod decrypt;
mod directory;
mod moment;
mod unpack;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bundle::encrypted::{Identities, KeyError, OpenError};
use bundle::member::{self, Place};
use bundle::{Header, Manifest};
use memmap2::Mmap;
use thiserror::Error;

pub use archive::Member;
pub use decrypt::identities;
pub use moment::{Moment, MomentSource};

use crate::bytes::{Blob, BlobError, FrameStore, map_file};
use crate::gap::Gap;
use crate::num::narrow;

/// A larger header or manifest is not ours: one line for each of a million members fits.
const LARGEST_JSON: u64 = 256 << 20;
/// Of a text member only so many bytes are read.
const LARGEST_TEXT: u64 = 1 << 20;

/// How inputs are opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Bytes of unpacked content that may be kept in memory; beyond it a temporary file is used.
    pub memory: u64,
}

/// The same, with the keys.
#[derive(Clone, Copy, Debug)]
struct Opening<'a> {
    memory: u64,
    identities: &'a Identities,
}

/// An input that cannot be used at all.
#[derive(Debug, Error)]
pub enum InputError {
    /// It cannot be opened or read.
    #[error("{path}")]
    Unreadable {
        /// As the user gave it.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// It is nothing that this program reads.
    #[error(
        "{path}: {what}; expected a support bundle (.tar.zst), an ELF core \
         (plain, .zst, .gz, .xz or .lz4), or a directory of these"
    )]
    Unknown {
        /// As the user gave it.
        path: PathBuf,
        /// What it looks like.
        what: String,
    },
    /// It is encrypted, and cannot be opened.
    #[error("{path}: {why}")]
    Encrypted {
        /// As the user gave it.
        path: PathBuf,
        /// What is the case.
        why: OpenError,
    },
    /// Not an identity file.
    #[error("{path}: {why}")]
    BadIdentity {
        /// As the user gave it.
        path: PathBuf,
        /// What is the case; never the key.
        why: KeyError,
    },
    /// Two bundles at once.
    #[error("{path}: a second bundle; give one bundle, or several cores of one group")]
    SecondBundle {
        /// As the user gave it.
        path: PathBuf,
    },
}

/// A core among the inputs.
#[derive(Clone, Debug)]
pub struct CoreInput {
    /// How the user knows it: a path, or a member of the bundle.
    pub label: String,
    /// Its PID, where the bundle says so.
    pub pid: Option<u32>,
    /// Its bytes.
    pub blob: Blob,
    /// Its length as the archive promises; more than the blob has where the archive was cut.
    pub declared: u64,
}

/// An ELF file of the bundle.
#[derive(Clone, Debug)]
pub struct ModuleInput {
    /// Lower-case hex; the folder's name, not yet checked against the file.
    pub build_id: String,
    /// File name.
    pub name: String,
    /// Its bytes.
    pub blob: Blob,
}

/// Everything that the inputs hold, together.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// What the user gave, in order.
    pub paths: Vec<String>,
    /// A bundle's first member.
    pub header: Option<Header>,
    /// A bundle's last member; absent where it was cut.
    pub manifest: Option<Manifest>,
    /// Whether one of the inputs is a bundle.
    pub is_bundle: bool,
    /// The cores, in order.
    pub cores: Vec<CoreInput>,
    /// Pages of shared mappings by member name.
    pub shared: BTreeMap<String, Blob>,
    /// ELF files that came with the bundle.
    pub modules: Vec<ModuleInput>,
    /// Every other member by path: text evidence.
    pub texts: BTreeMap<String, Blob>,
    /// Every member in order, for `verify`.
    pub members: Vec<Member>,
    /// Why an input ends before its end, where it does: for the first lines of every report.
    pub cuts: Vec<String>,
    /// What else could not be read.
    pub gaps: Vec<Gap>,
}

impl Evidence {
    /// Opens every path.
    ///
    /// # Errors
    /// [`InputError`] for the first path of which nothing can be used.
    pub fn open(paths: &[PathBuf], options: OpenOptions) -> Result<Self, InputError> {
        Self::open_with(paths, options, &Identities::default())
    }

    /// Opens every path, also what is encrypted for one of `identities`.
    ///
    /// # Errors
    /// [`InputError`] for the first path of which nothing can be used.
    pub fn open_with(
        paths: &[PathBuf],
        options: OpenOptions,
        identities: &Identities,
    ) -> Result<Self, InputError> {
        let options = Opening { memory: options.memory, identities };
        let mut evidence = Self::default();
        for path in paths {
            evidence.paths.push(path.display().to_string());
            if path.is_dir() {
                evidence.add_directory(path, options)?;
            } else {
                evidence.add_file(path, options)?;
            }
        }
        Ok(evidence)
    }

    fn add_directory(&mut self, path: &Path, options: Opening<'_>) -> Result<(), InputError> {
        let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
        if path.join(member::HEADER).is_file() {
            let members = directory::unpacked_bundle(path).map_err(unreadable)?;
            return self.add_members(path, members);
        }
        let candidates = directory::cores(path).map_err(unreadable)?;
        if candidates.is_empty() {
            let what = "a directory without a core or a bundle in it".to_owned();
            return Err(InputError::Unknown { path: path.to_owned(), what });
        }
        // A folder may hold other compressed files too; they are named and passed over.
        let mut refused = None;
        for candidate in &candidates {
            match self.add_file(candidate, options) {
                Err(InputError::Unknown { path, what }) => {
                    self.gaps.push(Gap::new(path.display().to_string(), &what));
                    refused = refused.or(Some(InputError::Unknown { path, what }));
                }
                other => other?,
            }
        }
        match refused {
            Some(error) if self.cores.is_empty() && !self.is_bundle => Err(error),
            _ => Ok(()),
        }
    }

    fn add_file(&mut self, path: &Path, options: Opening<'_>) -> Result<(), InputError> {
        let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
        // Opening a FIFO would wait for ever, and a pipe cannot be read at random places.
        if !path.metadata().map_err(unreadable)?.is_file() {
            let what = "not a regular file".to_owned();
            return Err(InputError::Unknown { path: path.to_owned(), what });
        }
        let file = File::open(path).map_err(unreadable)?;
        let mut map = map_file(&file).map_err(unreadable)?;
        if bundle::encrypted::is_armored(&map) {
            let what = "an encrypted file as text; turn it into a binary one (age -d, or base64)";
            return Err(InputError::Unknown { path: path.to_owned(), what: what.to_owned() });
        }
        if bundle::encrypted::is_encrypted(&map) {
            map = self.decrypted(path, &map, options)?;
        }
        let content = match unpack::Compression::of(&map) {
            None => Blob::from_map(map),
            Some(compression) => self.uncompressed(path, map, compression, options)?,
        };
        self.add_content(path, content)
    }

    /// What is inside an encrypted file, as far as its chunks are whole.
    fn decrypted(
        &mut self,
        path: &Path,
        file: &[u8],
        options: Opening<'_>,
    ) -> Result<Mmap, InputError> {
        let encrypted = |why| InputError::Encrypted { path: path.to_owned(), why };
        let decrypted = decrypt::decrypt(file, options.identities, options.memory);
        let decrypted = decrypted.map_err(encrypted)?;
        if let Some(why) = decrypted.ended {
            let (path, length) = (path.display(), decrypted.length);
            self.cuts.push(format!(
                "{path}: cut or damaged: the encrypted data ends after {length} decrypted bytes \
                 ({why})"
            ));
        }
        Ok(decrypted.content)
    }

    /// The content of a compressed file: in place where it has an index, else unpacked.
    fn uncompressed(
        &mut self,
        path: &Path,
        map: Mmap,
        compression: unpack::Compression,
        options: Opening<'_>,
    ) -> Result<Blob, InputError> {
        if compression == unpack::Compression::Zstd
            && let Ok(index) = bundle::frames::FrameIndex::read(&map)
            && index
                .frames
                .iter()
                .all(|frame| frame.content.end.saturating_sub(frame.content.start) <= 4 << 20)
        {
            let store = FrameStore::new(map, index, narrow(options.memory));
            let lost = store.lost();
            if lost > 0 {
                self.cuts.push(format!(
                    "{}: cut: its last {lost} bytes are not a whole compressed frame",
                    path.display()
                ));
            }
            return Ok(Blob::from_frames(store));
        }
        let unpacked = unpack::unpack(&map, compression, options.memory)
            .map_err(|source| InputError::Unreadable { path: path.to_owned(), source })?;
        if let Some(why) = unpacked.ended {
            self.cuts.push(format!(
                "{}: cut or damaged: the {} data ends after {} unpacked bytes ({why})",
                path.display(),
                compression.name(),
                unpacked.content.length()
            ));
        }
        Ok(unpacked.content)
    }

    fn add_content(&mut self, path: &Path, content: Blob) -> Result<(), InputError> {
        let unknown =
            |what: &str| InputError::Unknown { path: path.to_owned(), what: what.to_owned() };
        let start = content.peek(0, 512).map_err(|_| match self.cuts.last() {
            Some(why) => unknown(&format!("nothing of it can be read ({why})")),
            None => unknown("an empty file"),
        })?;
        if start.starts_with(b"\x7fELF") {
            let (label, declared) = (path.display().to_string(), content.length());
            self.cores.push(CoreInput { label, pid: None, blob: content.clone(), declared });
            return Ok(());
        }
        if !archive::is_tar(&start) {
            return Err(unknown("neither an ELF file nor a tar archive"));
        }
        let listing = archive::list(&content);
        if let Some(why) = listing.ended {
            self.cuts.push(format!("{}: cut or damaged: {why}", path.display()));
        }
        self.add_members(path, listing.members)
    }

    fn add_members(&mut self, path: &Path, members: Vec<Member>) -> Result<(), InputError> {
        if self.is_bundle {
            return Err(InputError::SecondBundle { path: path.to_owned() });
        }
        if !members.iter().any(|member| member.path == member::HEADER) {
            let what = "an archive without header.json, so not a support bundle".to_owned();
            return Err(InputError::Unknown { path: path.to_owned(), what });
        }
        self.is_bundle = true;
        for found in &members {
            self.add_member(found);
        }
        match &self.manifest {
            None => self.cuts.push(format!(
                "{}: cut: it has no manifest.json; the {} members before the cut are used",
                path.display(),
                members.len()
            )),
            Some(manifest) => self.gaps.extend(
                manifest.gaps.iter().map(|gap| Gap::new(gap.what.clone(), gap.why.clone())),
            ),
        }
        self.members = members;
        Ok(())
    }

    fn add_member(&mut self, found: &Member) {
        let blob = found.blob.clone();
        match Place::of(&found.path) {
            Place::Core { pid } => self.cores.push(CoreInput {
                label: found.path.clone(),
                // The collector did not know the PID of a core that has lost its notes.
                pid: (pid != 0).then_some(pid),
                blob,
                declared: found.declared,
            }),
            Place::Shared => {
                self.shared.insert(found.path.clone(), blob);
            }
            Place::Module { build_id, name } => self.modules.push(ModuleInput {
                build_id: build_id.to_owned(),
                name: name.to_owned(),
                blob,
            }),
            Place::Process { .. } | Place::Thread { .. } | Place::Other => {
                self.add_text(found, blob);
            }
        }
    }

    fn add_text(&mut self, found: &Member, blob: Blob) {
        match found.path.as_str() {
            member::HEADER => self.header = self.json(found),
            member::MANIFEST => self.manifest = self.json(found),
            _ => {
                self.texts.insert(found.path.clone(), blob);
            }
        }
    }

    fn json<T: serde::de::DeserializeOwned>(&mut self, found: &Member) -> Option<T> {
        let length = found.blob.length();
        let readable = length <= LARGEST_JSON;
        let bytes = if readable { found.blob.all() } else { Err(BlobError::End) };
        let parsed = match bytes {
            _ if !readable => Err(format!("{length} bytes are too many")),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        parsed.map_err(|why| self.gaps.push(Gap::new(found.path.clone(), why))).ok()
    }

    /// Whether heaps were left out on purpose: it is a bundle of stacks only.
    pub fn has_no_heap(&self) -> bool {
        self.header.as_ref().is_some_and(|header| header.holds == bundle::Holds::Stacks)
    }

    /// A text member, as far as it is there.
    pub fn text(&self, path: &str) -> Option<String> {
        self.text_up_to(path, LARGEST_TEXT)
    }

    /// At most so many bytes from the start of a text member, which may be a long table.
    pub fn text_up_to(&self, path: &str, limit: u64) -> Option<String> {
        let blob = self.texts.get(path)?;
        let bytes = blob.slice(0, limit);
        let bytes = bytes.all().ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}
