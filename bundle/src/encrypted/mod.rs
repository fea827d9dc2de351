//! Encrypted bundles: the whole file inside the age format, version 1 (<https://age-encryption.org/v1>),
//! for X25519 recipients (`age1…`) only. `age -d` opens them, too.
//!
//! age encrypts chunks of 64 KiB, each with a tag of its own, so a file that was cut is read up to
//! its last whole chunk. In a build without the feature `encrypt` every call here that would encrypt
//! or decrypt refuses in words; nothing falls back to plain text.

#[cfg(feature = "encrypt")]
mod with_age;
#[cfg(not(feature = "encrypt"))]
mod without;

use std::io;

use thiserror::Error;

#[cfg(feature = "encrypt")]
pub use with_age::{Decrypted, Encrypted, Identities, Recipients};
#[cfg(not(feature = "encrypt"))]
pub use without::{Decrypted, Encrypted, Identities, Recipients};

/// The first bytes of an age file.
const MAGIC: &[u8] = b"age-encryption.org/v1\n";
/// The first bytes of an age file in PEM armor.
const ARMOR: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
/// How a secret key begins.
#[cfg(feature = "encrypt")]
const SECRET: &str = "AGE-SECRET-KEY-";

/// Whether these first bytes of a file are those of an encrypted bundle.
pub fn is_encrypted(start: &[u8]) -> bool {
    start.starts_with(MAGIC)
}

/// Whether these first bytes are those of an age file as text, which nothing here reads.
pub fn is_armored(start: &[u8]) -> bool {
    start.starts_with(ARMOR)
}

/// Why nothing can be encrypted, or an identity cannot be used. Never holds a secret key's text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not a recipient.
    #[error(
        "{0:?} is not an age recipient of the kind age1… (X25519; SSH keys and plugins cannot be \
         used here)"
    )]
    NotARecipient(String),
    /// A secret key where a public one is wanted.
    #[error(
        "that is an identity, a secret key, and not a recipient: give the age1… that belongs to it \
         (age-keygen -y), and take care where the key has been seen now"
    )]
    Secret,
    /// Not an identity.
    #[error("line {0} is not an age identity of the kind AGE-SECRET-KEY-1…")]
    NotAnIdentity(usize),
    /// The identity file itself is encrypted.
    #[error("the identity file is encrypted itself; decrypt it first (age -d)")]
    EncryptedIdentity,
    /// A file without a single key.
    #[error("no key is in it")]
    Empty,
    /// Built without encryption.
    #[error("this build was made without encryption (the feature \"encrypt\")")]
    NotBuilt,
}

/// Why an encrypted file cannot be opened at all.
#[derive(Debug, Error)]
pub enum OpenError {
    /// No identity was given.
    #[error("it is encrypted; give the identity file that opens it with --identity")]
    NoIdentity,
    /// It was encrypted for others.
    #[error("it is encrypted, and for other recipients: none of the identities given opens it")]
    WrongIdentity,
    /// Its header is damaged or cut.
    #[error("it is encrypted, and its header is damaged or cut: {0}")]
    Damaged(String),
    /// Reading it failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Built without encryption.
    #[error("it is encrypted, and {0}", KeyError::NotBuilt)]
    NotBuilt,
}

/// The lines of a keys file that are neither empty nor comments, with their numbers from 1.
#[cfg(feature = "encrypt")]
fn keys(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().zip(1..).map(|(line, number)| (number, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}
