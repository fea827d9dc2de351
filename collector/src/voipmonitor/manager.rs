//! One command, one connection: connect, send, read to the end.
//!
//! The answer has no length; its end is the end of the connection. With `\r\n\r\n` behind it a
//! command is run at once, without it after half a second. Connecting, sending and reading share
//! one deadline, and there is a most that is read. What came is kept, however it ended. Nothing is
//! tried twice here.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};

use super::aes::{self, Key};
use super::allowed::Command;
use crate::files;
use crate::number::bytes;

/// The end of a command.
const END: &str = "\r\n\r\n";

/// How an exchange ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The answer came, and its end.
    Answered,
    /// The connection was closed without a word: the main loop has not begun, or there is nothing
    /// to say.
    Empty,
    /// More came than is kept.
    Cut,
    /// It did not end in time.
    TimedOut,
    /// The manager wants it encrypted (`need aes!`).
    NeedsAes,
    /// The manager could not decrypt it: another key (`failed aes decrypt!`).
    KeyRefused,
    /// The manager does not know it (`command not found`).
    Unknown,
    /// The answer was encrypted with another key.
    NotDecrypted,
    /// Nobody took the connection, or the wrong one did; nothing was sent.
    Unreachable(String),
    /// The connection broke.
    Broken(String),
}

/// What came of one command.
#[derive(Debug)]
pub struct Answer {
    /// How it ended.
    pub outcome: Outcome,
    /// The answer as the manager meant it: decrypted if it was encrypted.
    pub content: Vec<u8>,
    /// From connecting to the end.
    pub took: Duration,
}

/// Where the manager is.
#[derive(Debug)]
pub enum Place {
    /// A socket in the file system (`O_PATH`), and the processes of which one must have it.
    Unix(OwnedFd, Vec<u32>),
    /// An address.
    Tcp(SocketAddr),
}

/// Bounds of an exchange.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From connecting to the end of the answer.
    pub deadline: Duration,
    /// Bytes of the answer that are kept.
    pub most: u64,
}

/// Sends a command and reads its answer.
pub fn ask(place: &Place, command: Command, key: Option<&Key>, bounds: Bounds) -> Answer {
    let begun = Instant::now();
    let end = begun + bounds.deadline;
    let mut content = Vec::new();
    let outcome = match Connection::open(place, end) {
        Err(error) if is_time_out(&error) => Outcome::TimedOut,
        Err(error) => Outcome::Unreachable(error.to_string()),
        Ok(connection) => {
            match exchange(connection, command, key, end, bounds.most, &mut content) {
                Ok(true) => classify(&mut content, key),
                Ok(false) => Outcome::Cut,
                Err(error) if is_time_out(&error) => Outcome::TimedOut,
                Err(error) => Outcome::Broken(error.to_string()),
            }
        }
    };
    Answer { outcome, content, took: begun.elapsed() }
}

/// Whether the answer came to its end.
fn exchange(
    mut connection: Connection,
    command: Command,
    key: Option<&Key>,
    end: Instant,
    most: u64,
    content: &mut Vec<u8>,
) -> io::Result<bool> {
    let line = command.text() + END;
    let request = key.map_or_else(|| line.clone().into_bytes(), |key| key.request(&line));
    connection.send(&request, end)?;
    if key.is_some() {
        // The end mark of encrypted text is not waited for, but the end of what we send is.
        connection.finish()?;
    }
    let mut buffer = vec![0; 64 << 10];
    while bytes(content.len()) < most {
        let length = match connection.receive(&mut buffer, end) {
            Ok(0) => return Ok(true),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        content.extend(buffer.get(..length).unwrap_or_default());
    }
    Ok(false)
}

/// What a whole answer means; decrypts it.
fn classify(content: &mut Vec<u8>, key: Option<&Key>) -> Outcome {
    if aes::is_encrypted(content) {
        let Some(open) = key.and_then(|key| key.open(content)) else {
            return Outcome::NotDecrypted;
        };
        *content = open;
    }
    match content.trim_ascii_end() {
        b"" => Outcome::Empty,
        b"need aes!" => Outcome::NeedsAes,
        b"failed aes decrypt!" => Outcome::KeyRefused,
        b"command not found" => Outcome::Unknown,
        _ => Outcome::Answered,
    }
}

/// A full backlog counts as well: nobody takes the connection.
fn is_time_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// A connection of either kind.
enum Connection {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Connection {
    fn open(place: &Place, end: Instant) -> io::Result<Self> {
        match place {
            Place::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, left(end)?)?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Place::Unix(path, owners) => Ok(Self::Unix(connect_unix(path, owners)?)),
        }
    }

    fn send(&mut self, request: &[u8], end: Instant) -> io::Result<()> {
        let left = Some(left(end)?);
        match self {
            Self::Unix(stream) => {
                stream.set_write_timeout(left)?;
                stream.write_all(request)
            }
            Self::Tcp(stream) => {
                stream.set_write_timeout(left)?;
                stream.write_all(request)
            }
        }
    }

    fn finish(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    fn receive(&mut self, buffer: &mut [u8], end: Instant) -> io::Result<usize> {
        let left = Some(left(end)?);
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(left)?;
                stream.read(buffer)
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(left)?;
                stream.read(buffer)
            }
        }
    }
}

