//! The survey of an address space of which only stacks are wanted: quick enough for the freeze of a
//! profile.
//!
//! Pages are looked for only where something is wanted. What a read-only file mapping holds was
//! looked up before the freeze and stays so: only a debugger could write there.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bundle::PAGE_SIZE;

use crate::devices::Devices;
use crate::live::Live;
use crate::mappings::{FileKey, Kind, Mapping};
use crate::number::{page_ceil, page_floor};
use crate::pages::{self, PageRun};
use crate::procfs::Stat;
use crate::spans::{self, Span};
use crate::stacks_only::{self, NO_STACK, StacksOnly};
use crate::survey::{self, Choices, Fate, Slice, Survey};

/// Looks at a process; `before` is what it looked like before the freeze.
///
/// # Errors
/// `maps` or `pagemap` cannot be read.
pub(crate) fn survey(
    id: u32,
    choices: Choices,
    only: StacksOnly,
    threads: &[Live],
    before: Option<&Survey>,
) -> io::Result<Survey> {
    let maps = fs::read(format!("/proc/{id}/maps"))?;
    let same = before.filter(|before| before.maps == maps);
    let mappings = match same {
        Some(before) => before.mappings.clone(),
        None => Mapping::parse_all(&String::from_utf8_lossy(&maps)),
    };
    let fixed = match same {
        Some(before) => before.fixed.clone(),
        None => only.fixed(id, &mappings),
    };
    let stat = Stat::read(Path::new(&format!("/proc/{id}/task/{id}")));
    let (start, end) = stat.map(|stat| stat.environment).unwrap_or_default();
    let live = stacks_only::of_threads(threads, &mappings, Span::new(start, end));
    let view = View {
        id,
        choices,
        programs: programs(&mappings),
        devices: Devices::of(id, &mappings),
        wanted: spans::merge(live.into_iter().chain(fixed.iter().copied()).collect()),
    };
    let known: Vec<Option<&[Slice]>> = mappings
        .iter()
        .map(|mapping| before.and_then(|before| view.known(mapping, before)))
        .collect();
    let unknown = mappings.iter().zip(&known).filter(|(_, known)| known.is_none());
    let asked: Vec<Span> = unknown.flat_map(|(mapping, _)| view.asked(mapping)).collect();
    let runs = pages::existing_in(id, &spans::merge(asked))?;
    let mut survey = Survey { id, maps, fixed, ..Survey::default() };
    for (mapping, known) in mappings.iter().zip(known) {
        match known {
            Some(slices) => survey.slices.extend_from_slice(slices),
            None => view.add(mapping, &runs, &mut survey),
        }
    }
    survey.mappings = mappings;
    Ok(survey)
}

/// What one look at a process needs.
#[derive(Debug)]
struct View {
    id: u32,
    choices: Choices,
    /// Files of which a part is mapped executable.
    programs: BTreeSet<FileKey>,
    devices: Devices,
    /// Merged, by rising address.
    wanted: Vec<Span>,
}

impl View {
    fn kind(&self, mapping: &Mapping) -> Kind {
        mapping.kind(self.devices.are_memory(mapping))
    }

