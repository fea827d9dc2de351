//! What Kamailio's own tables hold: entries of htable, contacts of usrloc, dialogs, transactions of
//! tm; how many there are, how old, and how many are past their end and still there.
//!
//! Reads: a module's exported root in one process, the table behind it in shared memory, and the
//! walked shared pool. Promises: each entry is a used fragment of the pool and agrees with its
//! neighbours and its slot; a table with one entry that does not is not counted at all, and says
//! why. A layout is taken if the bytes agree with it; no version is asked. Not for what is in the
//! entries: that is private.

mod clock;
mod dialog;
mod held;
mod htable;
mod tm;
mod usrloc;
mod view;

#[cfg(test)]
mod tests;

pub use clock::Clock;
pub use held::{Held, PastEnd, TableLayout};
pub use htable::slot_of;

use crate::addr::Addr;
use crate::gap::Gap;
use crate::layout::{Layout, NoField, dwarf};
use crate::leak::Used;
use crate::memory::Memory as _;
use crate::modules::Module;
use crate::process::Process;
use view::{Doubt, View};

/// A module whose tables can be followed.
trait Table: Sync {
    /// The module's name, as in `loadmodule "NAME.so"`.
    fn module(&self) -> &'static str;
    /// The exported variable that leads to its tables.
    fn root(&self) -> &'static str;
    /// The structures to look for in debug information.
    fn structures(&self) -> &'static [&'static str];
    /// Follows the tables from the root's value, which is no null pointer. `described` are the
    /// structures that debug information describes; empty without any.
    fn read(&self, view: &View<'_>, root: Addr, described: &Described) -> Result<Vec<Held>, Doubt>;
}

/// All modules whose tables this program follows.
static ALL: &[&dyn Table] = &[&htable::Htable, &usrloc::Usrloc, &dialog::Dialog, &tm::Tm];

/// What debug information says of a module's structures.
#[derive(Debug, Default)]
struct Described {
    build_id: String,
    layouts: Vec<Layout>,
}

/// All tables of a process group. `processes` are asked in their order; `fragments` are those of
/// the shared pool by rising address, as a walk found them.
pub fn read(processes: &[&Process], fragments: &[Used], now: Option<i64>) -> (Vec<Held>, Vec<Gap>) {
    let mut held = Vec::new();
    let mut gaps = Vec::new();
    for table in ALL {
        match read_one(*table, processes, fragments, now) {
            Some(Ok(found)) => held.extend(found),
            Some(Err(why)) => gaps.push(Gap::new(format!("tables of {}", table.module()), why)),
            None => {}
        }
    }
    (held, gaps)
}

/// One module's tables; `None` where the module is not loaded.
fn read_one(
    table: &dyn Table,
    processes: &[&Process],
    fragments: &[Used],
    now: Option<i64>,
) -> Option<Result<Vec<Held>, Doubt>> {
    let file = format!("{}.so", table.module());
    let (process, module) = processes.iter().find_map(|process| {
        let module = process.modules.iter().find(|module| module.name() == file)?;
        Some((*process, module))
    })?;
    let Some(root) = module.symbol(table.root()) else {
        let why = match &module.file {
            Ok(_) => format!("{file} exports no {}", table.root()),
            Err(why) => format!("{file} is not at hand: {why}"),
        };
        return Some(Err(Doubt::new(why)));
    };
    let read = || {
        let root = process.memory.pointer(root)?;
        if root.is_null() {
            return Ok(Vec::new());
        }
        let view = View::new(&process.memory, fragments, Clock::of(process, now));
        table.read(&view, root, &described(module, table.structures()))
    };
    Some(read())
}

fn described(module: &Module, structures: &[&str]) -> Described {
    let layouts =
        module.file.as_ref().ok().and_then(|file| dwarf::structures(file, structures).ok());
    let build_id = module.build_id.clone().unwrap_or_default();
    Described { build_id, layouts: layouts.unwrap_or_default() }
}

/// Tries layouts until the bytes agree with one: that of the debug information if there is some,
/// else the known ones. Where none agrees, the doubts about each are the answer.
fn agreeing<S>(
    described: &Described,
    bind: impl Fn(&[Layout]) -> Result<S, NoField>,
    known: &[(&'static str, S)],
    view: &View<'_>,
    read: impl Fn(&S, &TableLayout) -> Result<Vec<Held>, Doubt>,
) -> Result<Vec<Held>, Doubt> {
    let read = |shape: &S, layout: &TableLayout| {
        view.start();
        read(shape, layout)
    };
    if let Ok(shape) = bind(&described.layouts) {
        let layout = TableLayout::Dwarf { build_id: described.build_id.clone() };
        return read(&shape, &layout);
    }
    let mut doubts = Vec::new();
    for (layout, shape) in known {
        match read(shape, &TableLayout::Agreed { layout, tried: known.len() }) {
            Ok(held) => return Ok(held),
            Err(doubt) => doubts.push(format!("not {layout} ({doubt})")),
        }
    }
    Err(Doubt::new(format!("no known layout fits: {}", doubts.join(", "))))
}
