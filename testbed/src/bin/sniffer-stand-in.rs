//! Stands in for a VoIPmonitor sniffer: its manager's framing, dispatch, encryption and moods, with
//! recorded answers. Copied to a file named `voipmonitor`, it is taken for one.
//!
//! Like the real one it looks a command up by its first word, and runs the first of its names that
//! occurs anywhere in a text that it does not know. Every connection and every command that it runs
//! is a line in its log, so that a test sees what it was made to do.
//!
//! `--config-file FILE` names its configuration. Variables: `STAND_IN_ANSWERS`, folders with
//! `NAME.txt`, the first that has one wins; `STAND_IN_LOG`; `STAND_IN_MOOD`: `well`, `silent` (never
//! answers), `empty` (has not come to its main loop), `slow` (1.5 s); `STAND_IN_KEY` and
//! `STAND_IN_VECTOR`: the key that it demands, in hexadecimal.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a stand-in stops at the first surprise"
)]

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Names as the sniffer registers them: those with a recorded answer, and enough of the harmful ones.
const NAMES: &str = "alloc_trim blocktar cleanup_calls coutstr creategraph datadir_stat disk_io_calibration \
    disk_io_recalibrate expire_registers flush_tar get_sensor_information getbuild getversion \
    getverbuild hashtable_stats heapprof_start help hot_restart jemalloc_stat listcalls \
    listen manager_file memcrash_test_5 memory_stat packetbuffer_log packetbuffer_save \
    pcapstat printspool reload restart setverbparam sleepprocesspacket sniffer_stat \
    sniffer_threads syslogstr tcmalloc_stats terminating thread totalcalls totalregisters \
    upgrade usleep";

/// What is answered in plain text although there is a key.
const EXEMPT: &str = "getversion getbuild getverbuild totalcalls printspool sniffer_stat datadir_stat \
    disk_io_calibration disk_io_recalibrate sniffer_threads memory_stat jemalloc_stat \
    tcmalloc_stats thread usleep packetbuffer_log packetbuffer_save manager_file";

/// What all connections share.
struct Sniffer {
    answers: Vec<PathBuf>,
    log: Mutex<File>,
    mood: String,
    key: Option<(String, String)>,
    /// How often the threads were asked for, by session.
    sessions: Mutex<HashMap<String, u32>>,
}

/// A connection, of either kind.
trait Stream: Read + Write + Send {
    /// `None` waits for ever.
    fn wait_at_most(&self, time: Option<Duration>);
    fn kind(&self) -> &'static str;
}

impl Stream for std::net::TcpStream {
    fn wait_at_most(&self, time: Option<Duration>) {
        self.set_read_timeout(time).unwrap();
    }
    fn kind(&self) -> &'static str {
        "tcp"
    }
}

impl Stream for std::os::unix::net::UnixStream {
    fn wait_at_most(&self, time: Option<Duration>) {
        self.set_read_timeout(time).unwrap();
    }
    fn kind(&self) -> &'static str {
        "unix"
    }
}

fn main() {
    let config = configuration();
    let variable = |name: &str| std::env::var(name).unwrap();
    let log = OpenOptions::new().append(true).create(true).open(variable("STAND_IN_LOG")).unwrap();
    let key = std::env::var("STAND_IN_KEY").ok().map(|key| (key, variable("STAND_IN_VECTOR")));
    let sniffer = Arc::new(Sniffer {
        answers: variable("STAND_IN_ANSWERS").split(':').map(PathBuf::from).collect(),
        log: Mutex::new(log),
        mood: variable("STAND_IN_MOOD"),
        key,
        sessions: Mutex::default(),
    });
    if let Some(path) = config.get("managersocket")
        && let Ok(listener) = UnixListener::bind(path)
    {
        let sniffer = Arc::clone(&sniffer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (sniffer, stream) = (Arc::clone(&sniffer), stream.unwrap());
                std::thread::spawn(move || sniffer.serve(Box::new(stream)));
            }
        });
    }
    let address = format!("{}:{}", config["managerip"], config["managerport"]);
    let listener = TcpListener::bind(&address);
    println!("ready");
    // Where the port is taken, the sniffer tries for ever, and runs all the same.
    let Ok(listener) = listener else {
        loop {
            std::thread::park()
        }
    };
    for stream in listener.incoming() {
        let (sniffer, stream) = (Arc::clone(&sniffer), stream.unwrap());
        std::thread::spawn(move || sniffer.serve(Box::new(stream)));
    }
}

