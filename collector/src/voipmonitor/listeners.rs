//! Who listens on which TCP port, from `/proc`: a configured port says nothing about who answers
//! there, since a sniffer whose port is taken waits for it for ever, and runs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::procfs;

/// How long the holder of a port is looked for among all processes.
const SEARCH: Duration = Duration::from_secs(2);

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its own address; `0.0.0.0` and `::` are every one.
    pub address: SocketAddr,
    /// Its number in the kernel.
    pub inode: u64,
}

impl Listener {
    /// Where to connect to from the same host.
    pub fn reach(self) -> SocketAddr {
        let ip = match self.address.ip() {
            IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            given => given,
        };
        SocketAddr::new(ip, self.address.port())
    }
}

/// A process that has a socket.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Holder {
    /// Its PID.
    pub pid: u32,
    /// The file name of its program, or its own name.
    pub program: String,
}

/// All listening TCP sockets in the network namespace of process `pid`.
pub fn all(pid: u32) -> Vec<Listener> {
    let mut found = Vec::new();
    for name in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
        found.extend(text.lines().skip(1).filter_map(parse));
    }
    found
}

/// The numbers of the sockets that a process has open.
///
/// # Errors
/// Its descriptors are not ours to look at.
pub fn sockets(pid: u32) -> io::Result<BTreeSet<u64>> {
    let folder = format!("/proc/{pid}/fd");
    fs::read_dir(&folder)?;
    let links = procfs::numbers_in(&folder).into_iter().filter_map(|number| {
        let link = fs::read_link(format!("{folder}/{number}")).ok()?;
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    });
    Ok(links.collect())
}

/// The process that has the socket `inode`; the search ends after two seconds.
pub fn holder(inode: u64) -> Option<Holder> {
    let begun = Instant::now();
    let mut pids = procfs::numbers_in("/proc").into_iter();
    let has = |pid: u32| sockets(pid).is_ok_and(|sockets| sockets.contains(&inode));
    let pid = pids.find(|pid| begun.elapsed() > SEARCH || has(*pid))?;
    if begun.elapsed() > SEARCH {
        return None;
    }
    Some(Holder { pid, program: program(pid) })
}

/// What a process runs, for a person.
fn program(pid: u32) -> String {
    let link = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    match link.file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm"))
            .unwrap_or_default()
            .trim()
            .to_owned(),
    }
}

/// A line of `/proc/PID/net/tcp` or `tcp6`, if it is of a listening socket (state 0A).
fn parse(line: &str) -> Option<Listener> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (&local, &state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?.parse().ok()?);
    if state != "0A" {
        return None;
    }
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Listener { address: SocketAddr::new(parse_ip(ip)?, port), inode })
}

/// Words of four bytes as this machine has them in memory, each in hexadecimal digits.
fn parse_ip(digits: &str) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    for at in (0..digits.len()).step_by(8) {
        let word = u32::from_str_radix(digits.get(at..at.checked_add(8)?)?, 16).ok()?;
        bytes.extend(word.to_le_bytes());
    }
    match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => Some(Ipv4Addr::from(four).into()),
        Err(_) => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn lines_of_listening_sockets_are_read() {
        let line = "   0: 0100007F:13A5 00000000:0000 0A 00000000:00000000 00:00000000 00000000     \
                    0        0 4711 1 0000000000000000 100 0 0 10 0";
        let found = parse(line).unwrap();
        assert_eq!((found.address, found.inode), ("127.0.0.1:5029".parse().unwrap(), 4711));
        let line6 = line.replace("0100007F", "00000000000000000000000001000000");
        assert_eq!(parse(&line6).unwrap().address, "[::1]:5029".parse().unwrap());
        assert_eq!(parse(&line.replace(" 0A ", " 01 ")), None);
        for bad in ["", "0: x", "0: 0100:13A5 0:0 0A 0 0 0 0 0 1", "0: 0100007F 0 0A 0 0 0 0 0 1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_socket_on_every_address_is_reached_on_this_host() {
        let reach = |text: &str| Listener { address: text.parse().unwrap(), inode: 1 }.reach();
        assert_eq!(reach("0.0.0.0:5029").to_string(), "127.0.0.1:5029");
        assert_eq!(reach("[::]:5029").to_string(), "[::1]:5029");
        assert_eq!(reach("10.1.2.3:5029").to_string(), "10.1.2.3:5029");
    }

    #[test]
    fn a_listener_of_ours_is_found_with_its_holder() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let own = std::process::id();
        let found = all(own).into_iter().find(|one| one.address == address).unwrap();
        assert!(sockets(own).unwrap().contains(&found.inode));
        assert_eq!(holder(found.inode).unwrap().pid, own);
        assert_eq!(holder(u64::MAX), None);
    }
}
