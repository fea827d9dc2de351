//! What the `/proc` text of a bundle says of each process and thread: CPU time, state, system call,
//! open files and peers.
//!
//! Reads: the members below `processes/` as `docs/bundle-format.md` names them; every text is
//! hostile. Promises: what is missing, cut or cannot be is `None`, never 0; each figure says what it
//! is measured against. What a call waits on may need the process's memory (`poll`'s array), which
//! is read through [`Memory`](crate::memory::Memory) only. Not for judging: that a thread spins or
//! hangs is a rule's word.
//!
//! Order: `thread_files` (texts) → `cpu`, `system_call` → `thread`; `descriptor`, `socket` →
//! processes; `waiting` (what a call waits for) → `words`.

mod calls;
mod cpu;
mod descriptor;
mod process;
mod socket;
mod system_call;
mod thread;
mod thread_files;
mod waiting;
mod words;

pub use cpu::Cpu;
pub use descriptor::{Descriptor, DescriptorKind, Descriptors};
pub use process::{Activity, HeldSocket, ProcessActivity};
pub use socket::{Protocol, Socket};
pub use system_call::{InKernel, Progress, SystemCall};
pub use thread::{ThreadActivity, ThreadSample};
pub use thread_files::Switches;
pub use waiting::{FutexWait, Limit};

/// A text from the target with its control characters made visible, so that it stays one line.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::addr::{Addr, AddrRange};
    use crate::bytes::Blob;
    use crate::memory::{Content, Segment, SegmentMap};
    use crate::num::wide;

    /// These bytes at this address, and nothing else.
    pub(super) fn memory(start: u64, bytes: &[u8]) -> SegmentMap {
        SegmentMap::new(vec![Segment {
            range: AddrRange::new(Addr(start), wide(bytes.len())),
            writable: Some(true),
            content: Content::Bytes { blob: Blob::from_bytes(bytes.to_vec()), offset: 0 },
        }])
    }
}
