//! What payloads hold: SIP messages, Call-IDs, URIs, SDP, text, zeroes, and pointers to what.
//!
//! Reads bytes that the caller hands over, at most the first [`LOOK`] of each payload. Promises:
//! what is named was recognised by its form, which a [`Kind`] tells; time grows with the bytes that
//! are looked at, whatever they are. Values are shown masked unless the caller asks for them as they
//! are. Not for what a program means by a structure.
//!
//! `classify` names what one payload holds, with `sip` and `shape` for the forms of texts; `mask`
//! hides private parts; `group` counts over the fragments of one owner and size; `dump` writes
//! payloads to files.

mod classify;
mod dump;
mod group;
mod kind;
mod mask;
mod shape;
mod sip;
#[cfg(test)]
mod tests;

pub use classify::{Found, LOOK, classify, looks_like};
pub use dump::{DumpError, DumpOptions, DumpReport, Selected, dump};
pub use group::{Content, ContentGroup, Reader, Sizes, contents};
pub use kind::{Kind, Target};
pub use mask::{Shown, hex, quoted};
