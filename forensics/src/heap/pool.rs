//! What the managers have in common: a block of counters that knows its first fragment, known
//! layouts of which one is chosen, and a walk. A manager says what is its own ([`Manager`]); it
//! becomes an [`Allocator`] by that.

use std::cell::{Cell, OnceCell};

use super::chain::Expected;
use super::infer::{self, AtBreak};
use super::lists::FreeLists;
use super::{Allocator, Arena, BacktraceShape, Counters, Landmark, NotAnArena, Step, Tally};
use crate::addr::{Addr, AddrRange};
use crate::layout::{Layout, LayoutSource, NoField, dwarf};
use crate::memory::{Absent, Memory};
use crate::modules::ModuleFile;

/// What distinguishes one manager from the others.
pub(super) trait Manager: Copy + Sync + 'static {
    /// Every offset that its walk needs.
    type Shape: Copy + 'static;

    /// The name that it gives itself.
    const NAME: &'static str;
    /// Every layout seen so far, most frequent first.
    const KNOWN: &'static [Known];

    /// Binds the structures by field name.
    ///
    /// # Errors
    /// [`NoField`] names a missing structure or a field that every build has.
    fn bind(layouts: &[Layout]) -> Result<Self::Shape, NoField>;

    /// The known layouts, bound.
    fn known() -> Vec<(&'static str, Self::Shape)> {
        let bind = |known: &Known| Some((known.name, Self::bind(&known.layouts()).ok()?));
        Self::KNOWN.iter().filter_map(bind).collect()
    }

    /// Reads a block and checks that its numbers can be true together.
    ///
    /// # Errors
    /// [`NotAnArena`] says what does not fit.
    fn block(at: Addr, shape: &Self::Shape, memory: &dyn Memory) -> Result<Block, NotAnArena>;

    /// Fragment by fragment.
    fn walk<'p>(pool: &'p Pool<'_, Self>, at_break: AtBreak)
    -> Box<dyn Iterator<Item = Step> + 'p>;

    /// The lists of free fragments; `None` where the layout does not tell where they are.
    fn free_lists(memory: &dyn Memory, shape: &Self::Shape, block: &Block) -> Option<FreeLists>;

    /// What the manager would count as `real_used`, in bytes.
    fn real_used(shape: &Self::Shape, block: &Block, fragments: Tally) -> u64;

    /// How many fragments, used and free, the block's own counters imply; `None` where they
    /// contradict themselves.
    fn expected_fragments(shape: &Self::Shape, block: &Block) -> Option<u64>;

    /// The words of fixed value around a header.
    fn landmarks(shape: &Self::Shape) -> Vec<Landmark>;

    /// Where fragments keep the calls that led to their allocation; most layouts do not.
    fn backtrace(_shape: &Self::Shape) -> Option<BacktraceShape> {
        None
    }

    /// See [`Arena::link_in_tail`].
    fn link_in_tail(_shape: &Self::Shape) -> Option<u64> {
        None
    }

    /// Offset in the block of the pointer that a scan without symbols goes by.
    fn landmark(shape: &Self::Shape) -> u64;

    /// Whether a block is at `at`, where that pointer leads `distance` bytes behind it.
    fn is_block(at: Addr, distance: u64, shape: &Self::Shape, memory: &dyn Memory) -> bool;
}

/// Offsets of fields by name, in bytes.
pub(super) type Fields = &'static [(&'static str, u64)];

/// A layout that some release has.
pub(super) struct Known {
    /// For a person: header length and where it was seen.
    pub(super) name: &'static str,
    /// The structures that [`Manager::bind`] needs: name in the source code, size in bytes, fields.
    pub(super) structures: &'static [(&'static str, u64, Fields)],
}

impl Known {
    /// The same in the form that debug information gives.
    pub(super) fn layouts(&self) -> Vec<Layout> {
        let layout = |(name, size, fields): &(&str, u64, Fields)| Layout::new(name, *size, fields);
        self.structures.iter().map(layout).collect()
    }
}

/// A block without its free lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Its address.
    pub(super) at: Addr,
    /// What it says of itself.
    pub(super) counters: Counters,
    /// Header of the first fragment.
    pub(super) first: Addr,
    /// Where the chain ends, as the manager marks it.
    pub(super) last: Addr,
    /// First address behind the pool.
    pub(super) end: Addr,
}

