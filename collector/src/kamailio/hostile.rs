//! Servers that do harm, and what a call makes of them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;

use super::endpoint::Endpoint;
use super::packet::{Answer, Question};
use super::transport::{Asked, Failure};
use super::value::Value;
use crate::files::Root;

const PATIENCE: Duration = Duration::from_millis(400);

fn question() -> Question<'static> {
    Question { method: "core.version", arguments: &[], cookie: 0x0102_0304 }
}

/// One call, which must not take much longer than its deadline.
#[track_caller]
fn call(endpoint: &Endpoint) -> Result<Answer, Failure> {
    let root = Root::own();
    let asked = Asked { ids: &[std::process::id()], root: &root, patience: PATIENCE };
    let begun = Instant::now();
    let result = asked.call(endpoint, &question());
    let took = begun.elapsed();
    assert!(took < PATIENCE + Duration::from_secs(1), "{took:?}");
    result
}

fn place(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    (folder, path)
}

/// Answers one connection with `serve`, which is given it after the request was read.
#[track_caller]
fn call_stream(serve: impl FnOnce(&mut UnixStream) + Send + 'static) -> Result<Answer, Failure> {
    let (_folder, path) = place("ctl");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut request = [0; 64];
        assert!(connection.read(&mut request).unwrap() > 0);
        serve(&mut connection);
    });
    let result = call(&Endpoint::Stream(path));
    server.join().unwrap();
    result
}

/// Writes until the other side has enough.
fn write_without_end(connection: &mut UnixStream, piece: &[u8]) {
    while connection.write_all(piece).is_ok() {}
}

const ANSWER: &[u8] = b"\xa1\x13\x05\x01\x02\x03\x04\x41abc\x00";

fn abc() -> Result<Answer, Failure> {
    Ok(Answer::Value(Value::Text("abc".into())))
}

fn broken(why: &str) -> Result<Answer, Failure> {
    Err(Failure::Broken(why.into()))
}

fn timed_out() -> Result<Answer, Failure> {
    Err(Failure::TimedOut(PATIENCE))
}

#[test]
fn an_answer_may_come_in_pieces() {
    let slowly = |connection: &mut UnixStream| {
        for byte in ANSWER {
            connection.write_all(&[*byte]).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
    };
    assert_eq!(call_stream(slowly), abc());
}

#[test]
fn a_server_that_is_silent_or_slow_costs_one_deadline() {
    let silent = |_: &mut UnixStream| thread::sleep(PATIENCE * 2);
    assert_eq!(call_stream(silent), timed_out());
    // A byte now and then does not prolong it.
    let dripping = |connection: &mut UnixStream| {
        for byte in b"\xa1\x13\xff\x01\x02\x03\x04".iter().cycle().take(100) {
            if connection.write_all(&[*byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    };
    assert_eq!(call_stream(dripping), timed_out());
}

#[test]
fn lies_about_the_length_are_not_believed() {
    let huge = |connection: &mut UnixStream| {
        write_without_end(connection, b"\xa1\x1f\xff\xff\xff\xff\x01\x02\x03\x04");
    };
    assert_eq!(call_stream(huge), broken("a packet of 4294967305 bytes, as it says"));
    let ends = |connection: &mut UnixStream| connection.write_all(&ANSWER[..9]).unwrap();
    assert_eq!(call_stream(ends), broken("the end of the connection"));
    let nests = |connection: &mut UnixStream| {
        let nested = [b"\xa1\x17\x10\x00\x01\x02\x03\x04".to_vec(), vec![3; 4096]].concat();
        connection.write_all(&nested).unwrap();
    };
    assert_eq!(call_stream(nests), broken("values are nested too deeply"));
}

#[test]
fn other_languages_and_other_answers_are_told_apart() {
    let web = |connection: &mut UnixStream| write_without_end(connection, b"HTTP/1.1 400\r\n");
    assert_eq!(call_stream(web), broken("it does not begin like a packet of the ctl module"));
    let other = |connection: &mut UnixStream| {
        connection.write_all(b"\xa1\x13\x05\x09\x09\x09\x09\x41abc\x00").unwrap();
    };
    assert_eq!(call_stream(other), broken("an answer to another question"));
}

#[test]
fn a_socket_without_a_listener_is_not_there() {
    let (folder, path) = place("stale");
    drop(UnixListener::bind(&path).unwrap());
    let Err(Failure::Unreachable(why)) = call(&Endpoint::Stream(path)) else { panic!() };
    assert_eq!(why, "nobody listens there any more (connection refused)");
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let unreachable = |endpoint| matches!(call(&endpoint), Err(Failure::Unreachable(_)));
    assert!(unreachable(Endpoint::Stream(file.clone())));
    assert!(unreachable(Endpoint::Datagram(folder.path().join("missing"))));
    assert!(unreachable(Endpoint::Fifo(file, "/tmp".into())));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(unreachable(Endpoint::Tcp(port)));
}

#[test]
fn a_full_queue_of_connections_costs_one_deadline() {
    let (_folder, path) = place("full");
    let listener = UnixListener::bind(&path).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
    let _queued = [UnixStream::connect(&path).unwrap(), UnixStream::connect(&path).unwrap()];
    assert_eq!(call(&Endpoint::Stream(path)), timed_out());
}

#[test]
fn a_path_too_long_for_an_address_is_reached() {
    let (folder, _) = place("");
    let deep = folder.path().join("d".repeat(120));
    fs::create_dir(&deep).unwrap();
    let short = folder.path().join("ctl");
    let listener = UnixListener::bind(&short).unwrap();
    fs::rename(&short, deep.join("ctl")).unwrap();
    let server = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        connection.write_all(ANSWER).unwrap();
        assert!(connection.read(&mut [0; 64]).unwrap() > 0);
    });
    assert_eq!(call(&Endpoint::Stream(deep.join("ctl"))), abc());
    server.join().unwrap();
}

#[test]
fn foreign_datagrams_are_passed_over() {
    let (_folder, path) = place("datagrams");
    let socket = UnixDatagram::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (_, from) = socket.recv_from(&mut [0; 64]).unwrap();
        for answer in [&b"\xa1\x10\x00\x09"[..], ANSWER] {
            socket.send_to_addr(answer, &from).unwrap();
        }
    });
    assert_eq!(call(&Endpoint::Datagram(path)), abc());
    server.join().unwrap();

    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap();
    let flood = thread::spawn(move || {
        let (_, from) = udp.recv_from(&mut [0; 64]).unwrap();
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE * 2 {
            let _ = udp.send_to(b"\xa1\x10\x00\x09", from);
        }
    });
    assert_eq!(call(&Endpoint::Udp(address)), timed_out());
    flood.join().unwrap();
}