/// Connects without waiting for a place in the backlog, and only to one of `owners`: the file may
/// be another process's by now.
fn connect_unix(path: &OwnedFd, owners: &[u32]) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new(&files::through(path))?;
    match socket::connect(stream.as_raw_fd(), &address) {
        Ok(()) => {}
        Err(Errno::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
        Err(error) => return Err(error.into()),
    }
    let peer = socket::getsockopt(&stream, socket::sockopt::PeerCredentials)?.pid();
    if !u32::try_from(peer).is_ok_and(|peer| owners.contains(&peer)) {
        return Err(io::Error::other(format!("process {peer} listens on it, not the program")));
    }
    let stream = UnixStream::from(stream);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// The time until `end`.
fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;

    const BOUNDS: Bounds = Bounds { deadline: Duration::from_millis(400), most: 1000 };

    /// A server of one connection: reads a line, then does as told. Gives the line.
    fn serve(then: impl FnOnce(&mut TcpStream) + Send + 'static) -> (Place, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = Place::Tcp(listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            then(&mut stream);
            line
        });
        (place, server)
    }

    fn answer(said: &'static [u8]) -> Answer {
        let (place, server) = serve(move |stream| stream.write_all(said).unwrap());
        let answer = ask(&place, Command::TotalCalls, None, BOUNDS);
        assert_eq!(server.join().unwrap(), "totalcalls\r\n");
        answer
    }

    #[test]
    fn an_answer_ends_with_the_connection() {
        let five = answer(b"5785");
        assert_eq!((five.outcome, five.content.as_slice()), (Outcome::Answered, &b"5785"[..]));
        assert_eq!(answer(b"").outcome, Outcome::Empty);
        assert_eq!(answer(b"need aes!\n").outcome, Outcome::NeedsAes);
        assert_eq!(answer(b"failed aes decrypt!\n").outcome, Outcome::KeyRefused);
        assert_eq!(answer(b"command not found\n").outcome, Outcome::Unknown);
        assert_eq!(answer(b"aes:0123456789abcdef").outcome, Outcome::NotDecrypted);
    }

    #[test]
    fn more_than_is_kept_is_cut() {
        let (place, server) = serve(|stream| {
            let piece = [b'x'; 4096];
            while stream.write_all(&piece).is_ok() {}
        });
        let cut = ask(&place, Command::Calls, None, BOUNDS);
        assert_eq!(cut.outcome, Outcome::Cut);
        assert!(cut.content.len() >= 1000 && cut.content.len() <= 1000 + (64 << 10));
        server.join().unwrap();
    }

    #[test]
    fn one_deadline_holds_for_an_answer_that_comes_in_drops() {
        let (place, server) = serve(|stream| {
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let late = ask(&place, Command::TotalCalls, None, BOUNDS);
        assert_eq!(late.outcome, Outcome::TimedOut);
        assert!(late.took >= BOUNDS.deadline && late.took < BOUNDS.deadline * 2, "{late:?}");
        assert!(!late.content.is_empty());
        server.join().unwrap();
    }

    #[test]
    fn nobody_there_is_no_time_out() {
        let place = serve(|_| {}).0;
        let Place::Tcp(address) = place else { unreachable!() };
        let closed = SocketAddr::new("127.0.0.2".parse().unwrap(), address.port());
        let refused = ask(&Place::Tcp(closed), Command::Version, None, BOUNDS);
        assert!(matches!(refused.outcome, Outcome::Unreachable(_)), "{refused:?}");
    }

    #[test]
    fn only_the_program_itself_is_spoken_to_at_its_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manager");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let found = || files::Root::own().find(&path).unwrap();
        let other = ask(&Place::Unix(found(), vec![1]), Command::Version, None, BOUNDS);
        let words = format!("process {} listens on it, not the program", std::process::id());
        assert_eq!(other.outcome, Outcome::Unreachable(words));
        let server = std::thread::spawn(move || {
            listener.accept().unwrap();
            let mut stream = listener.accept().unwrap().0;
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            stream.write_all(line.as_bytes()).unwrap();
            drop(stream);
            listener
        });
        let own = Place::Unix(found(), vec![std::process::id()]);
        assert_eq!(ask(&own, Command::Version, None, BOUNDS).content, b"getverbuild\r\n");
        drop(server.join().unwrap());
        let stale = ask(&own, Command::Version, None, BOUNDS);
        assert!(matches!(stale.outcome, Outcome::Unreachable(_)), "{stale:?}");
    }
}
