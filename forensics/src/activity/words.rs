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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::activity::tests::memory;
    use crate::activity::{InKernel, Protocol, Socket};
    use crate::memory::SegmentMap;

    fn call(number: u64, arguments: [u64; 6]) -> SystemCall {
        let arguments = arguments.map(|argument| format!("{argument:#x}")).join(" ");
        match InKernel::parse(&format!("{number} {arguments} 0x7000 0x1000\n")) {
            Some(InKernel::Call(call)) => call,
            other => panic!("{other:?}"),
        }
    }

    fn socket(local: &str, peer: Option<&str>, state: Option<&'static str>) -> DescriptorKind {
        DescriptorKind::Socket(Some(Socket {
            local: Some(local.parse().unwrap()),
            peer: peer.map(|peer| peer.parse().unwrap()),
            state,
            ..Socket::new(1, if state.is_some() { Protocol::Tcp } else { Protocol::Udp })
        }))
    }

    fn descriptors() -> Descriptors {
        let kinds = [
            (5, DescriptorKind::Epoll { targets: vec![9, 11, 12, 13, 14, 15] }),
            (6, DescriptorKind::File),
            (9, socket("127.0.0.1:5060", None, None)),
            (11, socket("127.0.0.1:5060", None, Some("LISTEN"))),
            (12, socket("127.0.0.1:41232", Some("127.0.0.1:3306"), Some("SYN_SENT"))),
            (13, socket("127.0.0.1:41233", Some("127.0.0.1:3306"), Some("ESTABLISHED"))),
            (14, DescriptorKind::Pipe { inode: 77 }),
            (15, DescriptorKind::EventCounter),
        ];
        let descriptor = |(number, kind)| {
            let target = "/run/kamailio/rpc.fifo".to_owned();
            (number, Descriptor { number, target, kind, nonblocking: Some(false) })
        };
        BTreeMap::from_iter(kinds.map(descriptor))
    }

    fn told(call: SystemCall, memory: &dyn Memory) -> String {
        call.describe(&descriptors(), memory)
    }

    #[test]
    fn calls_on_one_descriptor_name_what_it_is() {
        let none = SegmentMap::default();
        let told = |number, descriptor| told(call(number, [descriptor, 0, 0, 0, 0, 0]), &none);
        assert_eq!(told(45, 9), "recvfrom(9): UDP 127.0.0.1:5060");
        assert_eq!(told(42, 12), "connect(12): TCP 127.0.0.1:41232 → 127.0.0.1:3306, SYN_SENT");
        assert_eq!(told(0, 13), "read(13): TCP 127.0.0.1:41233 → 127.0.0.1:3306");
        assert_eq!(told(43, 11), "accept(11): TCP 127.0.0.1:5060, LISTEN");
        assert_eq!(told(0, 6), "read(6): /run/kamailio/rpc.fifo");
        assert_eq!(told(0, 99), "read(99)");
        assert_eq!(told(34, 9), "pause");
        assert_eq!(told(999, 9), "system call 999");
    }

    #[test]
    fn poll_names_every_descriptor_of_its_array() {
        // 13 and 14, one that poll passes over, and one that is not open.
        let array = [13_i32, 1, 14, 1, -1, 1, 99, 1].map(i32::to_le_bytes).concat();
        let memory = memory(0x5000, &array);
        let poll = |limit| call(7, [0x5000, 4, limit, 0, 0, 0]);
        assert_eq!(poll(2500).descriptors(&memory), [13, 14, 99]);
        assert_eq!(
            told(poll(2500), &memory),
            "poll(13, 14, 99), at most 2.5 s: TCP 127.0.0.1:41233 → 127.0.0.1:3306; pipe 77"
        );
        assert!(
            told(poll(0xffff_ffff), &memory).starts_with("poll(13, 14, 99), without a time limit")
        );
        // An array that goes on where memory is not known.
        let longer = call(7, [0x5000, u64::MAX, 0, 0, 0, 0]);
        assert_eq!(longer.descriptors(&memory), [13, 14, 99]);
        assert_eq!(call(7, [u64::MAX, 3, 0, 0, 0, 0]).descriptors(&memory).len(), 0);
    }

    #[test]
    fn select_names_the_bits_of_its_sets() {
        let mut sets = vec![0; 16 * 2];
        sets[0] = 0b0010_0000;
        sets[1] = 0b0000_0010;
        sets[8] = 0b0000_0001; // 64, not below the first argument
        sets[17] = 0b0010_0000;
        let memory = memory(0x5000, &sets);
        let select = call(23, [64, 0x5000, 0, 0x5010, 0, 0]);
        assert_eq!(select.descriptors(&memory), [5, 9, 13]);
        assert_eq!(
            told(select, &memory),
            "select(5, 9, 13), without a time limit: epoll of 6 descriptors; UDP 127.0.0.1:5060; \
             TCP 127.0.0.1:41233 → 127.0.0.1:3306"
        );
        assert_eq!(call(23, [u64::MAX, 0x5000, 0, 0, 0, 0]).descriptors(&memory), [5, 9, 64, 141]);
    }

    #[test]
    fn epoll_names_what_it_watches() {
        let none = SegmentMap::default();
        assert_eq!(
            told(call(232, [5, 0, 1, 10_000, 0, 0]), &none),
            "epoll_wait(5), at most 10 s: UDP 127.0.0.1:5060; TCP 127.0.0.1:5060, LISTEN; \
             TCP 127.0.0.1:41232 → 127.0.0.1:3306, SYN_SENT; \
             TCP 127.0.0.1:41233 → 127.0.0.1:3306 and 2 more"
        );
    }

    #[test]
    fn a_futex_is_told_by_its_address_and_value() {
        let none = SegmentMap::default();
        let wait = call(202, [0x7fab_0000, 0x80, 2, 0, 0, 0]);
        assert_eq!(told(wait, &none), "futex(0x7fab0000, while it holds 2), without a time limit");
        assert_eq!(wait.futex_wait().unwrap().value, Some(2));
        let wake = call(202, [0x7fab_0000, 0x81, 1, 0, 0, 0]);
        assert_eq!(wake.futex_wait(), None);
        let owned = call(202, [0x7fab_0000, 0x86, 0, 0, 0, 0]);
        assert_eq!(told(owned, &none), "futex(0x7fab0000), without a time limit");
    }

    #[test]
    fn sleeps_say_for_how_long() {
        let time = [1_u64.to_le_bytes(), 500_000_000_u64.to_le_bytes()].concat();
        let memory = memory(0x5000, &time);
        let told = |number, arguments| told(call(number, arguments), &memory);
        assert_eq!(told(35, [0x5000, 0, 0, 0, 0, 0]), "nanosleep, at most 1.5 s");
        assert_eq!(told(230, [0, 0, 0x5000, 0, 0, 0]), "clock_nanosleep, at most 1.5 s");
        assert_eq!(told(230, [0, 1, 0x5000, 0, 0, 0]), "clock_nanosleep, until a point of time");
        assert_eq!(told(270, [0, 0, 0, 0, 0x5000, 0]), "pselect6, at most 1.5 s");
        assert_eq!(told(35, [0x6000, 0, 0, 0, 0, 0]), "nanosleep, with a time limit");
        assert_eq!(told(35, [0x4ffc, 0, 0, 0, 0, 0]), "nanosleep, with a time limit");
    }

    #[test]
    fn a_destination_in_memory_serves_where_no_table_has_the_peer() {
        // struct sockaddr_in: 127.0.0.1:3306
        let memory_4 = memory(0x5000, &[2, 0, 0x0c, 0xea, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        let connect = |descriptor| call(42, [descriptor, 0x5000, 16, 0, 0, 0]);
        assert_eq!(told(connect(3), &memory_4), "connect(3) → 127.0.0.1:3306");
        let known = "connect(12): TCP 127.0.0.1:41232 → 127.0.0.1:3306, SYN_SENT";
        assert_eq!(told(connect(12), &memory_4), known);
        let unix = memory(0x5000, b"\x01\0/run/x\ny.sock\0\0");
        assert_eq!(told(connect(3), &unix), "connect(3) → /run/x\\u{a}y.sock");
        let cut = memory(0x5000, &[2, 0, 0x0c]);
        assert_eq!(told(connect(3), &cut), "connect(3)");
    }

    #[test]
    fn children_that_are_waited_for_are_told_apart() {
        let none = SegmentMap::default();
        let told = |pid: i64| told(call(61, [pid.cast_unsigned(), 0, 0, 0, 0, 0]), &none);
        assert_eq!(told(-1), "wait4(any child)");
        assert_eq!(told(0), "wait4(any child of its process group)");
        assert_eq!(told(1234), "wait4(child 1234)");
        assert_eq!(told(-77), "wait4(any child of process group 77)");
    }
}
