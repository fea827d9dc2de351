//! The open files of a process: the bundle's members `fd` and `fdinfo`.
//!
//! `fd` has a line `NUMBER -> TARGET` for each, by rising number. A path may hold line ends, so a
//! line counts only if its number is higher than the one before and known to `fdinfo`, whose
//! content the process does not choose.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::socket::Socket;
use super::thread_files::whole_lines;
use super::visible;

/// An open file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number.
    pub number: i32,
    /// What the kernel calls it: a path, `socket:[INODE]`, `pipe:[INODE]`, `anon_inode:[eventpoll]`.
    pub target: String,
    /// What it is.
    pub kind: DescriptorKind,
    /// Whether calls on it do not wait (`O_NONBLOCK`); `None` where `fdinfo` is missing.
    pub nonblocking: Option<bool>,
}

/// What a descriptor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescriptorKind {
    /// A path: a file, a directory, a device, a FIFO.
    File,
    /// A socket; `None` where no table of the bundle has it.
    Socket(Option<Socket>),
    /// A pipe; both ends of one have the same number.
    Pipe {
        /// The number.
        inode: u64,
    },
    /// A counter to wait for.
    EventCounter,
    /// Many descriptors to wait for at once.
    Epoll {
        /// Which, by rising number.
        targets: Vec<i32>,
    },
    /// Something else without a name of its own: a timer, signals, `inotify`, `io_uring`.
    Other,
}

/// Descriptors of a process by number.
pub type Descriptors = BTreeMap<i32, Descriptor>;

const O_NONBLOCK: u64 = 0o4000;

impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            DescriptorKind::Socket(Some(socket)) => socket.fmt(f),
            DescriptorKind::Socket(None) => {
                let number = self.target.trim_start_matches("socket:");
                write!(f, "socket {} that no table of the bundle has", visible(number))
            }
            DescriptorKind::Pipe { inode } => write!(f, "pipe {inode}"),
            DescriptorKind::EventCounter => f.write_str("eventfd"),
            DescriptorKind::Epoll { targets } => {
                write!(f, "epoll of {} descriptors", targets.len())
            }
            DescriptorKind::File => f.write_str(&visible(&self.target)),
            DescriptorKind::Other => {
                let name = self.target.strip_prefix("anon_inode:").unwrap_or(&self.target);
                f.write_str(&visible(name.trim_matches(['[', ']'])))
            }
        }
    }
}

/// Parses the two members; sockets are not yet looked up.
pub(super) fn parse(fd: &str, fdinfo: Option<&str>) -> Descriptors {
    let details = fdinfo.map(details);
    let mut descriptors = Descriptors::new();
    let mut last: Option<i32> = None;
    for line in whole_lines(fd) {
        let Some((number, target)) = line.split_once(" -> ") else { continue };
        let Ok(number) = number.parse::<i32>() else { continue };
        let detail = details.as_ref().map(|details| details.get(&number));
        if last.is_some_and(|last| number <= last) || matches!(detail, Some(None)) {
            continue;
        }
        last = Some(number);
        let detail = detail.flatten();
        descriptors.insert(
            number,
            Descriptor {
                number,
                target: target.to_owned(),
                kind: kind(target, detail),
                nonblocking: detail.and_then(|detail| Some(detail.flags? & O_NONBLOCK != 0)),
            },
        );
    }
    descriptors
}

/// The number of `socket:[NUMBER]`.
pub(super) fn socket_inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn kind(target: &str, detail: Option<&Detail>) -> DescriptorKind {
    if target.starts_with('/') {
        return DescriptorKind::File;
    }
    if socket_inode(target).is_some() {
        return DescriptorKind::Socket(None);
    }
    let pipe = target.strip_prefix("pipe:[").and_then(|rest| rest.strip_suffix(']'));
    if let Some(inode) = pipe.and_then(|inode| inode.parse().ok()) {
        return DescriptorKind::Pipe { inode };
    }
    match target {
        "anon_inode:[eventpoll]" => {
            let targets = detail.map(|detail| detail.targets.iter().copied().collect());
            DescriptorKind::Epoll { targets: targets.unwrap_or_default() }
        }
        "anon_inode:[eventfd]" => DescriptorKind::EventCounter,
        _ => DescriptorKind::Other,
    }
}

#[derive(Debug, Default)]
struct Detail {
    flags: Option<u64>,
    targets: BTreeSet<i32>,
}

/// `NUMBER:` and then the kernel's lines, two spaces before each.
fn details(fdinfo: &str) -> BTreeMap<i32, Detail> {
    let mut details: BTreeMap<i32, Detail> = BTreeMap::new();
    let mut current = None;
    for line in whole_lines(fdinfo) {
        let Some(line) = line.strip_prefix("  ") else {
            current = line.strip_suffix(':').and_then(|number| number.parse().ok());
            if let Some(number) = current {
                details.entry(number).or_default();
            }
            continue;
        };
        let Some(detail) = current.and_then(|number| details.get_mut(&number)) else { continue };
        if let Some(flags) = line.strip_prefix("flags:") {
            detail.flags = u64::from_str_radix(flags.trim(), 8).ok();
        } else if let Some(rest) = line.strip_prefix("tfd:") {
            let number = rest.split_ascii_whitespace().next();
            detail.targets.extend(number.and_then(|number| number.parse::<i32>().ok()));
        }
    }
    details
}
