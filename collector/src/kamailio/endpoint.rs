//! Where a Kamailio can be asked, best first.
//!
//! What the configuration names is compared with what the group itself listens on; only that is
//! ever asked. A host's name in the configuration is not looked up: the port is enough to know the
//! group's own socket, and the address comes from the kernel.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::files::{Configuration, Started, absolute};
use super::listening::{Listening, UnixSocket};

/// Where Kamailio keeps its sockets if it is not told.
const RUN_DIRECTORIES: [&str; 3] = ["/var/run/kamailio", "/run/kamailio", "/tmp"];
const DEFAULT_PORT: u16 = 2049;

/// A place that answers, in the order in which they are preferred: connections before datagrams,
/// the ctl module before jsonrpcs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Endpoint {
    /// The ctl module on a unix stream socket.
    Stream(PathBuf),
    /// The ctl module on a unix datagram socket.
    Datagram(PathBuf),
    /// The ctl module on TCP.
    Tcp(SocketAddr),
    /// The ctl module on UDP.
    Udp(SocketAddr),
    /// The jsonrpcs module on a unix datagram socket.
    Json(PathBuf),
    /// The jsonrpcs module on a FIFO; replies go to another one in the second path.
    Fifo(PathBuf, PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(path) => write!(f, "ctl unix:{}", path.display()),
            Self::Datagram(path) => write!(f, "ctl unixd:{}", path.display()),
            Self::Tcp(address) => write!(f, "ctl tcp:{address}"),
            Self::Udp(address) => write!(f, "ctl udp:{address}"),
            Self::Json(path) => write!(f, "jsonrpcs datagram socket {}", path.display()),
            Self::Fifo(path, _) => write!(f, "jsonrpcs FIFO {}", path.display()),
        }
    }
}

/// The places to ask, and those that the configuration names and this group does not listen on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// Best first. Whether a FIFO is the group's own is not known yet.
    pub(crate) usable: Vec<Endpoint>,
    /// As the configuration says.
    pub(crate) stale: Vec<String>,
}

impl Endpoints {
    /// Finds them.
    pub(crate) fn find(
        started: &Started,
        configuration: &Configuration,
        listening: &Listening,
    ) -> Self {
        let given = [&configuration.run_directory, &started.run_directory];
        let given =
            given.into_iter().flatten().map(|folder| started.working_directory.join(folder));
        let mut finder = Finder {
            run_directories: given.chain(RUN_DIRECTORIES.map(PathBuf::from)).collect(),
            listening,
            found: Self::default(),
        };
        finder.add_configured(configuration);
        finder.add_defaults(configuration);
        finder.found.usable.sort();
        finder.found.usable.dedup();
        finder.add_unknown(configuration);
        finder.found
    }
}

struct Finder<'a> {
    run_directories: Vec<PathBuf>,
    listening: &'a Listening,
    found: Endpoints,
}

