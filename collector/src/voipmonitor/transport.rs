//! The ways to a sniffer's manager, best first.
//!
//! Its unix socket, which never wants encryption and never asks the database. Else TCP, at the
//! address and port where this very process listens: never at a configured port that somebody else
//! has. Nothing is connected to here.

use std::collections::BTreeSet;
use std::fs::{self, File};

use nix::sched::{CloneFlags, setns};

use super::config::Config;
use super::listeners::{self, Holder, Listener};
use super::manager::Place;
use crate::files::Root;

/// A way to ask.
#[derive(Debug)]
pub struct Way {
    /// Where.
    pub place: Place,
    /// Of which kind.
    pub kind: Kind,
    /// The same for a person: a path, or an address with its port.
    pub address: String,
    /// A process of the program.
    main: u32,
}

impl Way {
    /// Takes the calling thread to where the way begins: an address is another host's in another
    /// network namespace. Only for a thread that does nothing else afterwards.
    ///
    /// # Errors
    /// In words: the namespace cannot be entered.
    pub fn enter(&self) -> Result<(), String> {
        match self.kind {
            Kind::Unix => Ok(()),
            Kind::Tcp => enter_network(self.main),
        }
    }
}

/// A kind of connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A socket in the file system.
    Unix,
    /// TCP.
    Tcp,
}

/// A way that is none.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NoWay {
    /// Where it would have been.
    pub address: String,
    /// Why not.
    pub why: String,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Ways {
    /// Best first.
    pub ways: Vec<Way>,
    /// What is no way.
    pub none: Vec<NoWay>,
    /// The configured port, if somebody else has it, and who.
    pub held: Option<(u16, Option<Holder>)>,
}

/// All ways to the manager of the processes `pids`, of which `main` is the first.
pub fn find(files: &Root, config: &Config, main: u32, pids: &[u32]) -> Ways {
    let mut found = Ways::default();
    if let Some(path) = config.manager_socket() {
        let address = path.display().to_string();
        match files.find(path) {
            Ok(socket) => {
                let place = Place::Unix(socket, pids.to_vec());
                found.ways.push(Way { place, kind: Kind::Unix, address, main });
            }
            Err(error) => found.none.push(NoWay { address, why: error.to_string() }),
        }
    }
    let port = config.manager_port();
    let no_way = |why: &str| NoWay { address: format!("TCP port {port}"), why: why.into() };
    let sockets: Result<Vec<_>, _> = pids.iter().map(|pid| listeners::sockets(*pid)).collect();
    let Ok(sockets) = sockets else {
        let why = "the program's open files cannot be read, so who listens is not known";
        found.none.push(no_way(why));
        return found;
    };
    let own = sockets.into_iter().flatten().collect();
    let all = listeners::all(main);
    match choose(&all, &own, port, |port| config.names_port_otherwise(port)) {
        Port::Own(listener) => found.ways.push(Way {
            place: Place::Tcp(listener.reach()),
            kind: Kind::Tcp,
            address: listener.reach().to_string(),
            main,
        }),
        Port::Held(inode) => {
            let holder = listeners::holder(inode);
            let who = holder.as_ref().map_or("another process".into(), |holder| {
                format!("process {} ({})", holder.pid, holder.program)
            });
            found.none.push(no_way(&format!("{who} listens on it, not the program")));
            found.held = Some((port, holder));
        }
        Port::None if port == 0 => found.none.push(no_way("the manager is switched off")),
        Port::None => found.none.push(no_way("the program does not listen on it")),
    }
    found
}

/// Who has the manager's port.
#[derive(Debug, PartialEq, Eq)]
enum Port {
    /// The program, on this socket.
    Own(Listener),
    /// Somebody else, with this socket.
    Held(u64),
    /// Nobody, and the program listens nowhere else that could be it.
    None,
}

/// The program's own listener: that of the configured port, or, where nobody has that one, its only
/// one: the configuration may have changed since it started. Not one that is something else's.
fn choose(
    all: &[Listener],
    own: &BTreeSet<u64>,
    port: u16,
    is_otherwise: impl Fn(u16) -> bool,
) -> Port {
    let ours = |one: &&Listener| own.contains(&one.inode);
    let mut configured = all.iter().filter(|one| one.address.port() == port);
    if let Some(listener) = configured.clone().find(ours) {
        return Port::Own(*listener);
    }
    if let Some(other) = configured.next() {
        return Port::Held(other.inode);
    }
    let mut rest = all.iter().filter(ours).filter(|one| !is_otherwise(one.address.port()));
    match (rest.next(), rest.next()) {
        (Some(only), None) if port != 0 => Port::Own(*only),
        _ => Port::None,
    }
}

/// Takes the calling thread into the network of process `pid`, if that is another one.
fn enter_network(pid: u32) -> Result<(), String> {
    let theirs = format!("/proc/{pid}/ns/net");
    let (own, other) = (fs::read_link("/proc/thread-self/ns/net"), fs::read_link(&theirs));
    if matches!((own, other), (Ok(own), Ok(other)) if own == other) {
        return Ok(());
    }
    let namespace = File::open(&theirs);
    let entered = namespace.and_then(|file| Ok(setns(file, CloneFlags::CLONE_NEWNET)?));
    entered.map_err(|error| format!("the program's network namespace cannot be entered: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str, inode: u64) -> Listener {
        Listener { address: address.parse().unwrap(), inode }
    }

    #[test]
    fn the_port_is_asked_only_where_the_program_has_it() {
        let all = [
            listener("127.0.0.1:5029", 1),
            listener("127.0.0.1:6000", 2),
            listener("0.0.0.0:7000", 3),
        ];
        let choose = |own: &[u64], port: u16| {
            choose(&all, &own.iter().copied().collect(), port, |port| port == 7000)
        };
        assert_eq!(choose(&[1, 2], 5029), Port::Own(all[0]));
        assert_eq!(choose(&[2], 5029), Port::Held(1));
        assert_eq!(choose(&[2], 5030), Port::Own(all[1]));
        assert_eq!(choose(&[2, 3], 5030), Port::Own(all[1]));
        assert_eq!(choose(&[1, 2], 5030), Port::None);
        assert_eq!(choose(&[3], 5030), Port::None);
        assert_eq!(choose(&[2], 0), Port::None);
        assert_eq!(choose(&[], 5030), Port::None);
    }

    #[test]
    fn our_own_network_is_entered_already() {
        assert_eq!(enter_network(std::process::id()), Ok(()));
        assert!(enter_network(u32::MAX).is_err());
    }
}
