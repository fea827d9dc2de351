//! Which memory a stack trace of every thread needs, for `--stacks-only`: no heap, no shared
//! memory, no variables but a closed list.
//!
//! - Of each thread its live stack: from the red zone below the stack pointer up to the end of the
//!   stack, at most [`MOST`]. The kernel merges a stack with what is mapped right above it, so a
//!   thread's stack ends where glibc's record of the thread does, which lies at its upper end. A
//!   stack pointer that is on no stack (a signal stack, a coroutine) gets a window of [`WINDOW`],
//!   and the thread's own stack is taken besides.
//! - glibc's record of each thread, with what the thread is called and owns.
//! - [`AROUND`] bytes on either side of each word that a thread waits on: locks hold their owner
//!   there, and the allocators whose memory it is.
//! - What names the loaded files ([`crate::link_map`]), Kamailio's process table, and the variables
//!   that lead to it and to the pools.
//!
//! The environment, which lies at the upper end of the first stack, is left out.

use crate::arch;
use crate::link_map;
use crate::live::Live;
use crate::mappings::Mapping;
use crate::number::{page_ceil, page_floor};
use crate::program::{self, Words};
use crate::spans::{self, Span};

/// Why a range was left out, for a person.
pub(crate) const NO_STACK: &str = "left out as wanted (--stacks-only)";

/// The most that is taken of one stack, from its inner end, in bytes.
pub const MOST: u64 = 8 << 20;
/// What is taken above a stack pointer that is on no known stack, in bytes.
pub const WINDOW: u64 = 64 << 10;
/// What is taken on either side of a word that a thread waits on, in bytes.
pub const AROUND: u64 = 256;
/// Below the stack pointer a function that calls none may keep variables (System V ABI, x86-64).
const RED_ZONE: u64 = 128;

/// Kamailio's `struct process_table` has 148 bytes in every build since 5.2.
const PROCESS_ENTRY: u64 = 148;
/// More processes than any configuration starts.
const MOST_PROCESSES: i32 = 4096;

/// Where the program keeps what is taken besides stacks, as distances from where it is mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StacksOnly {
    /// Kamailio's table of processes, and the pointer to their count.
    table: Option<(u64, u64)>,
    /// Other variables and their lengths in bytes.
    variables: [Option<(u64, u64)>; 5],
}

impl StacksOnly {
    /// Looks into the program of the process `main`.
    pub fn find(main: u32) -> Self {
        let names = [
            "pt",
            "process_count",
            "process_no",
            "_pkg_root",
            "_shm_root",
            // Up to 4.x, the pools' blocks.
            "mem_block",
            "shm_block",
        ];
        let [table, count, own, private, shared, private_block, shared_block] =
            program::distances(main, names);
        let variable = |at: Option<u64>, length: u64| Some((at?, length));
        Self {
            table: table.zip(count),
            variables: [
                variable(own, 4),
                // `mname`, `mem_pool`, `mem_block`.
                variable(private, 24),
                variable(shared, 24),
                variable(private_block, 8),
                variable(shared_block, 8),
            ],
        }
    }

    /// What is taken of a process whatever its threads do; `id` is a thread of it.
    pub(crate) fn fixed(self, id: u32, mappings: &[Mapping]) -> Vec<Span> {
        let Some(words) = Words::of(id) else { return Vec::new() };
        let mut spans = link_map::spans(id, &words);
        if let Some(base) = program::base(id, mappings) {
            let variables = self.variables.into_iter().flatten();
            spans.extend(variables.map(|(at, length)| from(base.saturating_add(at), length)));
            spans.extend(self.process_table(base, &words));
        }
        spans
    }

    fn process_table(self, base: u64, words: &Words) -> Vec<Span> {
        let Some((table, count)) = self.table else { return Vec::new() };
        let (table, count) = (base.saturating_add(table), base.saturating_add(count));
        let mut spans = vec![from(table, 8), from(count, 8)];
        if let Some(count) = words.word(count).filter(|at| *at != 0)
            && let Some(number) = words.int(count)
            && let Some(table) = words.word(table).filter(|at| *at != 0)
            && (1..=MOST_PROCESSES).contains(&number)
        {
            let number = u64::from(number.unsigned_abs());
            spans.extend([from(count, 4), from(table, number * PROCESS_ENTRY)]);
        }
        spans
    }
}

/// What is taken for these threads, merged, by rising address. `environment` is left out.
pub(crate) fn of_threads(threads: &[Live], mappings: &[Mapping], environment: Span) -> Vec<Span> {
    let mut found = Vec::new();
    for thread in threads {
        found.extend(stacks(thread, mappings));
        found.extend(thread.thread_pointer.map(arch::thread_block));
        found.extend(
            thread
                .waits_on
                .map(|at| Span::new(at.saturating_sub(AROUND), at.saturating_add(AROUND))),
        );
    }
    let left_out = [(environment, ())];
    let found = spans::merge(found).into_iter();
    let pieces = found.flat_map(|span| spans::split(span, &left_out));
    pieces.filter(|(_, out)| out.is_none()).map(|(span, _)| span).collect()
}