impl Finder<'_> {
    fn add_configured(&mut self, configuration: &Configuration) {
        for parameter in &configuration.parameters {
            let found = match (parameter.module.as_str(), parameter.name.as_str()) {
                ("ctl", "binrpc") => self.ctl(&parameter.value),
                ("jsonrpcs", "dgram_socket") => self.unix(&parameter.value, false, Endpoint::Json),
                _ => continue,
            };
            if found.is_empty() {
                self.found.stale.push(parameter.value.clone());
            }
            self.found.usable.extend(found);
        }
    }

    fn add_defaults(&mut self, configuration: &Configuration) {
        let last = |name: &str| {
            let mut parameters = configuration.parameters.iter().rev();
            let one = parameters.find(|one| one.module == "jsonrpcs" && one.name == name);
            one.map(|one| one.value.clone())
        };
        let fifo = last("fifo_name").unwrap_or_else(|| "kamailio_rpc.fifo".into());
        let replies = PathBuf::from(last("fifo_reply_dir").unwrap_or_else(|| "/tmp".into()));
        let fifos = self.places(Path::new(&fifo)).into_iter();
        let mut found: Vec<_> = fifos.map(|path| Endpoint::Fifo(path, replies.clone())).collect();
        found.extend(self.unix("kamailio_ctl", true, Endpoint::Stream));
        found.extend(self.unix("kamailio_rpc.sock", false, Endpoint::Json));
        self.found.usable.extend(found);
    }

    /// The group's own sockets that the configuration does not name in words that we understand.
    fn add_unknown(&mut self, configuration: &Configuration) {
        let used = |socket: &UnixSocket| {
            let place = absolute(&socket.path);
            let other = configuration
                .parameters
                .iter()
                .any(|one| one.value.ends_with(&*place.to_string_lossy()));
            other
                || self.found.usable.iter().any(|endpoint| match endpoint {
                    Endpoint::Stream(path) | Endpoint::Datagram(path) | Endpoint::Json(path) => {
                        *path == place
                    }
                    _ => false,
                })
        };
        let unknown = self.listening.unix.iter().filter(|socket| socket.path.is_absolute());
        let mut found: Vec<Endpoint> = unknown
            .filter(|socket| !used(socket))
            .map(|socket| {
                let path = absolute(&socket.path);
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                match socket.stream {
                    true => Endpoint::Stream(path),
                    false if name.contains("rpc") => Endpoint::Json(path),
                    false => Endpoint::Datagram(path),
                }
            })
            .collect();
        found.sort();
        found.dedup();
        // A FIFO stays the last of all.
        let fifos = self.found.usable.iter().position(|one| matches!(one, Endpoint::Fifo(..)));
        let at = fifos.unwrap_or(self.found.usable.len());
        self.found.usable.splice(at..at, found);
    }

    /// `[tcp|udp|unix|unixs|unixd:]path`, `…:host:port`, `…:port` or `…:host`
    fn ctl(&self, value: &str) -> Vec<Endpoint> {
        let (kind, place) = match value.split_once(':') {
            Some((kind, place)) if is_kind(kind) => (kind.to_ascii_lowercase(), place),
            _ if value.contains('/') => ("unix".to_owned(), value),
            _ => ("udp".to_owned(), value),
        };
        match kind.as_str() {
            "unix" | "unixs" => self.unix(place, true, Endpoint::Stream),
            "unixd" => self.unix(place, false, Endpoint::Datagram),
            kind => {
                let port = place.rsplit(':').next().and_then(|port| port.parse().ok());
                let port: u16 = port.unwrap_or(DEFAULT_PORT);
                let (udp, endpoint): (_, fn(SocketAddr) -> Endpoint) =
                    if kind == "udp" { (true, Endpoint::Udp) } else { (false, Endpoint::Tcp) };
                let ports = self.listening.ports.iter();
                let ours = ports.filter(|one| one.udp == udp && one.address.port() == port);
                ours.map(|one| endpoint(one.address)).collect()
            }
        }
    }

    /// Where this path leads to a socket of the group.
    fn unix(&self, path: &str, stream: bool, endpoint: fn(PathBuf) -> Endpoint) -> Vec<Endpoint> {
        let bound = |place: &PathBuf| {
            let mut sockets = self.listening.unix.iter().filter(|one| one.stream == stream);
            // A socket bound by a relative name is only known by that name.
            sockets.any(|one| absolute(&one.path) == *place || one.path == Path::new(path))
        };
        self.places(Path::new(path)).into_iter().filter(bound).map(endpoint).collect()
    }

    /// Where a path may lead: relative ones begin in the run directory.
    fn places(&self, path: &Path) -> Vec<PathBuf> {
        if path.is_absolute() {
            return vec![absolute(path)];
        }
        let mut places: Vec<PathBuf> =
            self.run_directories.iter().map(|folder| absolute(&folder.join(path))).collect();
        places.dedup();
        places
    }
}

