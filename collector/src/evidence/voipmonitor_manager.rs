//! What a running sniffer says of itself: answers of its manager, one command at a time.
//!
//! Members: `voipmonitor/manager/NAME.txt`, each answer byte for byte; `voipmonitor/manager.json`,
//! how it was asked: every command with its outcome and times, and what was not asked and why.
//!
//! After the first time-out nothing more is sent, and no other connection is opened: with a dead
//! database each one leaves a thread of the sniffer spinning at a lock.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use bundle::Phase;
use serde::Serialize;

use super::{Context, Drawer, Preview, Source};
use crate::board::{Board, Fact};
use crate::number::{bytes, human};
use crate::procfs::Fields;
use crate::voipmonitor::aes::Key;
use crate::voipmonitor::allowed::{Command, Session};
use crate::voipmonitor::config::Config;
use crate::voipmonitor::manager::{self, Bounds, Outcome};
use crate::voipmonitor::transport::{self, Kind, NoWay, Way, Ways};
use crate::voipmonitor::{command_line, installed, threads};

/// Bytes of an answer that are kept: the calls of a busy sniffer may have more.
const MOST: u64 = 32 << 20;
/// Between the two looks at the threads.
const GAP: Duration = Duration::from_millis(2500);

/// The source.
#[derive(Debug)]
pub(crate) struct VoipmonitorManager;

/// `voipmonitor/manager.json`
#[derive(Debug, Default, Serialize)]
struct Record {
    /// How the manager was reached; null if it was not.
    transport: Option<Transport>,
    /// Ways that were none, in the order in which they were looked at.
    no_way: Vec<NoWay>,
    /// Every command that was sent, or was to be sent first on a way.
    exchanges: Vec<Exchange>,
    /// Between the two questions for the threads, in milliseconds.
    threads_gap_ms: Option<u64>,
    /// What was not sent.
    not_asked: Vec<NotAsked>,
}

#[derive(Debug, Serialize)]
struct Transport {
    kind: Kind,
    address: String,
}

#[derive(Debug, Serialize)]
struct Exchange {
    command: String,
    /// The member with the answer; null if nothing came.
    member: Option<String>,
    encrypted: bool,
    outcome: Outcome,
    /// When it began: wall clock with zone.
    started: String,
    /// From connecting to the end, in microseconds.
    micros: u64,
    /// Length of the answer, decrypted.
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct NotAsked {
    command: String,
    why: String,
}

impl Source for VoipmonitorManager {
    fn name(&self) -> &'static str {
        "voipmonitor-manager"
    }

    fn about(&self) -> &'static str {
        "what the sniffer's manager answers to read-only commands"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn preview(&self, context: &Context) -> Vec<Preview> {
        let Ways { ways, none, .. } = find(context, &read_config(context));
        let preview = |what: String, missing| Preview { what, size: None, missing };
        let ways = ways.into_iter().map(|way| preview(format!("manager at {}", way.address), None));
        let none = none.into_iter();
        let none = none.map(|one| preview(format!("manager at {}", one.address), Some(one.why)));
        ways.chain(none).collect()
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let mut record = Record::default();
        ask(context, out, &mut record);
        out.put("voipmonitor/manager.json".into(), None, serde_json::to_vec_pretty(&record)?);
        Ok(())
    }
}

fn read_config(context: &Context) -> Config {
    Config::read(&context.files, &command_line(context.target.main))
}

fn find(context: &Context, config: &Config) -> Ways {
    let pids: Vec<u32> = context.target.processes.iter().map(|process| process.pid).collect();
    transport::find(&context.files, config, context.target.main, &pids)
}

