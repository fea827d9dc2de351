//! What a group of processes itself listens on, as the kernel's tables say.
//!
//! A socket belongs to the group if one of its processes has it open: a path or port in a
//! configuration says nothing about who answers there today.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::files::through;

/// Open files of one process that are looked at.
const MOST_FILES: usize = 100_000;

/// The named sockets of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listening {
    /// Unix sockets with a path.
    pub(crate) unix: Vec<UnixSocket>,
    /// Ports of TCP (listening) and UDP (not connected).
    pub(crate) ports: Vec<Port>,
}

/// A unix socket, as it was bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnixSocket {
    /// Its path, as its process sees it; relative if it was bound so.
    pub(crate) path: PathBuf,
    /// It takes connections; else datagrams.
    pub(crate) stream: bool,
}

/// A port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// UDP; else TCP.
    pub(crate) udp: bool,
    /// Where it is reached from this host: an unspecified address is replaced by loopback.
    pub(crate) address: SocketAddr,
}

impl Listening {
    /// Of the processes with these IDs; what cannot be read is nothing.
    pub(crate) fn of(ids: &[u32]) -> Self {
        let mut inodes = BTreeSet::new();
        for id in ids {
            for (_, leads_to) in open_files(*id) {
                let inode = leads_to.to_str().and_then(|text| text.strip_prefix("socket:["));
                let inode = inode.and_then(|text| text.strip_suffix(']')?.parse::<u64>().ok());
                inodes.extend(inode);
            }
        }
        let mut found = Self::default();
        for id in ids {
            let table = |name: &str| {
                let text = fs::read(format!("/proc/{id}/net/{name}")).unwrap_or_default();
                String::from_utf8_lossy(&text).into_owned()
            };
            let unix = table("unix");
            if unix.is_empty() {
                continue;
            }
            found.unix = unix_sockets(&unix, &inodes);
            for (name, udp) in [("tcp", false), ("tcp6", false), ("udp", true), ("udp6", true)] {
                found.ports.extend(ports(&table(name), udp, &inodes));
            }
            break;
        }
        found
    }
}

/// Whether one of the processes has the very file open that `found` is; `name` is its file name.
pub(super) fn holds(ids: &[u32], found: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    let wanted = fs::metadata(through(found))?;
    let same = |path: &Path| {
        let file = fs::metadata(path);
        file.is_ok_and(|file| (file.dev(), file.ino()) == (wanted.dev(), wanted.ino()))
    };
    // Only files of that name are looked at: asking others can take for ever.
    let mut files = ids.iter().flat_map(|id| open_files(*id));
    Ok(files.any(|(file, leads_to)| leads_to.file_name() == Some(name) && same(&file)))
}

/// The open files of a process: where they are in `/proc`, and where they lead.
fn open_files(id: u32) -> impl Iterator<Item = (PathBuf, PathBuf)> {
    let entries = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
    entries.take(MOST_FILES).filter_map(|entry| {
        let leads_to = fs::read_link(entry.path()).ok()?;
        Some((entry.path(), leads_to))
    })
}

/// `Num RefCount Protocol Flags Type St Inode Path`
fn unix_sockets(table: &str, inodes: &BTreeSet<u64>) -> Vec<UnixSocket> {
    const ACCEPTS_CONNECTIONS: u32 = 1 << 16;
    let socket = |line: &str| {
        let mut fields = line.splitn(8, ' ').filter(|field| !field.is_empty());
        let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
        let kind = u32::from_str_radix(fields.next()?, 16).ok()?;
        // The inode is padded with spaces, and a path may begin with one.
        let rest = fields.nth(1).map(str::trim_start)?;
        let (inode, path) = rest.split_once(' ').or_else(|| Some((rest, fields.next()?)))?;
        let stream = match kind {
            1 if flags & ACCEPTS_CONNECTIONS != 0 => true,
            2 => false,
            _ => return None,
        };
        let named = !path.is_empty() && !path.starts_with('@');
        (named && inodes.contains(&inode.parse().ok()?))
            .then(|| UnixSocket { path: path.into(), stream })
    };
    table.lines().skip(1).filter_map(socket).collect()
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`
fn ports(table: &str, udp: bool, inodes: &BTreeSet<u64>) -> Vec<Port> {
    // TCP_LISTEN; a UDP socket without a peer is in TCP_CLOSE.
    let state = if udp { "07" } else { "0A" };
    let port = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let inode = fields.get(9)?.parse().ok()?;
        let wanted = *fields.get(3)? == state && inodes.contains(&inode);
        let address = address(fields.get(1)?)?;
        wanted.then_some(Port { udp, address })
    };
    table.lines().skip(1).filter_map(port).collect()
}

/// `0100007F:13C4`: words of four bytes, each in this machine's order, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for word in address.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_le_bytes());
    }
    let address = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => IpAddr::from(four),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?),
    };
    let address = match address {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn our_own_sockets_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let [stream, datagram] = ["a socket", "datagram"].map(|name| folder.path().join(name));
        let _stream = UnixListener::bind(&stream).unwrap();
        let _datagram = UnixDatagram::bind(&datagram).unwrap();
        let tcp = TcpListener::bind("0.0.0.0:0").unwrap();
        let tcp6 = TcpListener::bind("[::1]:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let found = Listening::of(&[std::process::id()]);
        assert!(found.unix.contains(&UnixSocket { path: stream, stream: true }), "{found:?}");
        assert!(found.unix.contains(&UnixSocket { path: datagram, stream: false }), "{found:?}");
        let tcp = SocketAddr::from(([127, 0, 0, 1], tcp.local_addr().unwrap().port()));
        assert!(found.ports.contains(&Port { udp: false, address: tcp }), "{found:?}");
        let tcp6 = tcp6.local_addr().unwrap();
        assert!(found.ports.contains(&Port { udp: false, address: tcp6 }), "{found:?}");
        let udp = udp.local_addr().unwrap();
        assert!(found.ports.contains(&Port { udp: true, address: udp }), "{found:?}");
        // What others listen on is not ours.
        assert!(
            unix_sockets(&fs::read_to_string("/proc/net/unix").unwrap(), &BTreeSet::new())
                .is_empty()
        );
    }

    #[test]
    fn a_kernel_table_is_read() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 6149856 /run/kamailio_ctl\n\
            0000000000000000: 00000002 00000000 00000000 0002 01    57 /run/rpc.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 58 /run/connected\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 59 @abstract\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 60\nnonsense\n";
        let inodes = [6_149_856, 57, 58, 59, 60].into_iter().collect();
        let found = unix_sockets(table, &inodes);
        let expected = [("/run/kamailio_ctl", true), ("/run/rpc.sock", false)];
        assert_eq!(found, expected.map(|(path, stream)| UnixSocket { path: path.into(), stream }));
    }
}