fn is_kind(word: &str) -> bool {
    ["tcp", "udp", "unix", "unixs", "unixd"].iter().any(|kind| word.eq_ignore_ascii_case(kind))
}

#[cfg(test)]
mod tests {
    use super::super::configuration::Parameter;
    use super::super::listening::Port;
    use super::*;

    fn find(
        parameters: &[(&str, &str, &str)],
        unix: &[(&str, bool)],
        ports: &[(bool, &str)],
    ) -> Endpoints {
        let parameter = |(module, name, value): &(&str, &str, &str)| Parameter {
            module: (*module).into(),
            name: (*name).into(),
            value: (*value).into(),
        };
        let configuration = Configuration {
            parameters: parameters.iter().map(parameter).collect(),
            run_directory: Some("/run/k".into()),
            ..Configuration::default()
        };
        let listening = Listening {
            unix: unix
                .iter()
                .map(|(path, stream)| UnixSocket { path: path.into(), stream: *stream })
                .collect(),
            ports: ports
                .iter()
                .map(|(udp, address)| Port { udp: *udp, address: address.parse().unwrap() })
                .collect(),
        };
        Endpoints::find(&Started::default(), &configuration, &listening)
    }

    /// All but FIFOs, of which nothing is known yet.
    fn words(endpoints: &Endpoints) -> Vec<String> {
        let found = endpoints.usable.iter().filter(|one| !matches!(one, Endpoint::Fifo(..)));
        found.map(Endpoint::to_string).collect()
    }

    #[test]
    fn connections_come_before_datagrams_and_ctl_before_jsonrpcs() {
        let endpoints = find(
            &[
                ("jsonrpcs", "dgram_socket", "/run/k/rpc.sock"),
                ("jsonrpcs", "fifo_name", "rpc.fifo"),
                ("ctl", "binrpc", "udp:localhost:2046"),
                ("ctl", "binrpc", "TCP:2047"),
                ("ctl", "binrpc", "unixd:/run/k/d"),
                ("ctl", "binrpc", "/run/k/s"),
            ],
            &[("/run/k/rpc.sock", false), ("/run/k/d", false), ("/run/k/s", true)],
            &[(true, "10.0.0.1:2046"), (false, "[::1]:2047"), (false, "10.0.0.1:5060")],
        );
        assert_eq!(
            words(&endpoints),
            [
                "ctl unix:/run/k/s",
                "ctl unixd:/run/k/d",
                "ctl tcp:[::1]:2047",
                "ctl udp:10.0.0.1:2046",
                "jsonrpcs datagram socket /run/k/rpc.sock",
            ]
        );
        let fifo = Endpoint::Fifo("/run/k/rpc.fifo".into(), "/tmp".into());
        assert_eq!(endpoints.usable.get(5), Some(&fifo));
        assert!(endpoints.stale.is_empty());
    }

    #[test]
    fn what_others_listen_on_is_not_asked() {
        let parameters = [("ctl", "binrpc", "unix:/run/other"), ("ctl", "binrpc", "tcp:*:2046")];
        let endpoints =
            find(&parameters, &[], &[(false, "127.0.0.1:5060"), (true, "127.0.0.1:2046")]);
        assert_eq!(words(&endpoints), Vec::<String>::new());
        assert_eq!(endpoints.stale, ["unix:/run/other", "tcp:*:2046"]);
    }

    #[test]
    fn defaults_and_unnamed_sockets_are_found() {
        let endpoints = find(
            &[("ctl", "fifo", "unix:/run/k/old")],
            &[
                ("/run/k/kamailio_ctl", true),
                ("/x/rpc", false),
                ("/x/s", true),
                ("/run/k/old", true),
            ],
            &[],
        );
        assert_eq!(
            words(&endpoints),
            ["ctl unix:/run/k/kamailio_ctl", "ctl unix:/x/s", "jsonrpcs datagram socket /x/rpc"]
        );
        assert!(endpoints.stale.is_empty());
    }
}
