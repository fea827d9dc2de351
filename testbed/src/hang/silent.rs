//! What a worker can wait for without end, until the value is dropped: then the worker goes on.

use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::kamailio::Instance;

/// A FIFO that nobody writes to.
#[derive(Debug)]
pub struct Fifo(PathBuf);

impl Fifo {
    /// The one that an instance's configuration names.
    #[track_caller]
    pub fn new(instance: &Instance) -> Self {
        let path = instance.directory().join("silent");
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        Self(path)
    }
}

impl Drop for Fifo {
    /// The reader meets the end of the file. Without a reader, nothing needs to be done.
    fn drop(&mut self) {
        let mut options = OpenOptions::new();
        drop(options.write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&self.0));
    }
}

/// A port whose queue of connections is full: a further one is neither accepted nor refused.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Port {
    /// Above the length of any queue that the standard library asks for.
    const MANY: usize = 5000;

    /// Listens, and connects until a connection is not answered.
    #[track_caller]
    pub fn full() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok();
        let queued: Vec<TcpStream> = (0..Self::MANY).map_while(|_| connect()).collect();
        assert!((1..Self::MANY).contains(&queued.len()), "the queue took {}", queued.len());
        Self { address, _listener: listener, _queued: queued }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