/// The live part of a thread's stack, or what may hold it.
fn stacks(thread: &Live, mappings: &[Mapping]) -> Vec<Span> {
    let at = thread.stack_pointer;
    let Some(here) = holding(mappings, at) else { return Vec::new() };
    let start = page_floor(at.saturating_sub(RED_ZONE)).max(here.span.start);
    let from_inside = |end: u64| Span::new(start, end.min(start.saturating_add(MOST)));
    let from_outside =
        |span: Span| Span::new(span.start.max(span.end.saturating_sub(MOST)), span.end);
    if is_first(here) {
        return vec![from_inside(here.span.end)];
    }
    let own = own_stack(thread, mappings);
    if let Some(own) = own.filter(|own| own.start <= at && at < own.end) {
        return vec![from_inside(own.end)];
    }
    let window = Span::new(start, at.saturating_add(WINDOW)).and(here.span);
    // Where its own stack is live is in the signal's frame; what is not live there was so once.
    std::iter::once(window).chain(own.map(from_outside)).collect()
}

/// The stack that a thread was made with, as far as it is known.
fn own_stack(thread: &Live, mappings: &[Mapping]) -> Option<Span> {
    let pointer = thread.thread_pointer?;
    let mapping = holding(mappings, pointer)?;
    let top = page_ceil(arch::thread_block(pointer).end).min(mapping.span.end);
    let made = Span::new(mapping.span.start, top);
    let runs_there = made.start <= thread.stack_pointer && thread.stack_pointer < pointer;
    match thread.first && !runs_there {
        // The loader has made its record, and the kernel its stack.
        true => mappings.iter().find(|one| is_first(one)).map(|stack| stack.span),
        // A record in the C heap is that of a static program's first thread.
        false if mapping.name == "[heap]" && !runs_there => None,
        false => Some(made),
    }
}

fn is_first(mapping: &Mapping) -> bool {
    mapping.name == "[stack]"
}

fn holding(mappings: &[Mapping], at: u64) -> Option<&Mapping> {
    let place = mappings.partition_point(|one| one.span.end <= at);
    mappings.get(place).filter(|one| one.span.start <= at)
}

fn from(start: u64, length: u64) -> Span {
    Span::new(start, start.saturating_add(length))
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;

    /// A program's data, its C heap, a thread's stack that was merged with a heap above it, a signal
    /// stack, and the first stack with the environment in its last page.
    const MAPS: &str = "\
00001000-00002000 r--p 00000000 fe:00 7 /sbin/kamailio
00006000-00009000 rw-p 00000000 00:00 0 [heap]
10000000-10001000 ---p 00000000 00:00 0
10001000-10a00000 rw-p 00000000 00:00 0
20000000-20020000 rw-p 00000000 00:00 0
7ff00000-7ff80000 rw-p 00000000 00:00 0 [stack]";

    fn taken(live: Live) -> Vec<(u64, u64)> {
        let environment = Span::new(0x7ff7_f100, 0x7ff7_fff0);
        let spans = of_threads(&[live], &Mapping::parse_all(MAPS), environment);
        spans.into_iter().map(|span| (span.start, span.end)).collect()
    }

    #[test]
    fn a_threads_stack_ends_with_its_record_not_with_its_mapping() {
        let thread = Live {
            stack_pointer: 0x107f_e010,
            thread_pointer: Some(0x107f_f6c0),
            ..Live::default()
        };
        // The red zone reaches into the page below.
        assert_eq!(taken(thread), [(0x107f_d000, 0x1080_0000)]);
        assert_eq!(
            taken(Live { stack_pointer: 0x107f_e080, ..thread }),
            [(0x107f_e000, 0x1080_0000)]
        );
    }

    #[test]
    fn the_first_stack_is_taken_without_the_environment() {
        let thread = Live { first: true, stack_pointer: 0x7ff7_d800, ..Live::default() };
        assert_eq!(taken(thread), [(0x7ff7_d000, 0x7ff7_f100), (0x7ff7_fff0, 0x7ff8_0000)]);
    }

    #[test]
    fn on_a_signal_stack_a_window_and_the_threads_own_stack_are_taken() {
        let on_signal_stack = Live { stack_pointer: 0x2000_1080, ..Live::default() };
        let thread = Live { thread_pointer: Some(0x107f_f6c0), ..on_signal_stack };
        assert_eq!(taken(thread), [(0x1000_1000, 0x1080_0000), (0x2000_1000, 0x2001_1080)]);
        let first = Live { first: true, thread_pointer: Some(0x6100), ..on_signal_stack };
        assert_eq!(
            taken(first),
            [
                (0x6100, 0x6a00),
                (0x2000_1000, 0x2001_1080),
                (0x7ff0_0000, 0x7ff7_f100),
                (0x7ff7_fff0, 0x7ff8_0000)
            ]
        );
    }

    #[test]
    fn a_coroutine_in_the_heap_and_a_runaway_recursion_are_bounded() {
        // Of a thread that was not stopped the thread pointer is not known.
        let thread = Live { stack_pointer: 0x1000_2080, ..Live::default() };
        assert_eq!(taken(thread), [(0x1000_2000, 0x1001_2080)]);
        let deep = Live { thread_pointer: Some(0x109f_f000), ..thread };
        assert_eq!(taken(deep), [(0x1000_2000, 0x1080_2000), (0x109f_f000, 0x109f_f900)]);
        let nowhere = Live { stack_pointer: 0x10, ..Live::default() };
        assert_eq!(taken(nowhere), []);
    }

    #[test]
    fn around_a_lock_some_bytes_are_taken() {
        let waits = Live { stack_pointer: 0x10, waits_on: Some(0x7010), ..Live::default() };
        assert_eq!(taken(waits), [(0x6f10, 0x7110)]);
    }

    #[test]
    fn our_own_loaded_files_are_taken_whatever_threads_do() {
        let id = std::process::id();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let only = StacksOnly::find(id);
        assert_eq!(only, StacksOnly::default(), "this is no Kamailio");
        assert!(only.fixed(id, &Mapping::parse_all(&maps)).len() > 4);
    }
}
