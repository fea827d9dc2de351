//! Notes of our own in a core, owner [`OWNER`]: what became of each range, and each thread's name.
//!
//! A core's program headers cannot say "zero", "the file's byte", "not saved" and "stored elsewhere
//! in the bundle" apart; [`Ranges`] does. All numbers are little-endian.

use std::sync::Arc;

use thiserror::Error;

/// Owner name of our notes in a core.
pub const OWNER: &str = "FORENSICS";
/// Note type of [`Ranges`]; one in each core.
pub const RANGES: u32 = 1;
/// Note type of [`ThreadRecord`]; one for each thread, in the order of `NT_PRSTATUS`.
pub const THREAD: u32 = 2;

const VERSION: u32 = 1;
const RANGE_LENGTH: usize = 32;

/// A note that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoteError {
    /// It ends before its own counts say.
    #[error("the note is cut short")]
    Cut,
    /// A later format.
    #[error("the note has version {0}; this program knows version {VERSION}")]
    Version(u32),
    /// A number outside its meaning, or a text that is not UTF-8.
    #[error("the note is damaged")]
    Damaged,
}

/// What became of a range of the address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// In a `PT_LOAD` of this core.
    Data,
    /// Pages that never existed in anonymous memory: they read as zero.
    Zero,
    /// The bytes of a file that nobody changed in memory.
    File {
        /// Path as `/proc/PID/maps` gives it.
        path: Arc<str>,
        /// Offset in that file, in bytes.
        offset: u64,
    },
    /// Pages of a shared mapping, in another member of the bundle.
    Shared {
        /// The member, `shared/DEV-INODE`.
        member: Arc<str>,
        /// Offset in that member, in bytes.
        offset: u64,
    },
    /// Unknown to the bundle.
    NotSaved {
        /// For a person: unreadable, a device, over the pause limit.
        why: Arc<str>,
        /// It is memory that the process could write to, so that pointers may be missing; a
        /// device, a packet ring and the kernel's pages are not. Older bundles say false.
        writable: bool,
    },
}

/// One half-open range of the address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Length in bytes, not 0.
    pub length: u64,
    /// What became of it.
    pub content: Content,
}

/// The whole address space of a process, by rising address; what is in no range was not mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(pub Vec<Range>);

impl Ranges {
    /// The note's descriptor.
    pub fn encode(&self) -> Vec<u8> {
        let mut texts: Vec<&str> = Vec::new();
        let mut body = Vec::with_capacity(self.0.len().saturating_mul(RANGE_LENGTH));
        for range in &self.0 {
            let (kind, text, offset) = match &range.content {
                Content::Data => (0_u32, "", 0),
                Content::Zero => (1, "", 0),
                Content::File { path, offset } => (2, &**path, *offset),
                Content::Shared { member, offset } => (3, &**member, *offset),
                Content::NotSaved { why, writable } => (4, &**why, u64::from(*writable)),
            };
            // Neighbours share their text (a mapping in pieces), so looking back is enough.
            let index = match texts.iter().rposition(|known| *known == text) {
                Some(index) => index,
                None => {
                    texts.push(text);
                    texts.len().saturating_sub(1)
                }
            };
            body.extend_from_slice(&range.start.to_le_bytes());
            body.extend_from_slice(&range.length.to_le_bytes());
            body.extend_from_slice(&kind.to_le_bytes());
            body.extend_from_slice(&u32::try_from(index).unwrap_or(u32::MAX).to_le_bytes());
            body.extend_from_slice(&offset.to_le_bytes());
        }
        let mut note = Vec::with_capacity(body.len().saturating_add(16));
        note.extend_from_slice(&VERSION.to_le_bytes());
        note.extend_from_slice(&u32::try_from(texts.len()).unwrap_or(u32::MAX).to_le_bytes());
        note.extend_from_slice(&u64::try_from(self.0.len()).unwrap_or(u64::MAX).to_le_bytes());
        note.extend_from_slice(&body);
        for text in texts {
            note.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
            note.extend_from_slice(text.as_bytes());
        }
        note
    }

