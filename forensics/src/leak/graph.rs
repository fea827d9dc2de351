//! Which fragment points at which: the pools of a whole process group as one graph.
//!
//! Reads: the used fragments of every pool, and their payloads, once, in the order of memory.
//! Promises: an edge is a word of a used fragment's payload that leads to the start or into the
//! inside of another, or an unaligned one that leads to its start (packed structures); allocators'
//! own words are none. Private memory is each process's own, shared
//! memory is everybody's: a process's words lead into its own PKG and into SHM, words in SHM lead
//! into SHM and, at the same address, into every PKG (what was made before the fork, or by the one
//! process that uses the word). Where a pool's chain is broken its bytes count as roots, since what
//! they were is not known. Memory: 8 bytes for each fragment and 4 for each edge, beside the
//! fragments themselves and 16 bytes for each 512 of a pool.

use rayon::prelude::*;

use super::roots::{self, GroupProcess, RootPlace, Roots};
use super::sieve::{Sieve, Word};
use super::used::{Index, Used};
use crate::addr::{Addr, AddrRange};
use crate::memory::Cursor;
use crate::num::{narrow, wide};

/// One pool whose used fragments are nodes.
#[derive(Clone, Copy, Debug)]
pub struct PoolNodes<'a> {
    /// The process that it was read through.
    pub member: usize,
    /// Whether every process sees it.
    pub shared: bool,
    /// Its addresses.
    pub range: AddrRange,
    /// Its used fragments, by rising address.
    pub used: &'a [Used],
    /// What of it lies in no fragment because the chain is broken there.
    pub unread: &'a [AddrRange],
    /// How far before a payload the header begins that a stale last word may link to, in bytes;
    /// `None` where the manager keeps no word there.
    pub link_in_tail: Option<u64>,
}

/// A used fragment of some pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(u32);

/// Fragments whose edges are found and kept together: one pool's, one after another.
const BATCH: u32 = 1 << 14;

/// Payloads up to this length are read at one go; longer ones may have holes worth jumping over.
const SMALL: u64 = 64 * 1024;

#[derive(Debug)]
struct Batch {
    pool: usize,
    /// Where the targets of each fragment end.
    ends: Vec<u32>,
    targets: Vec<Node>,
}

#[derive(Debug)]
struct Pool<'a> {
    nodes: PoolNodes<'a>,
    index: Index<'a>,
    first: u32,
}

/// All used fragments and who points at whom.
#[derive(Debug)]
pub struct Graph<'a> {
    group: &'a [GroupProcess<'a>],
    pools: Vec<Pool<'a>>,
    batches: Vec<Batch>,
    sieve: Sieve,
}

