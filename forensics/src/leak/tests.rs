//! Who holds whom, on memory written out word by word: two processes with a private pool each at
//! the same address, and a shared one.

use super::*;
use crate::addr::{Addr, AddrRange};
use crate::bytes::Blob;
use crate::core::Thread;
use crate::memory::{Content, Segment, SegmentMap};

const DATA: u64 = 0x5555_0000_0000;
const PKG: u64 = 0x7f10_0000_0000;
const SHM: u64 = 0x7f20_0000_0000;
const STACK: u64 = 0x7ffc_0000_0000;
/// Length of each of them.
const LENGTH: u64 = 0x1000;

/// One process: words at addresses, and a stack pointer.
#[derive(Default)]
struct Bytes(Vec<(u64, u64)>);

impl Bytes {
    fn memory(&self) -> SegmentMap {
        let piece = |start: u64| {
            let mut bytes = vec![0; usize::try_from(LENGTH).unwrap()];
            for (at, value) in &self.0 {
                if (start..start + LENGTH).contains(at) {
                    let inside = usize::try_from(at - start).unwrap();
                    bytes[inside..inside + 8].copy_from_slice(&value.to_le_bytes());
                }
            }
            Segment {
                range: AddrRange::new(Addr(start), LENGTH),
                writable: Some(true),
                content: Content::Bytes { blob: Blob::from_bytes(bytes), offset: 0 },
            }
        };
        SegmentMap::new([DATA, PKG, SHM, STACK].map(piece).to_vec())
    }
}

fn thread(rax: u64, stack_pointer: u64) -> Thread {
    let mut registers = vec![0; 27];
    registers[10] = rax;
    registers[19] = stack_pointer;
    Thread { tid: 7, signal: 0, registers, record: None }
}

/// Used fragments of 0x40 bytes at these addresses.
fn used(starts: &[u64]) -> Vec<Used> {
    starts.iter().map(|start| Used::new(AddrRange::new(Addr(*start), 0x40), 0)).collect()
}

/// What holds each fragment, and whether it is a head: one's PKG, two's PKG, SHM.
fn held(words: [&[(u64, u64)]; 2], pkg: &[u64], shm: &[u64]) -> Vec<(Hold, bool)> {
    asked(words, pkg, shm, |graph| {
        let reach = reach(graph);
        graph.nodes().map(|node| (reach.hold(node), reach.is_head(node))).collect()
    })
}

