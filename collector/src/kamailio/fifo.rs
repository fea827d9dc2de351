//! The jsonrpcs module on a FIFO.
//!
//! The server writes its reply into a second FIFO, in a folder of its own choice (`fifo_reply_dir`,
//! by default `/tmp`), and allows no `/` in that FIFO's name. So ours cannot lie in a folder of its
//! own; it gets a name that nobody can guess, only the server's user may write to it, only we hold
//! its reading end, and it is removed after the call. A name that exists is never used.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, chown, mkfifo};

use super::deadline::Deadline;
use super::listening;
use super::packet::{Answer, Question};
use super::transport::{Asked, LONGEST, invalid};
use crate::files::through;
use crate::procfs::Fields;

/// One call.
pub(super) fn call(
    asked: &Asked<'_>,
    path: &Path,
    replies: &Path,
    deadline: Deadline,
    question: &Question<'_>,
) -> io::Result<Answer> {
    let server = asked.root.find(path)?;
    if !fs::metadata(through(&server))?.file_type().is_fifo() {
        return Err(io::Error::other("it is no FIFO"));
    }
    let name = path.file_name().unwrap_or_else(|| OsStr::new(""));
    if !listening::holds(asked.ids, &server, name)? {
        return Err(io::Error::other("no process of the group has it open"));
    }
    // Without a reader this is an error at once, and no wait.
    let mut requests = open(&through(&server), false)?;
    let reply = Reply::create(&asked.root.find(replies)?, owner(asked))?;
    let request = question.json(Some(&reply.name));
    deadline.writable(&requests)?;
    // Shorter than what the kernel takes as a whole: no other client's request mixes with it.
    requests.write_all(&request)?;
    let text = reply.read(deadline)?;
    let answer = question.read_json(&text).map_err(invalid)?;
    answer.ok_or_else(|| invalid("an answer to another question"))
}

/// The user that the group's processes run as.
fn owner(asked: &Asked<'_>) -> Option<u32> {
    let last = asked.ids.last()?;
    let status = Fields::read(Path::new(&format!("/proc/{last}/status"))).ok()?;
    status.number("Uid").and_then(|uid| u32::try_from(uid).ok())
}

/// The FIFO for the reply; it goes with its value.
#[derive(Debug)]
struct Reply {
    name: String,
    path: PathBuf,
    file: File,
    /// Keeps `path` valid.
    _folder: OwnedFd,
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(fifo = self.name, %error, "left behind");
        }
    }
}

impl Reply {
    fn create(folder: &OwnedFd, owner: Option<u32>) -> io::Result<Self> {
        let name = format!("forensics-{:016x}{:016x}", random(), random());
        let folder = folder.as_fd().try_clone_to_owned()?;
        let path = through(&folder).join(&name);
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let reply = match open(&path, true) {
            Ok(file) => Self { name, path, file, _folder: folder },
            Err(error) => {
                fs::remove_file(&path)?;
                return Err(error);
            }
        };
        let owner = owner.map(Uid::from_raw).filter(|owner| *owner != Uid::effective());
        if let Some(owner) = owner {
            // Through the open file: whatever has the name by now is not touched.
            let own = reply.file.as_fd().try_clone_to_owned()?;
            chown(&through(&own), Some(owner), None::<Gid>)?;
        }
        Ok(reply)
    }

    /// All that is written until the writer closes it.
    fn read(&self, deadline: Deadline) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            deadline.readable(&self.file)?;
            match (&self.file).read(&mut buffer) {
                Ok(0) if text.is_empty() => deadline.pause()?,
                Ok(0) => return Ok(text),
                Ok(read) => text.extend(buffer.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if text.len() > LONGEST {
                return Err(invalid(format!("more than {LONGEST} bytes")));
            }
        }
    }
}

fn open(path: &Path, read: bool) -> io::Result<File> {
    let file = File::options().read(read).write(!read).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        Ok(file)
    } else {
        Err(io::Error::other("it is no FIFO any more"))
    }
}

/// A number that nobody outside of this process knows.
pub(super) fn random() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