impl<'a> Graph<'a> {
    /// Reads all payloads. `pools` name their processes by their index in `group`.
    pub fn new(group: &'a [GroupProcess<'a>], pools: &[PoolNodes<'a>]) -> Self {
        let mut first = 0_u32;
        let mut jobs: Vec<(usize, &'a [Used])> = Vec::new();
        let mut known = Vec::new();
        for (number, nodes) in pools.iter().enumerate() {
            known.push(Pool { nodes: *nodes, index: Index::new(nodes.range, nodes.used), first });
            for batch in nodes.used.chunks(narrow(u64::from(BATCH))) {
                jobs.push((number, batch));
                first = first.saturating_add(BATCH);
            }
        }
        let sieve = Sieve::new(pools.iter().map(|pool| pool.range));
        let mut graph = Self { group, pools: known, batches: Vec::new(), sieve };
        graph.batches =
            jobs.into_par_iter().map(|(pool, used)| graph.read_batch(pool, used)).collect();
        graph
    }

    /// The edges of some fragments of one pool.
    fn read_batch(&self, pool: usize, used: &[Used]) -> Batch {
        let none = Batch { pool, ends: Vec::new(), targets: Vec::new() };
        let Some(nodes) = self.pools.get(pool).map(|pool| pool.nodes) else { return none };
        let Some(process) = self.group.get(nodes.member) else { return none };
        let mut edges = Edges::new(self, self.seen_from(nodes));
        let mut cursor = Cursor::new(process.memory);
        for (from, fragment) in (0..).zip(used) {
            // An old link may also stand inside, where the fragment once ended.
            let header = nodes.link_in_tail.and_then(|d| fragment.start.checked_sub(d));
            let mut add = |word: Word| {
                let at = Addr(word.value);
                if !fragment.payload().contains(at) && header != Some(at) {
                    edges.add(from, word);
                }
            };
            let length = fragment.bytes();
            let small = (length <= SMALL).then(|| cursor.bytes(fragment.start, narrow(length)));
            match small {
                Some(Ok(bytes)) => {
                    let doubtful = header.is_some_and(|header| may_end_in_link(bytes, header));
                    self.sieve.sift(bytes, |word| {
                        let last = word.offset.saturating_add(8) == length;
                        // A list's link may look like the allocator's; it leads to a start.
                        add(Word { aligned: word.aligned && !(last && doubtful), ..word });
                    });
                }
                _ => {
                    roots::words(process.memory, fragment.payload(), &self.sieve, |_, word| {
                        add(word)
                    });
                }
            }
        }
        edges.into_batch(pool, used.len())
    }

    /// The pools that a word in a pool can lead into.
    fn seen_from(&self, nodes: PoolNodes<'_>) -> Vec<usize> {
        match nodes.shared {
            true => (0..self.pools.len()).collect(),
            false => self.seen_by(nodes.member),
        }
    }

    /// The pools that a word of a process can lead into.
    fn seen_by(&self, member: usize) -> Vec<usize> {
        let seen = |pool: &Pool<'_>| pool.nodes.shared || pool.nodes.member == member;
        let pools = self.pools.iter().enumerate();
        pools.filter(|(_, pool)| seen(pool)).map(|(number, _)| number).collect()
    }

    /// The fragments of some pools that a word points to or into.
    #[inline]
    fn targets<'s>(&'s self, view: &'s [usize], word: Word) -> impl Iterator<Item = Node> + 's {
        view.iter().filter_map(move |&pool| {
            let pool = self.pools.get(pool)?;
            let number = match word.aligned {
                true => pool.index.find(Addr(word.value))?,
                false => pool.index.starting_at(Addr(word.value))?,
            };
            Some(Node(pool.first.saturating_add(number)))
        })
    }

    /// Every root of a process that leads to a fragment, with its value.
    pub fn roots(&self, member: usize, mut visit: impl FnMut(RootPlace, u64, Node)) {
        let Some(own) = self.group.get(member) else { return };
        let view = self.seen_by(member);
        let ranges =
            self.pools.iter().filter(|pool| pool.nodes.shared || pool.nodes.member == member);
        let mut ranges: Vec<AddrRange> = ranges.map(|pool| pool.index.range()).collect();
        ranges.sort_unstable();
        Roots::of(own, &ranges).visit(own, &self.sieve, |place, word| {
            self.targets(&view, word).for_each(|node| visit(place, word.value, node));
        });
        // Each pool is read through one process, and so are the bytes of its that lie in no fragment.
        for pool in self.pools.iter().filter(|pool| pool.nodes.member == member) {
            let view = self.seen_from(pool.nodes);
            for range in pool.nodes.unread {
                roots::words(own.memory, *range, &self.sieve, |at, word| {
                    let found = self.targets(&view, word);
                    found.for_each(|node| visit(RootPlace::Data(at), word.value, node));
                });
            }
        }
    }

    /// How many processes the group has.
    pub fn members(&self) -> usize {
        self.group.len()
    }

    /// Every fragment, pool by pool, by rising address.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + '_ {
        self.pools.iter().flat_map(|pool| {
            let behind = u32::try_from(pool.nodes.used.len()).unwrap_or(u32::MAX);
            (pool.first..pool.first.saturating_add(behind)).map(Node)
        })
    }

