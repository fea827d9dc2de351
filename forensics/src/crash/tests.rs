//! How deaths are judged, by stacks as real cores have them.

use super::standing::judge;
use super::*;
use crate::addr::AddrRange;
use crate::bytes::Blob;
use crate::memory::{Content, Segment, SegmentMap};
use crate::threads::{NamedFrame, testing};

const OWN_PID: u32 = testing::TID;

/// `rsp` is 0x2000, `rdi` 0x3000, `rsi` the operation.
fn registers(operation: u64) -> Registers {
    testing::registers(&[(13, operation), (14, 0x3000), (19, 0x2000)])
}

fn frame(module: &str, function: &str, registers: Registers) -> NamedFrame {
    testing::frame(module, function, registers)
}

fn view(signal: u16, frames: &[(&str, &str)]) -> ThreadView {
    let frames = frames.iter().map(|(module, name)| frame(module, name, registers(128)));
    ThreadView { signal, frames: frames.collect(), ..testing::view(&[]) }
}

/// `syscall` at 0x1000, a lock at 0x3000.
fn memory(lock: u32) -> SegmentMap {
    let segment = |at, bytes: Vec<u8>| Segment {
        range: AddrRange::new(Addr(at), crate::num::wide(bytes.len())),
        writable: Some(true),
        content: Content::Bytes { blob: Blob::from_bytes(bytes), offset: 0 },
    };
    SegmentMap::new(vec![
        segment(0x1000, vec![0x0f, 0x05, 0x90, 0x90]),
        segment(0x3000, lock.to_le_bytes().to_vec()),
    ])
}

fn judged(signal: u16, frames: &[(&str, &str)]) -> (Standing, bool) {
    let judged = judge(&view(signal, frames), None, &[OWN_PID], &memory(2));
    (judged.standing, judged.is_heap_damage)
}

const SHUTDOWN: [(&str, &str); 8] = [
    ("libc.so.6", "abort"),
    ("kamailio", ""),
    ("libc.so.6", "<signal>"),
    ("libc.so.6", "syscall"),
    ("dialog.so", "destroy_linkers"),
    ("kamailio", "destroy_modules"),
    ("kamailio", "cleanup"),
    ("kamailio", "main_loop"),
];

#[test]
fn a_shutdown_that_took_too_long_is_secondary() {
    let found = judge(&view(6, &SHUTDOWN), None, &[OWN_PID], &memory(2));
    assert_eq!(found.standing, Standing::Secondary);
    let interrupted = found.interrupted.unwrap();
    let functions = ["destroy_linkers", "destroy_modules", "cleanup", "main_loop"];
    assert_eq!(interrupted.functions, functions);
    assert_eq!(interrupted.lock, Some(Addr(0x3000)));
}

#[test]
fn a_handler_with_a_name_is_told_by_it() {
    let mut named = SHUTDOWN;
    named[1].1 = "sig_usr";
    assert_eq!(judged(6, &named), (Standing::Primary, false));
    named[1].1 = "sig_alarm_abort";
    assert_eq!(judged(6, &named), (Standing::Secondary, false));
}

#[test]
fn a_handler_that_calls_others_is_not_that_of_the_alarm() {
    let mut frames = SHUTDOWN.to_vec();
    frames.insert(1, ("kamailio", "sip_abort"));
    assert_eq!(judged(6, &frames), (Standing::Primary, false));
}

#[test]
fn a_lock_that_is_free_is_not_waited_for() {
    let found = judge(&view(6, &SHUTDOWN), None, &[OWN_PID], &memory(0));
    assert_eq!(found.interrupted.unwrap().lock, None);
}

#[test]
fn an_alarm_during_work_is_no_shutdown() {
    let working = [SHUTDOWN[0], SHUTDOWN[1], SHUTDOWN[2], ("kamailio", "receive_msg")];
    assert_eq!(judged(6, &working), (Standing::Primary, false));
}

#[test]
fn a_crash_while_damage_is_printed_is_secondary() {
    for printing in ["strlen", "vfprintf", "__vsyslog_internal"] {
        let frames = [("libc.so.6", printing), ("kamailio", "qm_free"), ("tm.so", "free_cell")];
        assert_eq!(judged(11, &frames), (Standing::Secondary, true));
    }
    // The check itself has no name in a stripped program.
    let frames = [("libc.so.6", "vfprintf"), ("kamailio", ""), ("kamailio", "qm_malloc")];
    assert_eq!(judged(11, &frames), (Standing::Secondary, true));
    let status = [("kamailio", "qm_status"), ("kamailio", "cleanup")];
    assert_eq!(judged(11, &status), (Standing::Secondary, true));
}

#[test]
fn printing_for_somebody_else_is_not() {
    let frames = [("libc.so.6", "strlen"), ("kamailio", "pv_printf"), ("kamailio", "do_action")];
    assert_eq!(judged(11, &frames), (Standing::Primary, false));
}

#[test]
fn the_memory_manager_meets_damage_of_others() {
    assert_eq!(judged(11, &[("kamailio", "qm_detach_free")]), (Standing::Primary, true));
    let abort = [("libc.so.6", "abort"), ("kamailio", ""), ("kamailio", "qm_free")];
    assert_eq!(judged(6, &abort), (Standing::Primary, true));
    let copy = [("libc.so.6", "memcpy"), ("kamailio", "fm_realloc")];
    assert_eq!(judged(11, &copy), (Standing::Primary, true));
}

#[test]
fn without_a_stack_it_is_primary() {
    assert_eq!(judged(11, &[]), (Standing::Primary, false));
}

#[test]
fn words_of_faults() {
    let fault = |access, length| Fault {
        address: Addr(0x28),
        is_from_kernel: true,
        access,
        length,
        meaning: Meaning::Null { offset: 0x28 },
    };
    let words = |access, length| fault(access, length).words();
    let end = "0x28, a null pointer plus 0x28";
    assert_eq!(words(Some(Access::Read), Some(8)), format!("read of 8 bytes at {end}"));
    assert_eq!(words(Some(Access::Write), Some(1)), format!("write of 1 byte at {end}"));
    assert_eq!(words(Some(Access::Jump), Some(8)), format!("jump to {end}"));
    assert_eq!(words(None, None), format!("access at {end}"));
}