/// Offsets within the blocks of `q_malloc` and `f_malloc`, which differ only in where and how they
/// mark the pool's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockShape {
    kind: u64,
    size: u64,
    used: u64,
    real_used: u64,
    max_real_used: u64,
    ffrags: u64,
    pub(super) first: u64,
    last: u64,
    /// Its size in bytes: the first fragment's distance from the pool's start.
    pub(super) length: u64,
}

impl BlockShape {
    /// Binds a block by field name; `last` is the field that marks the pool's end.
    ///
    /// # Errors
    /// [`NoField`].
    pub(super) fn bind(block: &Layout, last: &str) -> Result<Self, NoField> {
        Ok(Self {
            kind: block.offset("type")?,
            size: block.offset("size")?,
            used: block.offset("used")?,
            real_used: block.offset("real_used")?,
            max_real_used: block.offset("max_real_used")?,
            ffrags: block.offset("ffrags")?,
            first: block.offset("first_frag")?,
            last: block.offset(last)?,
            length: block.size,
        })
    }

    /// Reads a block whose end mark is `mark` bytes long.
    ///
    /// # Errors
    /// [`NotAnArena`] says what does not fit.
    pub(super) fn read(
        &self,
        at: Addr,
        mark: u64,
        allocator: &'static str,
        memory: &dyn Memory,
    ) -> Result<Block, NotAnArena> {
        let field = |offset: u64| memory.word(Addr(at.0.saturating_add(offset)));
        let size = field(self.size)?;
        let first = Addr(field(self.first)?);
        let last = Addr(field(self.last)?);
        let pool_end = at.checked_add(size);
        let end = last.checked_add(mark).filter(|end| Some(*end) <= pool_end && first < *end);
        let Some(end) = end.filter(|_| first > at) else {
            let what = format!(
                "size {size} ({size:#x}), first fragment {first} and end mark {last} \
                 do not describe one pool"
            );
            return Err(NotAnArena::Contradiction { block: at, allocator, what });
        };
        let kind = memory.int(Addr(at.0.saturating_add(self.kind)))?;
        let counters = Counters {
            size,
            used: field(self.used)?,
            real_used: field(self.real_used)?,
            max_real_used: field(self.max_real_used)?,
            free_fragments: field(self.ffrags)?,
            private: match kind {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            },
        };
        Ok(Block { at, counters, first, last, end })
    }
}

impl Block {
    /// From the start of the block to its first fragment, in bytes.
    pub(super) fn length(&self) -> u64 {
        self.first.0.saturating_sub(self.at.0)
    }

    /// Whether the pool ends where its size says.
    pub(super) fn is_exact(&self) -> bool {
        self.end.0 == self.at.0.saturating_add(self.counters.size)
    }
}