/// Asks everything, as far as it goes.
fn ask(context: &Context, out: &Drawer, record: &mut Record) {
    if let Some(process) = context.target.processes.iter().find(|process| process.was_stopped) {
        let why = format!("process {} was stopped (state T), so nobody would answer", process.pid);
        out.left_out("answers of the manager", &why);
        record.leave_out(Command::all(Session::new()), &why);
        return;
    }
    let config = read_config(context);
    let Ways { ways, none, held } = find(context, &config);
    for one in &none {
        tracing::info!(address = one.address, why = one.why, "no way to the manager");
    }
    record.no_way = none;
    if let Some((port, Some(holder))) = held {
        let program = holder.program;
        context.board.note(Fact::PortHeldBy { port, pid: holder.pid, program });
    }
    let status = Path::new("/proc").join(context.target.main.to_string()).join("status");
    let caution = Caution {
        rrdtool: config.switch("rrd") != Some(false) && !installed(&context.files, "rrdtool"),
        broken_pipe: dies_of_broken_pipe(&Fields::read(&status).unwrap_or_default()),
    };
    for way in ways {
        if let Err(why) = way.enter() {
            record.no_way.push(NoWay { address: way.address, why });
            continue;
        }
        let key = key_for(&way, &config);
        let mut asking = Asking {
            way: &way,
            key: key.as_ref(),
            caution,
            out,
            record,
            board: &context.board,
            threads: None,
            refused: Vec::new(),
        };
        if asking.ask_all() {
            return;
        }
    }
    let reasons = record.no_way.iter().map(|one| format!("{}: {}", one.address, one.why));
    let why = reasons.collect::<Vec<_>>().join("; ");
    if config.manager_port() == 0 && config.manager_socket().is_none() {
        out.left_out("answers of the manager", &why);
    } else {
        out.gap("answers of the manager", &why);
    }
    record.leave_out(Command::all(Session::new()), "there is no way to the manager");
}

/// The configured key, where it is wanted: never on a unix socket.
fn key_for(way: &Way, config: &Config) -> Option<Key> {
    if way.kind == Kind::Unix || config.switch("manager_enable_unencrypted") == Some(true) {
        return None;
    }
    Key::from_base64(config.text("manager_aes_key")?, config.text("manager_aes_iv")?)
}

/// Whether writing to a connection that we have closed would end a process with this `status`: it
/// neither ignores SIGPIPE nor catches it.
fn dies_of_broken_pipe(status: &Fields) -> bool {
    let bit = 1_u64 << (libc::SIGPIPE - 1);
    let has = |key| status.mask(key).is_some_and(|mask| mask & bit != 0);
    !has("SigIgn") && !has("SigCgt")
}

/// What is dangerous on this host.
#[derive(Clone, Copy, Debug)]
struct Caution {
    /// Some commands would start `rrdtool`, which is not there: each a fork of the whole program.
    rrdtool: bool,
    /// An answer to nobody would end the program.
    broken_pipe: bool,
}

impl Caution {
    fn why_not(self, command: Command) -> Option<&'static str> {
        if self.rrdtool && command.may_start_rrdtool() {
            return Some(
                "the sniffer would fork to look for rrdtool, which is not installed (rrd is not \
                 switched off)",
            );
        }
        if self.broken_pipe && command.takes_locks() {
            return Some(
                "it may wait for a lock, and answering after we have gone would end the program, \
                 which does not ignore SIGPIPE",
            );
        }
        None
    }
}

/// One way, being asked.
struct Asking<'a> {
    way: &'a Way,
    key: Option<&'a Key>,
    caution: Caution,
    out: &'a Drawer,
    board: &'a Board,
    record: &'a mut Record,
    /// When the threads were asked for the first time.
    threads: Option<Instant>,
    /// Commands that are answered only encrypted.
    refused: Vec<&'static str>,
}

