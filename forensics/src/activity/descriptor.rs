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

#[cfg(test)]
mod tests {
    use super::*;

    /// Of Kamailio's TCP main process (5.6.3, Linux 6.18), shortened.
    const FD: &str = "\
0 -> /dev/null
3 -> socket:[4404202]
5 -> anon_inode:[eventpoll]
7 -> /run/jsonrpc.fifo
9 -> anon_inode:[timerfd]
251 -> pipe:[4404754]
";
    const FDINFO: &str = "\
0:
  pos:\t0
  flags:\t0100000
3:
  pos:\t0
  flags:\t04002
  ino:\t4404202
5:
  pos:\t0
  flags:\t02
  tfd:       12 events:     2019 data:     7fabd2d19838  pos:0 ino:4333f0 sdev:9
  tfd:        8 events:     2019 data:     7fabd2d197d8  pos:0 ino:433400 sdev:9
7:
  flags:\t0104001
9:
  clockid: 1
251:
  flags:\t0100000
";

    #[test]
    fn descriptors_are_told_by_their_targets() {
        let descriptors = parse(FD, Some(FDINFO));
        let told: Vec<(i32, String, Option<bool>)> = descriptors
            .values()
            .map(|found| (found.number, found.to_string(), found.nonblocking))
            .collect();
        let expected = [
            (0, "/dev/null", Some(false)),
            (3, "socket [4404202] that no table of the bundle has", Some(true)),
            (5, "epoll of 2 descriptors", Some(false)),
            (7, "/run/jsonrpc.fifo", Some(true)),
            (9, "timerfd", None),
            (251, "pipe 4404754", Some(false)),
        ];
        assert_eq!(told, expected.map(|(number, text, flag)| (number, text.to_owned(), flag)));
        assert_eq!(descriptors[&5].kind, DescriptorKind::Epoll { targets: vec![8, 12] });
        assert_eq!(descriptors[&251].kind, DescriptorKind::Pipe { inode: 4_404_754 });
        assert_eq!(socket_inode(&descriptors[&3].target), Some(4_404_202));
    }

    #[test]
    fn a_path_with_a_line_end_makes_no_descriptor() {
        let forged = "3 -> /tmp/x\n4 -> socket:[1]\n2 -> socket:[2]\n7 -> /run/jsonrpc.fifo\n";
        let numbers: Vec<i32> = parse(forged, Some(FDINFO)).into_keys().collect();
        assert_eq!(numbers, [3, 7]);
    }

    #[test]
    fn without_fdinfo_there_is_less_to_tell() {
        let descriptors = parse(FD, None);
        assert_eq!(descriptors.len(), 6);
        assert_eq!(descriptors[&5].kind, DescriptorKind::Epoll { targets: vec![] });
        assert_eq!(descriptors[&3].nonblocking, None);
    }

    #[test]
    fn a_line_that_was_cut_is_not_read() {
        let cut = &FD[..FD.len() - 3];
        assert!(!parse(cut, Some(FDINFO)).contains_key(&251));
        assert_eq!(parse("99999999999 -> /x\n-> /y\n4 -> z", None), Descriptors::new());
    }
}
