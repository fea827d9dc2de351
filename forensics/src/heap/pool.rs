//! What the managers have in common: a block of counters that knows its first fragment, known
//! layouts of which one is chosen, and a walk. A manager says what is its own ([`Manager`]); it
//! becomes an [`Allocator`] by that.

use super::infer::{self, AtBreak};
use super::{Allocator, Arena, BacktraceShape, Counters, NotAnArena, Step, Tally};
use crate::addr::{Addr, AddrRange};
use crate::layout::{Layout, LayoutSource, NoField, dwarf};
use crate::memory::Memory;
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
    fn walk<'a>(
        memory: &'a dyn Memory,
        shape: Self::Shape,
        block: &Block,
        at_break: AtBreak,
    ) -> Box<dyn Iterator<Item = Step> + 'a>;

    /// What the manager would count as `real_used`, in bytes.
    fn real_used(shape: &Self::Shape, block: &Block, fragments: Tally) -> u64;

    /// Where fragments keep the calls that led to their allocation; most layouts do not.
    fn backtrace(_shape: &Self::Shape) -> Option<BacktraceShape> {
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
        let block = M::block(block, &shape, memory)?;
        Ok(Box::new(Pool::<M> { memory, block, shape, source }))
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
    let walk = |shape: M::Shape, at_break| {
        let block = M::block(block, &shape, memory)?;
        Ok(M::walk(memory, shape, &block, at_break))
    };
    infer::choose(&M::known(), walk, nothing_chains)
}

struct Pool<'a, M: Manager> {
    memory: &'a dyn Memory,
    block: Block,
    shape: M::Shape,
    source: LayoutSource,
}

impl<M: Manager> Arena for Pool<'_, M> {
    fn counters(&self) -> Counters {
        self.block.counters
    }

    fn range(&self) -> AddrRange {
        AddrRange { start: self.block.at, end: self.block.end }
    }

    fn real_used(&self, fragments: Tally) -> u64 {
        M::real_used(&self.shape, &self.block, fragments)
    }

    fn source(&self) -> LayoutSource {
        self.source.clone()
    }

    fn backtrace(&self) -> Option<BacktraceShape> {
        M::backtrace(&self.shape)
    }

    fn walk(&self) -> Box<dyn Iterator<Item = Step> + '_> {
        M::walk(self.memory, self.shape, &self.block, AtBreak::Resume)
    }
}
