//! The ELF images of a process, each with its call frame tables: from the module's file, or from
//! the image itself where the file is not at hand.

use std::sync::OnceLock;

use crate::addr::{Addr, AddrRange};
use crate::memory::SegmentMap;
use crate::modules::{CallFrames, FrameRules, Module, Scratch};
use crate::process::Process;

/// Type of the auxiliary vector: address of the vDSO.
const AT_SYSINFO_EHDR: u64 = 33;

/// All images of one process, by rising address.
#[derive(Debug)]
pub(super) struct Images<'a> {
    process: &'a Process,
    images: Vec<Image<'a>>,
}

/// A module, or the vDSO.
#[derive(Debug)]
struct Image<'a> {
    range: AddrRange,
    bias: u64,
    module: Option<&'a Module>,
    in_memory: OnceLock<CallFrames>,
}

/// The rules of a place in the code, and what is added to its image's addresses in the file.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) rules: FrameRules,
    pub(super) bias: u64,
}

impl<'a> Images<'a> {
    pub(super) fn of(process: &'a Process) -> Self {
        let image = |range, bias, module| Image { range, bias, module, in_memory: OnceLock::new() };
        let modules = process.modules.iter();
        let mut images: Vec<Image<'a>> =
            modules.map(|module| image(module.range, module.bias, Some(module))).collect();
        if let Some(start) = vdso(process)
            && !images.iter().any(|image| image.range.contains(start))
        {
            let end = process.memory.find(start).map_or(start, |segment| segment.range.end);
            images.push(image(AddrRange { start, end }, start.0, None));
        }
        images.sort_by_key(|image| image.range.start);
        Self { process, images }
    }

    /// The rules at an address.
    ///
    /// # Errors
    /// Words for a person: why there are none.
    pub(super) fn rules(&self, at: Addr, scratch: &mut Scratch) -> Result<Place, String> {
        let image = self.at(at).ok_or("it lies in no module")?;
        let address = at.0.wrapping_sub(image.bias);
        let mut why = "no unwind information covers it".to_owned();
        for tables in image.tables(&self.process.memory) {
            match tables.at(address, scratch) {
                Ok(Some(rules)) => return Ok(Place { rules, bias: image.bias }),
                Ok(None) => {}
                Err(damage) => why = format!("its unwind information is damaged: {damage}"),
            }
        }
        if let Some(Err(missing)) = image.module.map(|module| &module.file) {
            why = format!("{why}, and the file of {} is not at hand: {missing}", image.name());
        }
        Err(why)
    }

    fn at(&self, at: Addr) -> Option<&Image<'a>> {
        let behind = self.images.partition_point(|image| image.range.start <= at);
        // Images seldom lie within one another; the one that starts last is the inner one.
        let mut before = self.images.get(..behind)?.iter().rev();
        before.find(|image| image.range.contains(at))
    }
}

impl Image<'_> {
    /// Where to look, in this order.
    fn tables(&self, memory: &SegmentMap) -> impl Iterator<Item = &CallFrames> {
        let file = self.module.and_then(|module| module.file.as_ref().ok());
        let of_file = file.map(|file| file.call_frames());
        // What was split off a program has no `.eh_frame`; files without section headers hide it.
        let whole = file.is_some_and(|file| !file.debug_only);
        let enough = whole && of_file.is_some_and(|tables| !tables.is_empty());
        let in_memory = || {
            self.in_memory.get_or_init(|| CallFrames::of_image(memory, self.range.start, self.bias))
        };
        of_file.into_iter().chain((!enough).then(in_memory))
    }

    fn name(&self) -> &str {
        self.module.map_or("the vDSO", Module::name)
    }
}

/// Where the vDSO lies: the kernel tells every process.
fn vdso(process: &Process) -> Option<Addr> {
    let mut auxv = process.core.notes.auxv.iter();
    auxv.find(|(kind, _)| *kind == AT_SYSINFO_EHDR).map(|(_, start)| Addr(*start))
}
