//! The sockets of a network namespace: `/proc/PID/net/{tcp,tcp6,udp,udp6,unix,netlink,packet}`.
//!
//! Addresses are words of the kernel's memory in hex: on the little-endian machines that this
//! program reads, four bytes of `0100007F` are 127.0.0.1, and an IPv6 address is four such words.
//! Ports are plain numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::thread_files::whole_lines;
use super::visible;

/// Kind of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP over IPv4 or IPv6.
    Tcp,
    /// UDP over IPv4 or IPv6.
    Udp,
    /// A stream between processes of the host.
    UnixStream,
    /// Datagrams between processes of the host.
    UnixDatagram,
    /// Packets in order between processes of the host.
    UnixPackets,
    /// To the kernel.
    Netlink,
    /// Raw packets of an interface.
    Packet,
}

impl Protocol {
    /// For a person.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::UnixStream => "unix stream socket",
            Self::UnixDatagram => "unix datagram socket",
            Self::UnixPackets => "unix packet socket",
            Self::Netlink => "netlink socket",
            Self::Packet => "packet socket",
        }
    }
}

/// A socket, as it was shortly after the freeze.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The number by which descriptors name it.
    pub inode: u64,
    /// Its kind.
    pub protocol: Protocol,
    /// Its own address.
    pub local: Option<SocketAddr>,
    /// Its peer's.
    pub peer: Option<SocketAddr>,
    /// The name of a unix socket; `@` begins an abstract one.
    pub path: Option<String>,
    /// The kernel's name of its state: of TCP, and `LISTEN` of unix sockets.
    pub state: Option<&'static str>,
    /// Bytes that were received and not yet read (for UDP with what the kernel needs to keep them);
    /// of a listening TCP socket the connections that wait to be accepted.
    pub receive_queue: Option<u64>,
    /// Bytes that were sent and, for TCP, not yet acknowledged.
    pub send_queue: Option<u64>,
    /// Datagrams that were dropped since it was opened, for want of room for one.
    pub drops: Option<u64>,
}

impl fmt::Display for Socket {
    /// `TCP 127.0.0.1:41232 → 127.0.0.1:3306, SYN_SENT`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.protocol.name())?;
        if let Some(local) = self.local {
            write!(f, " {local}")?;
        }
        if let Some(peer) = self.peer {
            write!(f, " → {peer}")?;
        }
        if let Some(path) = &self.path {
            write!(f, " {}", visible(path))?;
        }
        match self.state {
            Some(state) if state != "ESTABLISHED" => write!(f, ", {state}"),
            _ => Ok(()),
        }
    }
}

/// Reads a line of a table.
type Parser = fn(&str) -> Option<Socket>;

/// The tables that are read, and the parser of a line of each.
pub(super) const TABLES: [(&str, Parser); 7] = [
    ("tcp", |line| internet(line, Protocol::Tcp)),
    ("tcp6", |line| internet(line, Protocol::Tcp)),
    ("udp", |line| internet(line, Protocol::Udp)),
    ("udp6", |line| internet(line, Protocol::Udp)),
    ("unix", unix),
    ("netlink", netlink),
    ("packet", packet),
];

/// Those sockets of a table that are wanted; of two with one number the first.
pub(super) fn add_wanted(
    sockets: &mut BTreeMap<u64, Socket>,
    table: &str,
    parse: Parser,
    wanted: &BTreeSet<u64>,
) {
    // The first line names the columns.
    for socket in whole_lines(table).skip(1).filter_map(parse) {
        if wanted.contains(&socket.inode) {
            sockets.entry(socket.inode).or_insert(socket);
        }
    }
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …`,
/// of UDP then `ref pointer drops`.
fn internet(line: &str, protocol: Protocol) -> Option<Socket> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (send, receive) = fields.get(4)?.split_once(':')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let udp = protocol == Protocol::Udp;
    Some(Socket {
        inode: fields.get(9)?.parse().ok()?,
        protocol,
        local: Some(address(fields.get(1)?)?),
        peer: address(fields.get(2)?).filter(|peer| peer.port() != 0),
        path: None,
        state: if udp { None } else { tcp_state(hex(fields.get(3)?)?) },
        receive_queue: Some(hex(receive)?),
        send_queue: Some(hex(send)?),
        drops: fields.get(12).filter(|_| udp).and_then(|drops| drops.parse().ok()),
    })
}

/// `include/net/tcp_states.h`
fn tcp_state(number: u64) -> Option<&'static str> {
    const NAMES: [&str; 12] = [
        "ESTABLISHED",
        "SYN_SENT",
        "SYN_RECV",
        "FIN_WAIT1",
        "FIN_WAIT2",
        "TIME_WAIT",
        "CLOSE",
        "CLOSE_WAIT",
        "LAST_ACK",
        "LISTEN",
        "CLOSING",
        "NEW_SYN_RECV",
    ];
    NAMES.get(usize::try_from(number.checked_sub(1)?).ok()?).copied()
}

/// `0100007F:13C4`, or 32 hex digits before the colon.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits).ok()?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_le_bytes())
    };
    let words: Vec<[u8; 4]> = host.as_bytes().chunks(8).map(word).collect::<Option<_>>()?;
    let host = match (host.len(), words.as_slice()) {
        (8, &[word]) => IpAddr::from(Ipv4Addr::from(word)),
        (32, words) => {
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            IpAddr::from(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(host, port))
}

/// `Num: RefCount Protocol Flags Type St Inode [Path]`; a path may hold spaces.
fn unix(line: &str) -> Option<Socket> {
    const ACCEPTS: u64 = 1 << 16; // __SO_ACCEPTCON of Flags
    let mut rest = line;
    let mut next = || {
        let (field, tail) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
        rest = tail;
        field
    };
    let (_number, _references, _protocol) = (next(), next(), next());
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let (flags, kind, _state) = (hex(next())?, hex(next())?, next());
    let inode = next().parse().ok()?;
    let protocol = match kind {
        1 => Protocol::UnixStream,
        2 => Protocol::UnixDatagram,
        5 => Protocol::UnixPackets,
        _ => return None,
    };
    Some(Socket {
        path: (!rest.is_empty()).then(|| rest.to_owned()),
        state: (flags & ACCEPTS != 0).then_some("LISTEN"),
        ..Socket::new(inode, protocol)
    })
}

/// `sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode`
fn netlink(line: &str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Socket {
        receive_queue: number(4),
        send_queue: number(5),
        drops: number(8),
        ..Socket::new(number(9)?, Protocol::Netlink)
    })
}

/// `sk RefCnt Type Proto Iface R Rmem User Inode`
fn packet(line: &str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let socket = Socket::new(number(8)?, Protocol::Packet);
    Some(Socket { receive_queue: number(6), ..socket })
}

impl Socket {
    fn new(inode: u64, protocol: Protocol) -> Self {
        Self {
            inode,
            protocol,
            local: None,
            peer: None,
            path: None,
            state: None,
            receive_queue: None,
            send_queue: None,
            drops: None,
        }
    }
}