    /// One more than the highest number of a fragment.
    pub(super) fn bound(&self) -> usize {
        self.batches.len().saturating_mul(narrow(u64::from(BATCH)))
    }

    /// What a fragment points at.
    #[inline]
    pub fn edges(&self, node: Node) -> &[Node] {
        let edges = || {
            let batch = self.batches.get(narrow(u64::from(node.0 / BATCH)))?;
            let inside = narrow(u64::from(node.0 % BATCH));
            let end = *batch.ends.get(inside)?;
            let start = match inside.checked_sub(1) {
                Some(before) => *batch.ends.get(before)?,
                None => 0,
            };
            batch.targets.get(narrow(u64::from(start))..narrow(u64::from(end)))
        };
        edges().unwrap_or_default()
    }

    /// A fragment's pool, as an index into those that the graph was made of, and the fragment.
    pub fn fragment(&self, node: Node) -> Option<(usize, &'a Used)> {
        let pool = self.batches.get(narrow(u64::from(node.0 / BATCH)))?.pool;
        let known = self.pools.get(pool)?;
        let inside = node.0.checked_sub(known.first)?;
        Some((pool, known.nodes.used.get(narrow(u64::from(inside)))?))
    }

    /// The fragment of a pool whose payload contains an address.
    pub fn find(&self, pool: usize, at: Addr) -> Option<Node> {
        let pool = self.pools.get(pool)?;
        Some(Node(pool.first.saturating_add(pool.index.find(at)?)))
    }

    /// The words of a fragment that lead to another: their addresses and values.
    pub fn words_between(&self, from: Node, to: Node) -> Vec<(Addr, u64)> {
        let mut found = Vec::new();
        let Some((pool, fragment)) = self.fragment(from) else { return found };
        let (Some(pool), Some((_, target))) = (self.pools.get(pool), self.fragment(to)) else {
            return found;
        };
        let Some(own) = self.group.get(pool.nodes.member) else { return found };
        roots::words(own.memory, fragment.payload(), &self.sieve, |at, word| {
            let value = Addr(word.value);
            if value == target.start || word.aligned && target.payload().contains(value) {
                found.push((at, word.value));
            }
        });
        found
    }
}

impl Node {
    /// Its number, below the graph's bound.
    pub(super) fn number(self) -> usize {
        narrow(u64::from(self.0))
    }

    /// The fragment of a number.
    pub(super) fn of(number: usize) -> Self {
        Self(u32::try_from(wide(number)).unwrap_or(u32::MAX))
    }
}

/// Words that wait until so many are looked up together: the processor fetches the places of the
/// index that they need at the same time, not one after another.
const TOGETHER: usize = 1 << 12;

/// The edges of a batch as they are found.
struct Edges<'g, 'a> {
    graph: &'g Graph<'a>,
    view: Vec<usize>,
    /// Words that may be pointers, each with the place in the batch of its fragment.
    words: Vec<(u32, Word)>,
    found: Vec<(u32, Node)>,
}

impl<'g, 'a> Edges<'g, 'a> {
    fn new(graph: &'g Graph<'a>, view: Vec<usize>) -> Self {
        Self { graph, view, words: Vec::with_capacity(TOGETHER), found: Vec::new() }
    }

    #[inline]
    fn add(&mut self, from: u32, word: Word) {
        if self.words.len() == TOGETHER {
            self.look_up();
        }
        self.words.push((from, word));
    }

    fn look_up(&mut self) {
        for (from, word) in self.words.drain(..) {
            let targets = self.graph.targets(&self.view, word);
            self.found.extend(targets.map(|node| (from, node)));
        }
    }

