//! Secrets of a real Kamailio: masked in every text, and in memory with `--redact-memory`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use bundle::{Header, Redaction, member};
use serde_json::Value;
use testbed::kamailio::{Instance, Options};
use testbed::seed::Seed;
use testbed::tools::{self, run};
use testbed::unpacked::Unpacked;
use testbed::{oracle, proc};

const LETTERS: &[u8] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// A password of letters and digits, and at least one of each.
fn password(seed: &mut Seed) -> String {
    let letters: String = (0..14).map(|_| char::from(seed.pick(LETTERS).unwrap())).collect();
    format!("x7{letters}Q")
}

/// The members of a bundle, modules apart, that hold these bytes.
fn members_with(bundle: &Unpacked, bytes: &str) -> Vec<String> {
    let members = bundle.manifest().members.into_iter().map(|member| member.path);
    let texts = members.chain([member::MANIFEST.to_owned()]);
    let holds = |path: &String| {
        let content = fs::read(bundle.path(path)).unwrap();
        !path.starts_with(member::MODULES)
            && content.windows(bytes.len()).any(|window| window == bytes.as_bytes())
    };
    texts.filter(holds).collect()
}

fn collect(instance: &Instance, path: &Path, arguments: &[&str]) -> String {
    let mut command = tools::collect_evidence();
    command.args(["--pid", &instance.main_pid().to_string(), "--sample-gap", "10"]);
    // The group stands still, so its interfaces would not answer.
    command.args(["--without", "kamailio-rpc", "--modules", "own"]).args(arguments);
    run(command.arg("-o").arg(path), tools::PATIENCE).expect(&[0, 1]).text()
}

fn header(bundle: &Unpacked) -> Header {
    serde_json::from_slice(&fs::read(bundle.path(member::HEADER)).unwrap()).unwrap()
}

/// Registers with credentials, so that they are in the receiver's buffer.
fn register(port: u16, response: &str) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let own = socket.local_addr().unwrap();
    let message = format!(
        "REGISTER sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK1\r\n\
         From: <sip:7@127.0.0.1>;tag=1\r\nTo: <sip:7@127.0.0.1>\r\nCall-ID: redact\r\n\
         CSeq: 1 REGISTER\r\nContact: <sip:7@{own}>\r\nAuthorization: Digest username=\"7\", \
         realm=\"r\", nonce=\"n\", uri=\"sip:r\", response=\"{response}\"\r\n\
         Content-Length: 0\r\n\r\n"
    );
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.send_to(message.as_bytes(), ("127.0.0.1", port)).unwrap();
    socket.recv(&mut [0; 2048]).expect("an answer to REGISTER");
}

#[test]
fn passwords_are_in_no_text_and_with_redact_memory_in_no_core() {
    let number = Seed::choose();
    println!("{}={number}", testbed::seed::VARIABLE);
    let mut seed = Seed::of(number, "redact");
    let (database, secret) = (password(&mut seed), password(&mut seed));
    let response = format!("{:016x}{:016x}", seed.number(), seed.number());
    let parameters = format!(
        "loadmodule \"auth.so\"\nmodparam(\"auth\", \"secret\", \"{secret}\")\n\
         modparam(\"usrloc\", \"db_url\", \"mysql://sip:{database}@127.0.0.1/kamailio\")\n\
         request_route {{"
    );
    let configuration =
        Options::default().configuration.replacen("request_route {", &parameters, 1);
    let options = Options { configuration: configuration.leak(), ..Options::default() };
    let instance = Instance::start(options);
    oracle::exercise(&instance, 500);
    register(instance.port(), &response);
    let scratch = tools::scratch("redact");
    let (plain, masked) = (scratch.join("plain.tar.zst"), scratch.join("masked.tar.zst"));
    proc::stop_all(instance.pids());
    let said = collect(&instance, &plain, &["--reason", &format!("password={database}")]);
    let said_masked = collect(&instance, &masked, &["--redact-memory"]);
    proc::continue_all(instance.pids());
    assert!(said.contains("they hold secrets"), "{said}");
    assert!(said_masked.contains("--redact-memory"), "{said_masked}");

    let (whole, redacted) = (Unpacked::open(&plain), Unpacked::open(&masked));
    assert!(header(&whole).scope.iter().any(|words| words.contains("hold secrets")));
    for text in [&database, &secret, &response] {
        let members = members_with(&whole, text);
        let is_memory = |path: &String| path.ends_with("/core") || path.starts_with("shared/");
        assert!(!members.is_empty(), "{text} is in the memory of the instance");
        assert!(members.iter().all(is_memory), "{text} is in {members:?}");
        assert_eq!(members_with(&redacted, text), [""; 0], "{text}");
    }
    let redactions = fs::read(redacted.path(member::REDACTIONS)).unwrap();
    let redactions: Vec<Redaction> = serde_json::from_slice(&redactions).unwrap();
    let rules = |path: &str| -> Vec<&str> {
        let own = redactions.iter().filter(|redaction| redaction.member.ends_with(path));
        own.map(|redaction| redaction.rule.as_str()).collect()
    };
    assert!(rules("kamailio.cfg").contains(&"url-password"), "{redactions:?}");
    assert!(rules("/core").contains(&"known-secret"), "{redactions:?}");
    assert!(rules("/core").contains(&"digest"), "{redactions:?}");
    for redaction in redactions.iter().filter(|redaction| redaction.member.ends_with("/core")) {
        let core = fs::read(redacted.path(&redaction.member)).unwrap();
        let at = usize::try_from(redaction.offset).unwrap();
        assert_eq!(core[at], b'*', "{redaction:?}");
    }

    let heap = |bundle: &Path| -> Value {
        let finished =
            run(tools::forensics().args(["heap", "--json"]).arg(bundle), tools::PATIENCE);
        finished.expect(&[0]).json::<Value>()["pools"].clone()
    };
    assert_eq!(heap(&plain), heap(&masked));
}
