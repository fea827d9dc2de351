//! A core on disk that is damaged and made sound again: the bytes of a few addresses change, and
//! no copy of the whole is written for it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::elf::{Content, Core};

/// Bytes to be written at an address.
pub type Patch = (u64, Vec<u8>);

/// A core file that may be changed.
#[derive(Debug)]
pub struct Patient {
    path: PathBuf,
    file: File,
    sound: Core,
}

/// Makes the core sound again when it goes.
#[derive(Debug)]
pub struct Wound<'a> {
    patient: &'a Patient,
    places: Vec<(u64, u64)>,
}

impl Patient {
    /// Opens a core, which must be sound.
    #[track_caller]
    pub fn open(path: &Path) -> Self {
        let sound = Core::open(path);
        let file = OpenOptions::new().write(true).open(path).unwrap();
        Self { path: path.to_owned(), file, sound }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file holds these bytes; pages of zeroes are not in it.
    pub fn holds(&self, address: u64, length: u64) -> bool {
        matches!(self.sound.at(address, length), Content::Bytes(_))
    }

    /// The bytes at an address while it is sound.
    #[track_caller]
    pub fn bytes(&self, address: u64, length: u64) -> &[u8] {
        match self.sound.at(address, length) {
            Content::Bytes(bytes) => bytes,
            other => panic!("{length} bytes at {address:#x} are not in the core: {other:?}"),
        }
    }

    /// The word at an address while it is sound.
    #[track_caller]
    pub fn word(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.bytes(address, 8).try_into().unwrap())
    }

    /// Where this word stands while it is sound.
    pub fn find(&self, word: u64) -> Vec<u64> {
        self.sound.find(&[word])
    }

    /// Overwrites memory until the wound is dropped.
    #[track_caller]
    pub fn hurt(&self, patches: &[Patch]) -> Wound<'_> {
        let mut wound = Wound { patient: self, places: Vec::new() };
        for (address, bytes) in patches {
            let length = u64::try_from(bytes.len()).unwrap();
            let offset = self.sound.offset(*address, length);
            self.file.write_all_at(bytes, offset).unwrap();
            wound.places.push((*address, length));
        }
        wound
    }
}

impl Drop for Wound<'_> {
    fn drop(&mut self) {
        for &(address, length) in &self.places {
            let offset = self.patient.sound.offset(address, length);
            let sound = self.patient.bytes(address, length);
            self.patient.file.write_all_at(sound, offset).unwrap();
        }
    }
}