/// `key = value` lines of the file behind `--config-file`.
fn configuration() -> BTreeMap<String, String> {
    let mut words = std::env::args().skip_while(|word| word != "--config-file").skip(1);
    let text = fs::read_to_string(words.next().expect("a configuration")).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
}

impl Sniffer {
    fn serve(&self, mut stream: Box<dyn Stream>) {
        self.note(&format!("connection {}", stream.kind()));
        let request = receive(&mut *stream);
        match self.mood.as_str() {
            // Holds the connection, and a thread with it.
            "silent" => loop {
                std::thread::park();
            },
            "empty" => return,
            "slow" => std::thread::sleep(Duration::from_millis(1500)),
            _ => {}
        }
        let answer = self.answer(&request, stream.kind());
        // A client that has gone is no surprise.
        let _ = stream.write_all(&answer);
    }

    /// The answer to what was received, encrypted if the request was.
    fn answer(&self, request: &[u8], kind: &str) -> Vec<u8> {
        if let Some(cipher) = request.strip_prefix(b"aes-128-cbc:") {
            let cipher = cipher.strip_suffix(b":sea").expect("the end of encrypted text");
            return match self.cipher(&["-d"], cipher) {
                Some(text) => {
                    let answer = self.run(&text, true);
                    [b"aes:".to_vec(), self.cipher(&["-e"], &answer).unwrap()].concat()
                }
                None => b"failed aes decrypt!\n".to_vec(),
            };
        }
        self.run(request, kind == "unix" || self.key.is_none())
    }

    /// Runs a command; with `all`, also what is answered only encrypted.
    fn run(&self, text: &[u8], all: bool) -> Vec<u8> {
        let text = String::from_utf8_lossy(text);
        let text = text.split(['\r', '\n']).next().unwrap_or_default();
        let word = text.split([' ', '\t']).next().unwrap_or_default();
        let exact = NAMES.split(' ').find(|name| *name == word);
        let anywhere = || NAMES.split(' ').find(|name| text.contains(name));
        let Some(name) = exact.or_else(anywhere) else {
            self.note(&format!("unknown {text}"));
            return b"command not found\n".to_vec();
        };
        if !all && !EXEMPT.split(' ').any(|exempt| exempt == name) {
            self.note(&format!("refused {name}"));
            return b"need aes!\n".to_vec();
        }
        self.note(&format!("ran {name}: {text}"));
        let recorded = match name {
            "sniffer_stat" if text.contains("plain") => "sniffer_stat_plain".to_owned(),
            "get_sensor_information" => text.rsplit(' ').next().unwrap_or_default().to_owned(),
            "sniffer_threads" => self.threads(text),
            _ => name.to_owned(),
        };
        let file = format!("{recorded}.txt");
        let mut found = self.answers.iter().filter_map(|folder| fs::read(folder.join(&file)).ok());
        found.next().unwrap_or_default()
    }

    /// The record for this session's first question, or for a later one.
    fn threads(&self, text: &str) -> String {
        let session = text.split("uid=").nth(1).unwrap_or_default().to_owned();
        let mut sessions = self.sessions.lock().unwrap();
        let times = sessions.entry(session).or_default();
        *times += 1;
        if *times == 1 { "sniffer_threads".into() } else { "sniffer_threads.2".into() }
    }

    /// OpenSSL itself, as in the sniffer.
    fn cipher(&self, direction: &[&str], input: &[u8]) -> Option<Vec<u8>> {
        let (key, vector) = self.key.as_ref()?;
        let mut openssl = Command::new("openssl");
        openssl.args(["enc", "-aes-128-cbc", "-K", key, "-iv", vector]).args(direction);
        openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = openssl.spawn().expect("openssl is installed");
        let mut pipe = child.stdin.take().unwrap();
        let input = input.to_vec();
        std::thread::spawn(move || pipe.write_all(&input));
        let output = child.wait_with_output().unwrap();
        output.status.success().then_some(output.stdout)
    }

    fn note(&self, line: &str) {
        writeln!(self.log.lock().unwrap(), "{line}").unwrap();
    }
}

/// A request: at once if it holds the end mark; else after half a second in which nothing comes, or
/// at the end of what the client sends.
fn receive(stream: &mut dyn Stream) -> Vec<u8> {
    let mut buffer = [0; 4095];
    let length = stream.read(&mut buffer).unwrap_or(0);
    let mut request = buffer.get(..length).unwrap().to_vec();
    stream.wait_at_most(Some(Duration::from_millis(500)));
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => request.extend(buffer.get(..length).unwrap()),
        }
    }
    request
}
