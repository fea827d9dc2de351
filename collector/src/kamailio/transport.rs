//! The ways to a Kamailio: one call, one connection, one deadline over all of it.
//!
//! Nothing here waits longer than the deadline or keeps more than [`LONGEST`] bytes, whatever the
//! other side does. Who listens on a unix socket is asked of the kernel before anything is sent.
//! Paths are resolved as the target sees them, and a path too long for an address is no obstacle:
//! sockets are reached through `/proc/self/fd`.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrLike,
    SockaddrStorage, UnixAddr, bind, connect, getsockopt, recv, recvmsg, send, sendto, setsockopt,
    socket, sockopt,
};

use super::binrpc;
use super::deadline::Deadline;
use super::endpoint::Endpoint;
use super::fifo;
use super::packet::{Answer, Language, Question};
use crate::files::{Root, through};

/// Bytes of an answer that are read at most.
pub(super) const LONGEST: usize = 4 << 20;
/// Bytes of the longest datagram: jsonrpcs has a buffer of 64 KiB, ctl one of 32 KiB by default.
const LONGEST_DATAGRAM: usize = 512 << 10;

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody of the group answers there at all.
    #[error("{0}")]
    Unreachable(String),
    /// It took the question, or might have, and did not answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// What came back is no answer.
    #[error("no answer but {0}")]
    Broken(String),
}

/// Who is asked.
#[derive(Clone, Debug)]
pub(super) struct Asked<'a> {
    /// Processes of the group; the first is asked about names and networks.
    pub(super) ids: &'a [u32],
    /// Files as it sees them.
    pub(super) root: &'a Root,
    /// How long one call may take.
    pub(super) patience: Duration,
}

impl Asked<'_> {
    /// One call.
    pub(super) fn call(
        &self,
        endpoint: &Endpoint,
        question: &Question<'_>,
    ) -> Result<Answer, Failure> {
        let deadline = Deadline::after(self.patience);
        let result = match endpoint {
            Endpoint::Stream(path) => self.unix_stream(path, deadline, question),
            Endpoint::Tcp(address) => self.tcp(*address, deadline, question),
            Endpoint::Datagram(path) => {
                self.unix_datagram(path, deadline, question, Language::Binary)
            }
            Endpoint::Json(path) => self.unix_datagram(path, deadline, question, Language::Json),
            Endpoint::Udp(address) => self.udp(*address, deadline, question),
            Endpoint::Fifo(path, replies) => fifo::call(self, path, replies, deadline, question),
        };
        result.map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::TimedOut => Failure::TimedOut(self.patience),
            io::ErrorKind::InvalidData => Failure::Broken(error.to_string()),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Failure::Broken("the end of the connection".into())
            }
            io::ErrorKind::ConnectionRefused => {
                Failure::Unreachable("nobody listens there any more (connection refused)".into())
            }
            // A FIFO without a reader.
            _ if error.raw_os_error() == Some(libc::ENXIO) => {
                Failure::Unreachable("nobody reads from it any more".into())
            }
            _ => Failure::Unreachable(error.to_string()),
        }
    }

    fn unix_stream(
        &self,
        path: &Path,
        deadline: Deadline,
        question: &Question<'_>,
    ) -> io::Result<Answer> {
        let place = self.socket_file(path)?;
        let connection = open(AddressFamily::Unix, SockType::Stream)?;
        connect_within(&connection, &UnixAddr::new(&through(&place))?, deadline)?;
        self.check_peer(&connection)?;
        exchange(&connection, deadline, question)
    }

    fn tcp(
        &self,
        address: SocketAddr,
        deadline: Deadline,
        question: &Question<'_>,
    ) -> io::Result<Answer> {
        self.enter_network()?;
        let connection = open(family(address), SockType::Stream)?;
        connect_within(&connection, &SockaddrStorage::from(address), deadline)?;
        exchange(&connection, deadline, question)
    }

    fn unix_datagram(
        &self,
        path: &Path,
        deadline: Deadline,
        question: &Question<'_>,
        language: Language,
    ) -> io::Result<Answer> {
        let place = self.socket_file(path)?;
        // Answers go to a name that the kernel chooses, which belongs to a network namespace.
        self.enter_network()?;
        let own = open(AddressFamily::Unix, SockType::Datagram)?;
        bind(own.as_raw_fd(), &UnixAddr::new_unnamed())?;
        setsockopt(&own, sockopt::PassCred, &true)?;
        // Not connected: jsonrpcs of some versions answers from another socket.
        let to = UnixAddr::new(&through(&place))?;
        let (answer, sender) = ask_in_datagrams(&own, Some(&to), deadline, question, language)?;
        self.check(sender.unwrap_or(0))?;
        Ok(answer)
    }

    fn udp(
        &self,
        address: SocketAddr,
        deadline: Deadline,
        question: &Question<'_>,
    ) -> io::Result<Answer> {
        self.enter_network()?;
        let own = open(family(address), SockType::Datagram)?;
        connect_within(&own, &SockaddrStorage::from(address), deadline)?;
        let to = None::<&SockaddrStorage>;
        let (answer, _) = ask_in_datagrams(&own, to, deadline, question, Language::Binary)?;
        Ok(answer)
    }

    fn socket_file(&self, path: &Path) -> io::Result<OwnedFd> {
        let found = self.root.find(path)?;
        if std::fs::metadata(through(&found))?.file_type().is_socket() {
            Ok(found)
        } else {
            Err(io::Error::other("it is no socket"))
        }
    }

    fn check_peer(&self, connection: &OwnedFd) -> io::Result<()> {
        let peer = getsockopt(connection, sockopt::PeerCredentials)?.pid();
        self.check(u32::try_from(peer).unwrap_or(0))
    }

    /// A path may have been bound anew by another instance: who called `listen`, or answers, must
    /// be ours, or have ended. 0 is a process that we cannot see.
    fn check(&self, peer: u32) -> io::Result<()> {
        if peer == 0 || self.ids.contains(&peer) || !Path::new(&format!("/proc/{peer}")).exists() {
            return Ok(());
        }
        Err(io::Error::other(format!("process {peer} answers there, which is not of the group")))
    }

    /// Lets this thread, and no other, see the network as the target does.
    fn enter_network(&self) -> io::Result<()> {
        let Some(id) = self.ids.first() else { return Err(io::ErrorKind::NotFound.into()) };
        let theirs = std::fs::File::open(format!("/proc/{id}/ns/net"))?;
        let ours = std::fs::metadata("/proc/thread-self/ns/net")?;
        let same = theirs.metadata()?;
        if (same.dev(), same.ino()) == (ours.dev(), ours.ino()) {
            return Ok(());
        }
        setns(&theirs, CloneFlags::CLONE_NEWNET).map_err(|error| {
            io::Error::other(format!("its network namespace cannot be entered: {error}"))
        })
    }
}

