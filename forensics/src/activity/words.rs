//! A system call in words: `recvfrom(9): UDP 127.0.0.1:5060`.

use std::fmt::Write as _;

use super::descriptor::{Descriptor, DescriptorKind, Descriptors};
use super::system_call::SystemCall;
use super::visible;
use super::waiting::Limit;
use crate::memory::Memory;

/// So many descriptors of one call are named; the rest is counted.
const NAMED: usize = 4;

impl SystemCall {
    /// What the thread does, on one line: the call with what it waits for.
    ///
    /// `descriptors` are those of its process, `memory` that of its process: either may be empty,
    /// and then there are fewer words.
    pub fn describe(&self, descriptors: &Descriptors, memory: &dyn Memory) -> String {
        let call = self.as_made(memory);
        let numbers = call.descriptors(memory);
        let mut words = match call.name {
            Some(name) => name.to_owned(),
            None => format!("system call {}", call.number),
        };
        let arguments = call.shown_arguments(&numbers);
        if !arguments.is_empty() {
            let _ = write!(words, "({arguments})");
        }
        if let Some(limit) = call.limit(memory) {
            words.push_str(&in_words(limit));
        }
        let about = named(&numbers, descriptors);
        if !about.is_empty() {
            let _ = write!(words, ": {about}");
        }
        let peer_known = numbers.iter().filter_map(|number| descriptors.get(number)).any(has_peer);
        if !peer_known && let Some(destination) = call.destination(memory) {
            let _ = write!(words, " → {}", visible(&destination));
        }
        words
    }

    fn shown_arguments(&self, descriptors: &[i32]) -> String {
        if let Some(wait) = self.futex_wait() {
            return match wait.value {
                Some(value) => format!("{}, while it holds {value}", wait.address),
                None => wait.address.to_string(),
            };
        }
        match self.name {
            Some("wait4") => waited_for(self.argument(0)),
            _ => few(descriptors.iter().map(i32::to_string), ", "),
        }
    }
}

/// `wait4`'s first argument, a `pid_t`.
fn waited_for(argument: u64) -> String {
    let [a, b, c, d, ..] = argument.to_le_bytes();
    match i32::from_le_bytes([a, b, c, d]) {
        -1 => "any child".to_owned(),
        0 => "any child of its process group".to_owned(),
        group if group < -1 => format!("any child of process group {}", group.unsigned_abs()),
        pid => format!("child {pid}"),
    }
}

fn in_words(limit: Limit) -> String {
    match limit {
        Limit::None => ", without a time limit".to_owned(),
        Limit::After(time) => format!(", at most {} s", time.as_secs_f64()),
        Limit::Until => ", until a point of time".to_owned(),
        Limit::Unknown => ", with a time limit".to_owned(),
    }
}

fn has_peer(descriptor: &Descriptor) -> bool {
    matches!(&descriptor.kind, DescriptorKind::Socket(Some(socket)) if socket.peer.is_some())
}

/// What the descriptors are; of an epoll what it watches.
fn named(numbers: &[i32], descriptors: &Descriptors) -> String {
    let name = |number: &i32| Some(descriptors.get(number)?.to_string());
    if let &[number] = numbers {
        return match descriptors.get(&number).map(|descriptor| (descriptor, &descriptor.kind)) {
            None => String::new(),
            Some((_, DescriptorKind::Epoll { targets })) if !targets.is_empty() => {
                few(targets.iter().filter_map(name), "; ")
            }
            Some((descriptor, _)) => descriptor.to_string(),
        };
    }
    few(numbers.iter().filter_map(name), "; ")
}

fn few(texts: impl Iterator<Item = String>, separator: &str) -> String {
    let texts: Vec<String> = texts.collect();
    let named: Vec<&str> = texts.iter().take(NAMED).map(String::as_str).collect();
    match texts.len().saturating_sub(NAMED) {
        0 => named.join(separator),
        more => format!("{} and {more} more", named.join(separator)),
    }
}
