//! The sockets of a network namespace: `/proc/PID/net/{tcp,tcp6,udp,udp6,raw,raw6,unix,netlink,packet}`.
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
    /// Packets of an interface.
    Packet,
    /// IP packets that the program makes by itself.
    Raw,
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
            Self::Raw => "raw socket",
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
pub(super) const TABLES: [(&str, Parser); 9] = [
    ("tcp", |line| internet(line, Protocol::Tcp)),
    ("tcp6", |line| internet(line, Protocol::Tcp)),
    ("udp", |line| internet(line, Protocol::Udp)),
    ("udp6", |line| internet(line, Protocol::Udp)),
    ("raw", raw),
    ("raw6", raw),
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

/// As for UDP, with the number of the protocol in place of the port.
fn raw(line: &str) -> Option<Socket> {
    let socket = internet(line, Protocol::Udp)?;
    Some(Socket { protocol: Protocol::Raw, local: None, peer: None, ..socket })
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
    pub(super) fn new(inode: u64, protocol: Protocol) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// All sockets of a table of one line.
    fn only(table: &str, line: &str) -> Option<Socket> {
        let (_, parse) = TABLES.into_iter().find(|(name, _)| *name == table).unwrap();
        let mut sockets = BTreeMap::new();
        let wanted = BTreeSet::from([1059, 4_405_280, 4_404_205, 4_404_203, 4_404_795, 563, 77]);
        add_wanted(&mut sockets, &format!("  sl  columns\n{line}\n"), parse, &wanted);
        assert!(sockets.len() < 2);
        sockets.into_values().next()
    }

    // The lines are those of a host with Kamailio 5.6.3 (Linux 6.18), but for the IPv6 ones.

    #[test]
    fn a_connection_that_is_not_answered_has_its_peer_and_state() {
        let line = "   6: 0100007F:A988 0100007F:A903 02 00000001:00000000 01:00000019 00000001     \
                    0        0 4405280 2 000000004c62a757 100 0 0 1 -1                   ";
        let socket = only("tcp", line).unwrap();
        assert_eq!(socket.to_string(), "TCP 127.0.0.1:43400 → 127.0.0.1:43267, SYN_SENT");
        assert_eq!((socket.send_queue, socket.receive_queue), (Some(1), Some(0)));
        assert_eq!(socket.drops, None);
    }

    #[test]
    fn a_listening_socket_has_no_peer() {
        let line = "   3: 00000000:07E8 00000000:0000 0A 00000000:00000007 00:00000000 00000000     \
                    0        0 1059 1 0000000072a903c4 100 0 0 10 0                      ";
        let socket = only("tcp", line).unwrap();
        assert_eq!(socket.to_string(), "TCP 0.0.0.0:2024, LISTEN");
        assert_eq!(socket.receive_queue, Some(7));
    }

    #[test]
    fn datagrams_that_wait_and_that_were_dropped_are_counted() {
        let line = "10271: 0100007F:3CD2 00000000:0000 07 00000000:00034000 00:00000000 00000000     \
                    0        0 4404205 2 0000000075cbfaa7 129";
        let socket = only("udp", line).unwrap();
        assert_eq!(socket.to_string(), "UDP 127.0.0.1:15570");
        assert_eq!((socket.receive_queue, socket.drops), (Some(212_992), Some(129)));
    }

    #[test]
    fn ipv6_addresses_are_four_words() {
        let line = "   0: B80D0120000000000000000001000000:13C4 0000000000000000FFFF00000100007F:0CEA \
                    01 00000000:00000000 00:00000000 00000000     0        0 77 1 0000000000000000 20";
        let socket = only("tcp6", line).unwrap();
        assert_eq!(socket.to_string(), "TCP [2001:db8::1]:5060 → [::ffff:127.0.0.1]:3306");
        assert_eq!(address(&"0".repeat(32)), None);
    }

    #[test]
    fn unix_sockets_have_names_or_none() {
        let listening =
            "00000000c72c119d: 00000002 00000000 00010000 0001 01 4404203 /run/a b.sock";
        let socket = only("unix", listening).unwrap();
        assert_eq!(socket.to_string(), "unix stream socket /run/a b.sock, LISTEN");
        let unnamed = "000000000d8dec0c: 00000003 00000000 00000000 0002 03 4404795";
        assert_eq!(only("unix", unnamed).unwrap().to_string(), "unix datagram socket");
    }

    #[test]
    fn netlink_and_packet_sockets_have_queues() {
        let line = "00000000c303b8a6 4   0          00000000 128      0        0     2        9        563     ";
        let socket = only("netlink", line).unwrap();
        assert_eq!((socket.receive_queue, socket.drops), (Some(128), Some(9)));
        let line = "00000000c303b8a6 3      3    0003   2     1 4096   0      77    ";
        let socket = only("packet", line).unwrap();
        assert_eq!(
            (socket.to_string().as_str(), socket.receive_queue),
            ("packet socket", Some(4096))
        );
    }

    #[test]
    fn a_raw_socket_has_a_protocol_and_no_port() {
        let line = "   17: 00000000:0011 00000000:0000 07 00000000:00000100 00:00000000 00000000     \
                    0        0 77 2 0000000000000000 3";
        let socket = only("raw", line).unwrap();
        assert_eq!(socket.to_string(), "raw socket");
        assert_eq!((socket.receive_queue, socket.drops), (Some(256), Some(3)));
    }

    #[test]
    fn a_line_that_is_cut_or_not_understood_gives_nothing() {
        let table = "  sl\n   3: 00000000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 \
                     00000000     0        0 1059";
        let mut sockets = BTreeMap::new();
        let wanted = BTreeSet::from([1059]);
        add_wanted(&mut sockets, table, TABLES[0].1, &wanted);
        assert_eq!(sockets, BTreeMap::new());
        let odd = "   3: 00000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 0 0 0 1059 1 0";
        assert_eq!(only("tcp", odd), None);
        assert_eq!(only("tcp", &odd.replace("00000:07E8", "é0000000:07E8")), None);
        assert_eq!(tcp_state(0), None);
        assert_eq!(tcp_state(13), None);
        assert_eq!(tcp_state(u64::MAX), None);
    }

    #[test]
    fn a_name_cannot_break_its_line() {
        let socket =
            Socket { path: Some("/a\nb\u{1b}[2J".into()), ..Socket::new(1, Protocol::UnixStream) };
        assert_eq!(socket.to_string(), "unix stream socket /a\\u{a}b\\u{1b}[2J");
    }
}