fn asked<T>(
    words: [&[(u64, u64)]; 2],
    pkg: &[u64],
    shm: &[u64],
    ask: impl FnOnce(&Graph<'_>) -> T,
) -> T {
    let memory = words.map(|words| Bytes(words.to_vec()).memory());
    let threads = [[thread(0, STACK + 0x800)], [thread(SHM + 0x500, STACK + 0x800)]];
    let stack =
        StackMapping { range: AddrRange::new(Addr(STACK), LENGTH), lowest: Addr(STACK + 0x800) };
    let member = |(memory, threads)| GroupProcess {
        memory,
        threads,
        machine: "x86-64",
        stacks: vec![stack],
    };
    let group: Vec<GroupProcess<'_>> =
        memory.iter().zip(threads.iter().map(<[Thread; 1]>::as_slice)).map(member).collect();
    let (private, shared) = (used(pkg), used(shm));
    let pool = |member, start, used| PoolNodes {
        member,
        shared: start == SHM,
        range: AddrRange::new(Addr(start), LENGTH),
        used,
        unread: &[],
        link_in_tail: None,
    };
    let pools = [pool(0, PKG, &*private), pool(1, PKG, &*private), pool(0, SHM, &*shared)];
    ask(&Graph::new(&group, &pools))
}

const LOST: (Hold, bool) = (Hold::Nothing, true);
const LOST_INSIDE: (Hold, bool) = (Hold::Nothing, false);
const BY_DATA: (Hold, bool) = (Hold::Data, false);
const BY_STACK: (Hold, bool) = (Hold::Stack, false);

#[test]
fn private_memory_is_held_by_its_own_process_only() {
    let found = held([&[(DATA, PKG + 0x100)], &[]], &[PKG + 0x100], &[]);
    assert_eq!(found, [BY_DATA, LOST]);
}

#[test]
fn shared_memory_is_held_by_any_process_and_by_what_that_holds() {
    let one = [(PKG + 0x108, SHM + 0x13f)];
    let two = [(DATA + 8, PKG + 0x100), (PKG + 0x108, SHM + 0x13f)];
    let found = held([&one, &two], &[PKG + 0x100], &[SHM + 0x100, SHM + 0x200]);
    assert_eq!(found, [LOST, BY_DATA, BY_DATA, LOST]);
}

#[test]
fn shared_memory_holds_private_memory_of_every_process() {
    let words = [(DATA, SHM + 0x100), (SHM + 0x110, PKG + 0x100)];
    let found = held([&words, &words], &[PKG + 0x100, PKG + 0x200], &[SHM + 0x100]);
    assert_eq!(found, [BY_DATA, LOST, BY_DATA, LOST, BY_DATA]);
}

#[test]
fn a_pointer_counts_from_the_first_to_the_last_byte_of_a_payload() {
    for (value, expected) in [(0xff, LOST), (0x100, BY_DATA), (0x13f, BY_DATA), (0x140, LOST)] {
        let found = held([&[(DATA, SHM + value)], &[]], &[], &[SHM + 0x100]);
        assert_eq!(found, [expected], "{value:#x}");
    }
}

#[test]
fn a_packed_pointer_counts_if_it_leads_to_a_start() {
    for (value, expected) in [(0x100, BY_DATA), (0x108, LOST)] {
        let found = held([&[(DATA + 3, SHM + value)], &[]], &[], &[SHM + 0x100]);
        assert_eq!(found, [expected], "{value:#x}");
    }
}

/// Under TLSF the last word of a payload may be the allocator's old link to the payload's own header.
#[test]
fn an_old_link_of_the_allocator_is_told_from_the_link_of_a_list() {
    let held_by = |value: u64| {
        let memory = Bytes(vec![(DATA, SHM + 0x180), (SHM + 0x180 + 0x38, value)]).memory();
        let group =
            [GroupProcess { memory: &memory, threads: &[], machine: "x86-64", stacks: Vec::new() }];
        let shm = used(&[SHM + 0x100, SHM + 0x180]);
        let pools = [PoolNodes {
            member: 0,
            shared: true,
            range: AddrRange::new(Addr(SHM), LENGTH),
            used: &shm,
            unread: &[],
            link_in_tail: Some(0x48),
        }];
        let graph = Graph::new(&group, &pools);
        reach(&graph).hold(graph.find(0, Addr(SHM + 0x100)).unwrap())
    };
    assert_eq!(held_by(SHM + 0x138), Hold::Nothing, "the payload's own header");
    assert_eq!(held_by(SHM + 0x100), Hold::Data, "a neighbour's start, at an address ending in 00");
    assert_eq!(held_by(SHM + 0x110), Hold::Data, "into a neighbour");
}

#[test]
fn live_stacks_and_registers_hold_what_nothing_else_does() {
    let words = [
        (STACK + 0x800 - 128, SHM + 0x100),
        (STACK + 0x800 - 136, SHM + 0x200),
        (STACK + 0xff8, SHM + 0x300),
        (DATA, SHM + 0x300),
        (SHM + 0x100, SHM + 0x400),
    ];
    let shm = [0x100, 0x200, 0x300, 0x400, 0x500].map(|at| SHM + at);
    // The last is in a register of the second process.
    assert_eq!(held([&words, &[]], &[], &shm), [BY_STACK, LOST, BY_DATA, BY_STACK, BY_STACK]);
}

#[test]
fn a_chain_has_one_head_and_a_cycle_has_one() {
    let chain = [(0x100, 0x200), (0x200, 0x300), (0x400, 0x450), (0x450, 0x400), (0x450, 0x300)];
    let words: Vec<(u64, u64)> = chain.map(|(at, to)| (SHM + at, SHM + to)).to_vec();
    let shm = [0x100, 0x200, 0x300, 0x400, 0x450].map(|at| SHM + at);
    let found = held([&words, &[]], &[], &shm);
    assert_eq!(found.iter().filter(|found| **found == LOST).count(), 2, "{found:?}");
    assert_eq!([found[0], found[1], found[2]], [LOST, LOST_INSIDE, LOST_INSIDE]);
    assert!(found[3] != found[4]);
}

#[test]
fn what_only_hangs_off_a_cycle_is_no_head() {
    // The ring is met after what hangs off it.
    let words =
        [(0x200, 0x300), (0x300, 0x200), (0x300, 0x100)].map(|(at, to)| (SHM + at, SHM + to));
    let found = held([&words, &[]], &[], &[0x100, 0x200, 0x300].map(|at| SHM + at));
    assert_eq!(found[0], LOST_INSIDE);
    assert_eq!(found.iter().filter(|found| **found == LOST).count(), 1);
}

#[test]
fn a_fragment_that_points_at_itself_alone_is_lost() {
    assert_eq!(held([&[(SHM + 0x108, SHM + 0x100)], &[]], &[], &[SHM + 0x100]), [LOST]);
}

#[test]
fn long_chains_are_followed_without_recursion() {
    let starts: Vec<u64> = (0..40).map(|at| SHM + 0x600 + at * 0x40).collect();
    let words: Vec<(u64, u64)> = starts.iter().map(|at| (*at, *at + 0x40)).collect();
    let found = held([&words, &[]], &[], &starts);
    assert_eq!(found[0], LOST);
    assert!(found[1..].iter().all(|found| *found == LOST_INSIDE));
}

#[test]
fn the_shortest_ways_come_first_and_end_at_data() {
    let words = [
        (DATA + 0x10, SHM + 0x100),
        (SHM + 0x100, SHM + 0x200),
        (SHM + 0x208, SHM + 0x308),
        (DATA + 0x20, SHM + 0x400),
        (SHM + 0x400, SHM + 0x300),
        (SHM + 0x500, SHM + 0x100),
    ];
    let shm = [0x100, 0x200, 0x300, 0x400, 0x500].map(|at| SHM + at);
    asked([&words, &[]], &[], &shm, |graph| {
        let target = graph.find(2, Addr(SHM + 0x310)).unwrap();
        let starts = |path: &Path| -> Vec<u64> {
            let fragments = path.steps.iter().map(|step| graph.fragment(*step).unwrap().1);
            fragments.map(|fragment| fragment.start.0 - SHM).collect()
        };
        let referrers = Referrers::of(graph);
        let found = paths(graph, &referrers, target, 10);
        let ways: Vec<Vec<u64>> = found.iter().map(starts).collect();
        assert_eq!(ways, [vec![0x400, 0x300], vec![0x100, 0x200, 0x300]]);
        let root = |path: &Path| (path.roots[0].member, path.roots[0].place);
        assert_eq!(root(&found[0]), (0, RootPlace::Data(Addr(DATA + 0x20))));
        assert_eq!(root(&found[1]), (0, RootPlace::Data(Addr(DATA + 0x10))));
        assert_eq!(paths(graph, &referrers, target, 1).len(), 1);

        let from: Vec<u64> =
            referrers.to(target).iter().map(|n| graph.fragment(*n).unwrap().1.start.0).collect();
        assert_eq!(from, [SHM + 0x200, SHM + 0x400]);
        let second = graph.find(2, Addr(SHM + 0x200)).unwrap();
        assert_eq!(graph.words_between(second, target), [(Addr(SHM + 0x208), SHM + 0x308)]);
    });
}

#[test]
fn what_is_lost_is_reached_from_a_head() {
    let words = [(0x300, 0x200), (0x200, 0x100)].map(|(at, to)| (SHM + at, SHM + to));
    let shm = [0x100, 0x200, 0x300].map(|at| SHM + at);
    asked([&words, &[(DATA, SHM + 0x200)]], &[], &shm, |graph| {
        let found = |at| head_of(graph, &reach(graph), &Referrers::of(graph), node(graph, at));
        assert_eq!(found(0x100), None, "held");
        assert_eq!(found(0x300), Some(node(graph, 0x300)));
    });
    asked([&words, &[]], &[], &shm, |graph| {
        let found = |at| head_of(graph, &reach(graph), &Referrers::of(graph), node(graph, at));
        assert_eq!(found(0x100), Some(node(graph, 0x300)));
    });
}

fn node(graph: &Graph<'_>, at: u64) -> Node {
    graph.find(2, Addr(SHM + at)).unwrap()
}

#[test]
fn bytes_between_broken_chains_count_as_roots() {
    let memory = Bytes(vec![(SHM + 0x800, SHM + 0x100)]).memory();
    let group =
        [GroupProcess { memory: &memory, threads: &[], machine: "x86-64", stacks: Vec::new() }];
    let shm = used(&[SHM + 0x100]);
    let with = |unread: &[AddrRange]| {
        let pool = PoolNodes {
            member: 0,
            shared: true,
            range: AddrRange::new(Addr(SHM), LENGTH),
            used: &shm,
            unread,
            link_in_tail: None,
        };
        let pools = [pool];
        let graph = Graph::new(&group, &pools);
        let reach = reach(&graph);
        graph.nodes().map(|node| reach.hold(node)).collect::<Vec<_>>()
    };
    assert_eq!(with(&[]), [Hold::Nothing]);
    assert_eq!(with(&[AddrRange::new(Addr(SHM + 0x800), 0x100)]), [Hold::Data]);
}