    fn into_batch(mut self, pool: usize, fragments: usize) -> Batch {
        self.look_up();
        let mut batch = Batch { pool, ends: Vec::with_capacity(fragments), targets: Vec::new() };
        batch.targets.reserve_exact(self.found.len());
        let mut found = self.found.into_iter().peekable();
        let mut own = Vec::new();
        for (fragment, _) in (0_u32..).zip(0..fragments) {
            while let Some((_, node)) = found.next_if(|(from, _)| *from == fragment) {
                own.push(node);
            }
            // A list's head points to itself twice, a string to one text from many places.
            own.sort_unstable();
            own.dedup();
            batch.targets.append(&mut own);
            batch.ends.push(u32::try_from(batch.targets.len()).unwrap_or(u32::MAX));
        }
        batch
    }
}

/// Whether the last word of a payload may be the allocator's old link to the payload's own header,
/// whole or with its low bytes under the end of a text or cleared. That leads into the fragment
/// before, but not to its start.
fn may_end_in_link(payload: &[u8], header: Addr) -> bool {
    let Some((rest, tail)) = payload.split_last_chunk::<8>() else { return false };
    let link = header.0.to_le_bytes();
    let kept = tail.iter().rev().zip(link.iter().rev()).take_while(|(one, other)| one == other);
    let written = tail.len().saturating_sub(kept.count());
    let Some((end, text)) = tail.get(..written).and_then(<[u8]>::split_last) else { return true };
    // The functions that clear what they hand out clear only what was asked for.
    let cleared = text.iter().all(|byte| *byte == 0);
    let mut text = rest.last().into_iter().chain(text);
    *end == 0 && (cleared || text.all(|byte| matches!(byte, b' '..=b'~')))
}

/// A set of fragments: one bit each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks(Vec<u64>);

impl Marks {
    /// None of a graph's fragments.
    pub fn none(graph: &Graph<'_>) -> Self {
        Self(vec![0; graph.bound().div_ceil(64)])
    }

    /// Whether a fragment is in it.
    #[inline]
    pub fn has(&self, node: Node) -> bool {
        let number = node.number();
        self.0.get(number / 64).is_some_and(|bits| bits >> (number % 64) & 1 == 1)
    }

    /// Puts a fragment in; whether it was not in yet.
    #[inline]
    pub fn put(&mut self, node: Node) -> bool {
        let number = node.number();
        let Some(bits) = self.0.get_mut(number / 64) else { return false };
        let bit = 1 << (number % 64);
        let new = *bits & bit == 0;
        *bits |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocators_own_link_at_the_end_of_a_payload_is_told_from_a_pointer() {
        let header = Addr(0x7fc2_df71_3d68);
        let ends = |payload: &[u8]| may_end_in_link(payload, header);
        let link = header.0.to_le_bytes();
        assert!(ends(&[&[0; 8], &link[..]].concat()), "untouched");
        // A path of 9 bytes, and one of 11: the link's low bytes are under the text's end.
        assert!(ends(b"/usr/lib/\0\x3d\x71\xdf\xc2\x7f\0\0".get(1..).unwrap()));
        assert!(ends(b"usr/lib/ab\0\xdf\xc2\x7f\0\0"), "two letters");
        assert!(!ends(b"usr/lib/ab\0\xde\xc2\x7f\0\0"), "another address");
        // 145 and 147 bytes of 152, cleared.
        assert!(ends(b"\x07\0\0\0\0\0\0\0\0\x3d\x71\xdf\xc2\x7f\0\0"));
        assert!(ends(b"\x07\0\0\0\0\0\0\0\0\0\0\xdf\xc2\x7f\0\0"));
        // A list's pointer to a neighbour in the same 256 bytes, behind a number.
        assert!(!ends(b"\x07\0\0\0\0\0\0\0\x10\x3d\x71\xdf\xc2\x7f\0\0"));
        assert!(!ends(b"abcdefgh\x20\x3d\x71\xdf\xc2\x7f\0\0"));
        assert!(!ends(b"1234567"));
    }
}