    /// Reads a descriptor back.
    ///
    /// # Errors
    /// Any [`NoteError`]; a hostile note never allocates more than its own length.
    pub fn decode(note: &[u8]) -> Result<Self, NoteError> {
        let mut input = Input(note);
        let version = input.u32()?;
        if version != VERSION {
            return Err(NoteError::Version(version));
        }
        let text_count = input.u32()?;
        let range_count = input.u64()?;
        let body_length = usize::try_from(range_count)
            .ok()
            .and_then(|count| count.checked_mul(RANGE_LENGTH))
            .ok_or(NoteError::Cut)?;
        let mut body = Input(input.take(body_length)?);
        let mut texts = Vec::new();
        for _ in 0..text_count {
            let length = usize::try_from(input.u32()?).map_err(|_| NoteError::Cut)?;
            let text = std::str::from_utf8(input.take(length)?).map_err(|_| NoteError::Damaged)?;
            texts.push(Arc::<str>::from(text));
        }
        let mut ranges = Vec::with_capacity(body_length / RANGE_LENGTH);
        while !body.0.is_empty() {
            let (start, length) = (body.u64()?, body.u64()?);
            let (kind, text, offset) = (body.u32()?, body.u32()?, body.u64()?);
            let text = usize::try_from(text).ok().and_then(|index| texts.get(index));
            let text = Arc::clone(text.ok_or(NoteError::Damaged)?);
            let content = match kind {
                0 => Content::Data,
                1 => Content::Zero,
                2 => Content::File { path: text, offset },
                3 => Content::Shared { member: text, offset },
                4 => Content::NotSaved { why: text, writable: offset & 1 != 0 },
                _ => return Err(NoteError::Damaged),
            };
            ranges.push(Range { start, length, content });
        }
        Ok(Self(ranges))
    }
}

/// Where a thread's registers in its `NT_PRSTATUS` come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterSource {
    /// Read with ptrace while the thread stood still: complete and consistent.
    Stopped,
    /// From `/proc/PID/task/TID/syscall` without stopping it: stack pointer, program counter and
    /// the system call's number and arguments; every other register is 0 and means nothing.
    SystemCallFile,
    /// Nothing could be read; all registers are 0 and mean nothing.
    None,
}

/// A thread's name and the trust in its registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadRecord {
    /// Its thread ID, as in the `NT_PRSTATUS` beside it.
    pub tid: u32,
    /// State letter of `/proc/PID/task/TID/stat` before the freeze, for instance `b'S'`.
    pub state: u8,
    /// Where its registers come from.
    pub registers: RegisterSource,
    /// Its name, at most 15 bytes.
    pub name: String,
}

impl ThreadRecord {
    /// The note's descriptor.
    pub fn encode(&self) -> Vec<u8> {
        let source = match self.registers {
            RegisterSource::Stopped => 0,
            RegisterSource::SystemCallFile => 1,
            RegisterSource::None => 2,
        };
        let mut note = Vec::with_capacity(10_usize.saturating_add(self.name.len()));
        note.extend_from_slice(&VERSION.to_le_bytes());
        note.extend_from_slice(&self.tid.to_le_bytes());
        note.extend_from_slice(&[self.state, source]);
        note.extend_from_slice(self.name.as_bytes());
        note
    }

    /// Reads a descriptor back.
    ///
    /// # Errors
    /// Any [`NoteError`].
    pub fn decode(note: &[u8]) -> Result<Self, NoteError> {
        let mut input = Input(note);
        let version = input.u32()?;
        if version != VERSION {
            return Err(NoteError::Version(version));
        }
        let tid = input.u32()?;
        let &[state, source] = input.take(2)? else { return Err(NoteError::Cut) };
        let registers = match source {
            0 => RegisterSource::Stopped,
            1 => RegisterSource::SystemCallFile,
            2 => RegisterSource::None,
            _ => return Err(NoteError::Damaged),
        };
        Ok(Self { tid, state, registers, name: String::from_utf8_lossy(input.0).into_owned() })
    }
}

/// What is left of a note.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], NoteError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(NoteError::Cut)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, NoteError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(NoteError::Cut)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*taken))
    }

    fn u64(&mut self) -> Result<u64, NoteError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(NoteError::Cut)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*taken))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Ranges {
        let file = |offset| Content::File { path: "/usr/sbin/kamailio".into(), offset };
        let shared = Content::Shared { member: "shared/00.01-7".into(), offset: 8192 };
        Ranges(vec![
            Range { start: 0x1000, length: 0x1000, content: file(0) },
            Range { start: 0x2000, length: 0x1000, content: Content::Data },
            Range { start: 0x3000, length: 0x5000, content: file(0x2000) },
            Range { start: 0x9000, length: 0x1000, content: Content::Zero },
            Range { start: 0xa000, length: 0x2000, content: shared },
            Range {
                start: 0xc000,
                length: 0x1000,
                content: Content::NotSaved { why: "a device".into(), writable: true },
            },
        ])
    }

    #[test]
    fn ranges_survive_the_round_trip() {
        assert_eq!(Ranges::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn a_cut_note_is_an_error_at_every_length() {
        let note = sample().encode();
        for length in 0..note.len() {
            assert!(Ranges::decode(&note[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_thread_record_survives_the_round_trip() {
        let record = ThreadRecord {
            tid: 4711,
            state: b'D',
            registers: RegisterSource::SystemCallFile,
            name: "kamailio".into(),
        };
        assert_eq!(ThreadRecord::decode(&record.encode()), Ok(record));
    }

    proptest! {
        #[test]
        fn hostile_notes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Ranges::decode(&bytes);
            let _ = ThreadRecord::decode(&bytes);
        }
    }
}