impl<M: Manager> Allocator for M {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn arena<'a>(
        &self,
        block: Addr,
        memory: &'a dyn Memory,
        program: Option<&ModuleFile>,
    ) -> Result<Box<dyn Arena + 'a>, NotAnArena> {
        let (shape, source) = match from_debug::<M>(program) {
            Some(known) => known,
            None => inferred::<M>(block, memory)?,
        };
        Ok(Box::new(Bound { pool: Pool::<M>::new(block, shape, memory)?, source }))
    }

    fn scan(&self, memory: &dyn Memory, places: &[AddrRange]) -> Vec<Addr> {
        let mut found = Vec::new();
        for (_, shape) in M::known() {
            let is_block = |at, distance| M::is_block(at, distance, &shape, memory);
            found.extend(infer::scan(memory, places, M::landmark(&shape), is_block));
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The layout from debug information.
fn from_debug<M: Manager>(program: Option<&ModuleFile>) -> Option<(M::Shape, LayoutSource)> {
    let program = program?;
    let wanted: Vec<&str> = M::KNOWN.first()?.structures.iter().map(|(name, ..)| *name).collect();
    let layouts = dwarf::structures(program, &wanted).ok()?;
    let shape = M::bind(&layouts).ok()?;
    let build_id = program.build_id.clone().unwrap_or_else(|| "without build ID".into());
    Some((shape, LayoutSource::Dwarf { build_id }))
}

/// The known layout under which the fragments chain.
fn inferred<M: Manager>(
    block: Addr,
    memory: &dyn Memory,
) -> Result<(M::Shape, LayoutSource), NotAnArena> {
    let nothing_chains = NotAnArena::Contradiction {
        block,
        allocator: M::NAME,
        what: "its fragments chain under no known layout".to_owned(),
    };
    let trial = |shape: M::Shape, at_break| {
        let pool = Pool::<M>::new(block, shape, memory)?;
        Ok(infer::chain(M::walk(&pool, at_break)))
    };
    // Fragments that are not there do not contradict the block.
    infer::choose(&M::known(), trial, nothing_chains)
        .map_err(|error| without_first::<M>(block, memory).map_or(error, NotAnArena::Absent))
}

/// Why a block's first fragment is not known, if that is so.
fn without_first<M: Manager>(at: Addr, memory: &dyn Memory) -> Option<Absent> {
    let known = M::known().into_iter();
    let mut blocks = known.filter_map(|(_, shape)| M::block(at, &shape, memory).ok());
    blocks.find_map(|block| memory.word(block.first).err())
}

/// A pool under one layout.
pub(super) struct Pool<'a, M: Manager> {
    pub(super) memory: &'a dyn Memory,
    pub(super) block: Block,
    pub(super) shape: M::Shape,
    lists: OnceCell<Option<FreeLists>>,
    /// Headers that walks read.
    pub(super) visits: Cell<u64>,
}

impl<'a, M: Manager> Pool<'a, M> {
    /// Reads the block.
    ///
    /// # Errors
    /// [`NotAnArena`] says what does not fit.
    pub(super) fn new(
        block: Addr,
        shape: M::Shape,
        memory: &'a dyn Memory,
    ) -> Result<Self, NotAnArena> {
        let block = M::block(block, &shape, memory)?;
        Ok(Self { memory, block, shape, lists: OnceCell::new(), visits: Cell::new(0) })
    }

    /// The lists of free fragments, followed once.
    pub(super) fn lists(&self) -> Option<&FreeLists> {
        let gather = || M::free_lists(self.memory, &self.shape, &self.block);
        self.lists.get_or_init(gather).as_ref()
    }

    /// How many fragments there should be.
    pub(super) fn expected_fragments(&self) -> Option<u64> {
        let most = self.block.counters.size.wrapping_div(SMALLEST);
        M::expected_fragments(&self.shape, &self.block).filter(|expected| *expected <= most)
    }

    /// What the block's counters leave for a walk to find.
    pub(super) fn expected(&self) -> Option<Expected> {
        let fragments = self.expected_fragments()?;
        Some(Expected { fragments, used: self.block.counters.used })
    }

    /// Counts a header that was read.
    pub(super) fn visit(&self) {
        self.visits.set(self.visits.get().saturating_add(1));
    }
}

/// No fragment with its overhead is smaller, in bytes.
const SMALLEST: u64 = 24;

/// A pool whose layout is decided.
struct Bound<'a, M: Manager> {
    pool: Pool<'a, M>,
    source: LayoutSource,
}

impl<M: Manager> Arena for Bound<'_, M> {
    fn counters(&self) -> Counters {
        self.pool.block.counters
    }

    fn range(&self) -> AddrRange {
        AddrRange { start: self.pool.block.at, end: self.pool.block.end }
    }

    fn first_fragment(&self) -> Addr {
        self.pool.block.first
    }

    fn real_used(&self, fragments: Tally) -> u64 {
        M::real_used(&self.pool.shape, &self.pool.block, fragments)
    }

    fn expected_fragments(&self) -> Option<u64> {
        self.pool.expected_fragments()
    }

    fn source(&self) -> LayoutSource {
        self.source.clone()
    }

    fn backtrace(&self) -> Option<BacktraceShape> {
        M::backtrace(&self.pool.shape)
    }

    fn walk(&self) -> Box<dyn Iterator<Item = Step> + '_> {
        M::walk(&self.pool, AtBreak::Resume)
    }

    fn free_lists(&self) -> Option<&FreeLists> {
        self.pool.lists()
    }

    fn link_in_tail(&self) -> Option<u64> {
        M::link_in_tail(&self.pool.shape)
    }

    fn landmarks(&self) -> Vec<Landmark> {
        M::landmarks(&self.pool.shape)
    }

    fn visits(&self) -> u64 {
        let listed = self.pool.lists.get().and_then(Option::as_ref);
        self.pool.visits.get().saturating_add(listed.map_or(0, |lists| lists.visits))
    }
}