#[test]
fn an_answer_of_a_process_outside_of_the_group_is_no_answer() {
    let (_folder, path) = place("taken");
    let socket = UnixDatagram::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (_, from) = socket.recv_from(&mut [0; 64]).unwrap();
        socket.send_to_addr(ANSWER, &from).unwrap();
    });
    let (stream, listener) = place("stream");
    let _stream = stream;
    let _listener = UnixListener::bind(&listener).unwrap();
    let root = Root::own();
    // The group is another process; the answers come from this one.
    let mut group = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let ids = [group.id()];
    let asked = Asked { ids: &ids, root: &root, patience: PATIENCE };
    for endpoint in [Endpoint::Datagram(path), Endpoint::Stream(listener)] {
        let why =
            format!("process {} answers there, which is not of the group", std::process::id());
        assert_eq!(asked.call(&endpoint, &question()), Err(Failure::Unreachable(why)));
    }
    server.join().unwrap();
    group.kill().unwrap();
    group.wait().unwrap();
}

/// Serves one request on a FIFO of our own with `answer`; what the call makes of it.
fn call_fifo(answer: Option<&'static [u8]>) -> Result<Answer, Failure> {
    let (folder, path) = place("rpc.fifo");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    // As Kamailio does: its own writing end keeps the FIFO open.
    let mut requests = fs::File::options().read(true).write(true).open(&path).unwrap();
    let replies = folder.path().to_owned();
    let server = thread::spawn(move || {
        let mut request = [0; 4096];
        let length = requests.read(&mut request).unwrap();
        let request: serde_json::Value = serde_json::from_slice(&request[..length]).unwrap();
        let name = request["reply_name"].as_str().unwrap().to_owned();
        assert!(!name.contains(['/', '.']), "{name}");
        if let Some(answer) = answer {
            let mut reply = fs::File::options().write(true).open(replies.join(name)).unwrap();
            while reply.write_all(answer).is_ok() && answer.len() > 1000 {}
        }
        requests
    });
    let result = call(&Endpoint::Fifo(path, folder.path().to_owned()));
    let _requests = server.join().unwrap();
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "the FIFO for the reply is gone: {left:?}");
    result
}

#[test]
fn a_fifo_answers_is_silent_or_never_ends() {
    assert_eq!(call_fifo(Some(br#"{"result": "abc", "id": 16909060}"#)), abc());
    assert_eq!(call_fifo(None), timed_out());
    assert_eq!(call_fifo(Some(&[b'['; 1 << 16])), broken("more than 4194304 bytes"));
}

#[test]
fn a_fifo_without_a_reader_is_not_there() {
    let (folder, path) = place("stale.fifo");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    let result = call(&Endpoint::Fifo(path, folder.path().to_owned()));
    assert_eq!(result, Err(Failure::Unreachable("nobody reads from it any more".into())));
}