    /// The slices of a mapping that were found before and still hold.
    fn known<'a>(&self, mapping: &Mapping, before: &'a Survey) -> Option<&'a [Slice]> {
        let unchanging = self.kind(mapping) == Kind::PrivateFile && mapping.flags & 2 == 0;
        let at = before.mappings.partition_point(|one| one.span.start < mapping.span.start);
        let same = before.mappings.get(at).is_some_and(|one| one == mapping);
        (unchanging && same).then(|| before.slices_in(mapping.span))
    }

    /// What is wanted of a mapping.
    fn wanted(&self, mapping: &Mapping) -> Vec<Span> {
        if self.is_kept_whole(mapping) {
            return vec![mapping.span];
        }
        let first = self.wanted.partition_point(|span| span.end <= mapping.span.start);
        let inside = self.wanted.iter().skip(first);
        let inside = inside.take_while(|span| span.start < mapping.span.end);
        let mut wanted: Vec<Span> = inside.map(|span| span.and(mapping.span)).collect();
        // The first page of a program or library tells its build ID.
        if mapping.offset == 0 && self.is_program(mapping) {
            let start = mapping.span.start;
            wanted.push(Span::new(start, start.saturating_add(PAGE_SIZE)).and(mapping.span));
        }
        spans::merge(wanted)
    }

    fn is_program(&self, mapping: &Mapping) -> bool {
        mapping.inode != 0 && self.programs.contains(&mapping.file())
    }

    /// Code and constants of a program whose file can be read no more.
    fn is_kept_whole(&self, mapping: &Mapping) -> bool {
        mapping.flags & 2 == 0
            && self.kind(mapping) == Kind::PrivateFile
            && self.is_program(mapping)
            && !self.has_file(mapping)
    }

    /// Whether the file's bytes can be had apart from the process.
    fn has_file(&self, mapping: &Mapping) -> bool {
        !survey::is_nameless(mapping)
            && (self.choices.map_files || survey::file_is_there(self.id, mapping))
    }

    /// The pages of a mapping that are to be looked for.
    fn asked(&self, mapping: &Mapping) -> Vec<Span> {
        let pages =
            |span: &Span| Span::new(page_floor(span.start), page_ceil(span.end)).and(mapping.span);
        match self.kind(mapping) {
            Kind::PrivateFile if mapping.flags & 2 == 0 => vec![mapping.span],
            Kind::PrivateFile | Kind::PrivateAnonymous | Kind::Pool => {
                self.wanted(mapping).iter().map(pages).collect()
            }
            Kind::SharedFile | Kind::Vdso | Kind::KernelPage | Kind::Ring | Kind::Device => {
                Vec::new()
            }
        }
    }

    fn add(&self, mapping: &Mapping, runs: &[PageRun], survey: &mut Survey) {
        let kind = self.kind(mapping);
        let runs: Vec<PageRun> = pages::clip(runs, mapping.span).collect();
        match kind {
            Kind::PrivateAnonymous | Kind::PrivateFile => {
                let slices = self.slices(mapping, kind, &runs);
                survey.swapped += survey::swapped(&slices, &runs);
                survey.slices.extend(slices);
                return;
            }
            Kind::Pool => {
                let mut part = survey::pool_part(self.id, mapping, &runs, &self.devices);
                let offset = |at: u64| mapping.offset + (at - mapping.span.start);
                let wanted = self.wanted(mapping).into_iter();
                part.only = Some(
                    wanted.map(|span| Span::new(offset(span.start), offset(span.end))).collect(),
                );
                survey.pools.push(part);
            }
            Kind::SharedFile | Kind::Vdso | Kind::KernelPage | Kind::Ring | Kind::Device => {}
        }
        survey.slices.extend(survey::classify(mapping, kind, &runs, false, true));
    }

    /// Of what is wanted what exists; of the rest only what a file is known to hold.
    fn slices(&self, mapping: &Mapping, kind: Kind, runs: &[PageRun]) -> Vec<Slice> {
        let left_out: Arc<str> = NO_STACK.into();
        let path: Arc<str> = mapping.name.as_str().into();
        let has_file = kind == Kind::PrivateFile && self.has_file(mapping);
        let other = |at: u64| match has_file {
            true => {
                let offset = mapping.offset + (at - mapping.span.start);
                Fate::File { path: Arc::clone(&path), offset }
            }
            false => Fate::NotSaved { why: Arc::clone(&left_out) },
        };
        let fate = |wanted: bool, run: Option<&PageRun>, at: u64| match (wanted, run) {
            (true, Some(run)) if run.zero => Fate::Zero,
            (true, Some(_)) => Fate::Data,
            (true, None) if kind == Kind::PrivateAnonymous => Fate::Zero,
            (true, None) => other(at),
            // Where nobody can write, a page is the file's unless it was written before.
            (false, run) if mapping.flags & 2 == 0 && run.is_none_or(|run| run.file) => other(at),
            (false, _) => Fate::NotSaved { why: Arc::clone(&left_out) },
        };
        let wanted: Vec<(Span, ())> =
            self.wanted(mapping).into_iter().map(|span| (span, ())).collect();
        let runs: Vec<(Span, PageRun)> = runs.iter().map(|run| (run.span, *run)).collect();
        let mut slices: Vec<Slice> = Vec::new();
        for (piece, wanted) in spans::split(mapping.span, &wanted) {
            for (span, run) in spans::split(piece, &runs) {
                let fate = fate(wanted.is_some(), run, span.start);
                match slices.last_mut() {
                    Some(last) if last.fate == fate && !matches!(fate, Fate::File { .. }) => {
                        last.span.end = span.end;
                    }
                    _ => slices.push(Slice { span, flags: mapping.flags, fate }),
                }
            }
        }
        slices
    }
}

fn programs(mappings: &[Mapping]) -> BTreeSet<FileKey> {
    let executable = mappings.iter().filter(|one| one.flags & 1 != 0 && one.inode != 0);
    executable.map(Mapping::file).collect()
}