impl Asking<'_> {
    /// Asks everything; false if this way leads nowhere, and another one may be tried.
    fn ask_all(&mut self) -> bool {
        let mut commands: VecDeque<Command> = Command::all(Session::new()).into();
        let mut reached = false;
        let mut silent = true;
        while let Some(command) = commands.pop_front() {
            if self.out.is_given_up() {
                return true;
            }
            if let Some(why) = self.caution.why_not(command) {
                self.record.leave_out([command], why);
                self.out.left_out(answer_to(command), why);
                continue;
            }
            let outcome = self.ask_one(command);
            silent &= outcome == Outcome::Empty;
            match outcome {
                Outcome::Unreachable(why) if !reached => {
                    let address = self.way.address.clone();
                    self.record.no_way.push(NoWay { address, why });
                    return false;
                }
                Outcome::TimedOut => {
                    self.give_up(command, commands);
                    return true;
                }
                Outcome::KeyRefused | Outcome::NotDecrypted if self.key.is_some() => {
                    // Without a key, some commands are answered all the same.
                    self.key = None;
                    self.out.gap("encrypted answers of the manager", "it has another key");
                    commands.push_front(command);
                }
                outcome => self.say(command, outcome),
            }
            reached = true;
        }
        if !self.refused.is_empty() {
            let what = format!("manager's answer to {}", self.refused.join(", "));
            self.out.gap(what, "it is given only encrypted, and the configuration has no key");
        }
        if silent {
            let why = "it says nothing: the program has not come to its main loop";
            self.out.gap("answers of the manager", why);
        }
        true
    }

    /// Says what is missing of an answer.
    fn say(&mut self, command: Command, outcome: Outcome) {
        match outcome {
            Outcome::NeedsAes => self.refused.push(command.name()),
            Outcome::Unreachable(why) | Outcome::Broken(why) => {
                self.out.gap(answer_to(command), why);
            }
            Outcome::Cut => {
                let why = format!("it is longer than {} ({MOST} bytes)", human(MOST));
                self.out.gap(format!("the end of the {}", answer_to(command)), why);
            }
            Outcome::NotDecrypted => {
                self.out.gap(answer_to(command), "it came encrypted with another key");
            }
            _ => {}
        }
    }

    /// Waits, if it is the second question for the threads; whether it is.
    fn wait_for_second(&mut self, command: Command) -> bool {
        if !matches!(command, Command::Threads(_)) {
            return false;
        }
        let Some(first) = self.threads else {
            self.threads = Some(Instant::now());
            return false;
        };
        std::thread::sleep((first + GAP).saturating_duration_since(Instant::now()));
        self.record.threads_gap_ms = u64::try_from(first.elapsed().as_millis()).ok();
        true
    }

    /// Asks one command and puts its answer in.
    fn ask_one(&mut self, command: Command) -> Outcome {
        let second = self.wait_for_second(command);
        let started = jiff::Zoned::now().to_string();
        let bounds = Bounds { deadline: command.deadline(), most: MOST };
        let answer = manager::ask(&self.way.place, command, self.key, bounds);
        let outcome = answer.outcome;
        if !matches!(outcome, Outcome::Unreachable(_)) {
            let (kind, address) = (self.way.kind, self.way.address.clone());
            self.record.transport.get_or_insert(Transport { kind, address });
        }
        let number = if second { ".2" } else { "" };
        let member = format!("voipmonitor/manager/{}{number}.txt", command.name());
        let text = command.text();
        tracing::info!(command = text, ?outcome, took = ?answer.took, "manager");
        self.record.exchanges.push(Exchange {
            command: text.clone(),
            member: Some(member.clone()).filter(|_| !answer.content.is_empty()),
            encrypted: self.key.is_some(),
            outcome: outcome.clone(),
            started,
            micros: u64::try_from(answer.took.as_micros()).unwrap_or(u64::MAX),
            bytes: bytes(answer.content.len()),
        });
        if let Command::Threads(_) = command {
            self.board.note_thread_roles(threads::roles(&answer.content));
        }
        if !answer.content.is_empty() {
            self.out.put(member, Some(format!("{}: {text}", self.way.address)), answer.content);
        }
        outcome
    }

    /// Nothing more is sent.
    fn give_up(&mut self, command: Command, rest: VecDeque<Command>) {
        let seconds = command.deadline().as_secs();
        let why = format!(
            "no answer from {} within {seconds} s; nothing more was sent to it",
            self.way.address
        );
        self.out.gap(format!("{} and all that follows", answer_to(command)), &why);
        let why = format!("{} was not answered within {seconds} s", command.name());
        self.record.leave_out(rest, &why);
    }
}

fn answer_to(command: Command) -> String {
    format!("manager's answer to {}", command.name())
}

impl Record {
    fn leave_out(&mut self, commands: impl IntoIterator<Item = Command>, why: &str) {
        let not_asked = commands
            .into_iter()
            .map(|command| NotAsked { command: command.text(), why: why.to_owned() });
        self.not_asked.extend(not_asked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ignores_or_catches_the_signal_survives_a_broken_pipe() {
        let status = |ignored: &str, caught: &str| {
            Fields::parse(&format!("SigIgn:\t{ignored}\nSigCgt:\t{caught}\n"))
        };
        assert!(!dies_of_broken_pipe(&status("0000000000001000", "0000000000000000")));
        assert!(!dies_of_broken_pipe(&status("0000000000000000", "0000000180001000")));
        assert!(dies_of_broken_pipe(&status("0000000000000800", "0000000180000000")));
        assert!(dies_of_broken_pipe(&Fields::default()));
    }

    #[test]
    fn what_is_dangerous_on_this_host_is_not_asked() {
        let caution = |rrdtool, broken_pipe| Caution { rrdtool, broken_pipe };
        let asked = |caution: Caution| {
            let all = Command::all(Session::new()).into_iter();
            all.filter(|command| caution.why_not(*command).is_none()).count()
        };
        assert_eq!(asked(caution(false, false)), 15);
        assert_eq!(asked(caution(true, false)), 13);
        assert_eq!(asked(caution(false, true)), 6);
    }
}