fn family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn open(family: AddressFamily, kind: SockType) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(family, kind, flags, None)?)
}

/// Connects; a full queue of a unix socket is waited for like the handshake of TCP.
fn connect_within(own: &OwnedFd, to: &dyn SockaddrLike, deadline: Deadline) -> io::Result<()> {
    loop {
        match connect(own.as_raw_fd(), to) {
            Ok(()) => return Ok(()),
            Err(nix::errno::Errno::EAGAIN) => deadline.pause()?,
            Err(nix::errno::Errno::EINTR) => {}
            Err(nix::errno::Errno::EINPROGRESS) => {
                deadline.writable(own)?;
                return match getsockopt(own, sockopt::SocketError)? {
                    0 => Ok(()),
                    error => Err(io::Error::from_raw_os_error(error)),
                };
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Question and answer over a connection of the ctl module.
fn exchange(
    connection: &OwnedFd,
    deadline: Deadline,
    question: &Question<'_>,
) -> io::Result<Answer> {
    let request = question.binary();
    let mut rest = request.as_slice();
    while !rest.is_empty() {
        deadline.writable(connection)?;
        match retry(send(connection.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL))? {
            Some(sent) => rest = rest.get(sent..).unwrap_or_default(),
            None => continue,
        }
    }
    let mut packet = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        if let Some(header) = binrpc::header(&packet).map_err(invalid)? {
            let length = header.length.saturating_add(header.payload);
            if length > LONGEST {
                return Err(invalid(format!("a packet of {length} bytes, as it says")));
            }
            if packet.len() >= length {
                let answer = question.read_binary(&packet).map_err(invalid)?;
                return answer.ok_or_else(|| invalid("an answer to another question"));
            }
        } else if packet.len() > binrpc::LONGEST_HEADER {
            return Err(invalid("a header without end"));
        }
        deadline.readable(connection)?;
        match retry(recv(connection.as_raw_fd(), &mut buffer, MsgFlags::empty()))? {
            Some(0) => return Err(io::ErrorKind::BrokenPipe.into()),
            Some(read) => packet.extend(buffer.get(..read).unwrap_or_default()),
            None => {}
        }
    }
}

/// Question and answer in a datagram each; datagrams that answer other questions are passed over.
/// Also who sent it, where the kernel says so.
fn ask_in_datagrams<A: SockaddrLike>(
    own: &OwnedFd,
    to: Option<&A>,
    deadline: Deadline,
    question: &Question<'_>,
    language: Language,
) -> io::Result<(Answer, Option<u32>)> {
    let request = match language {
        Language::Binary => question.binary(),
        Language::Json => question.json(None),
    };
    loop {
        let flags = MsgFlags::MSG_NOSIGNAL;
        let sent = match to {
            Some(to) => sendto(own.as_raw_fd(), &request, to, flags),
            None => send(own.as_raw_fd(), &request, flags),
        };
        match retry(sent)? {
            Some(_) => break,
            // The queue is full; the kernel does not say when it no longer is.
            None => deadline.pause()?,
        }
    }
    let mut buffer = vec![0; LONGEST_DATAGRAM];
    loop {
        deadline.readable(own)?;
        let Some((read, cut, sender)) = retry(receive(own, &mut buffer))? else { continue };
        if cut {
            return Err(invalid(format!("a datagram of more than {LONGEST_DATAGRAM} bytes")));
        }
        let datagram = buffer.get(..read).unwrap_or_default();
        let answer = match language {
            Language::Binary => question.read_binary(datagram),
            Language::Json => question.read_json(datagram),
        };
        if let Some(answer) = answer.map_err(invalid)? {
            return Ok((answer, sender));
        }
    }
}

/// One datagram: its length, whether it was longer, and who sent it.
fn receive(own: &OwnedFd, buffer: &mut [u8]) -> nix::Result<(usize, bool, Option<u32>)> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!(nix::sys::socket::UnixCredentials);
    let message =
        recvmsg::<()>(own.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let sender = message.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmCredentials(sender) => u32::try_from(sender.pid()).ok(),
        _ => None,
    });
    Ok((message.bytes, message.flags.contains(MsgFlags::MSG_TRUNC), sender))
}

pub(super) fn invalid(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

/// `None`: later.
pub(super) fn retry<T>(result: nix::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
