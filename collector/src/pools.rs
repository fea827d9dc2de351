//! Shared memory of the group: each pool once, and only the pages that exist.
//!
//! Reading an absent page of shared memory through a process *allocates* it: a 3 GiB pool with
//! 20 MiB in use would grow to 3 GiB, on a host that is in trouble already. So the pool's own file
//! is asked (`SEEK_DATA`) and read; where that is refused, only the pages that some process of the
//! group has in its page table are read, through that process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use bundle::member;

use crate::copy::{Door, Origin, Run};
use crate::mappings::FileKey;
use crate::number::{page_ceil, page_floor};
use crate::spans::{self, Span};
use crate::stacks_only::NO_STACK;
use crate::survey::{PoolPart, PoolSort, Survey};
use crate::sys;

/// What the pages are that were not found to exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Zero: they do not exist.
    Zero,
    /// The bytes of the file with this path.
    File(Arc<str>),
    /// Unknown.
    NotSaved(Arc<str>),
}

/// One shared mapping of the group.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Which.
    pub key: FileKey,
    /// Its member in the bundle.
    pub member: String,
    /// Its name in `maps`.
    pub name: String,
    /// The parts of it that some process maps, as offsets in it.
    pub mapped: Vec<Span>,
    /// Its pages to copy, by rising offset.
    pub runs: Vec<Run>,
    /// What the other pages are.
    pub rest: Rest,
    /// Length of the file behind it; beyond it a mapping holds nothing.
    pub size: Option<u64>,
    /// How the pages were found, for a person.
    pub found_by: &'static str,
    /// Only parts of it are wanted.
    pub partial: bool,
}

impl Pool {
    /// Bytes to be copied.
    pub fn data(&self) -> u64 {
        self.runs.iter().map(|run| run.length).sum()
    }
}

/// The pools of the group.
pub fn pools<'a>(surveys: impl Iterator<Item = &'a Survey>) -> Vec<Pool> {
    let mut parts: BTreeMap<FileKey, Vec<(u32, &PoolPart)>> = BTreeMap::new();
    for survey in surveys {
        for part in &survey.pools {
            parts.entry(part.key.clone()).or_default().push((survey.id, part));
        }
    }
    parts.into_iter().filter_map(|(key, parts)| pool(key, &parts)).collect()
}

fn pool(key: FileKey, parts: &[(u32, &PoolPart)]) -> Option<Pool> {
    let (_, first) = parts.first()?;
    let mapped = spans::merge(parts.iter().map(|(_, part)| part.offsets).collect());
    let mut pool = Pool {
        member: member::shared(&key.device, key.inode),
        key,
        name: first.name.clone(),
        mapped,
        runs: Vec::new(),
        rest: Rest::Zero,
        size: None,
        found_by: "SEEK_DATA",
        partial: false,
    };
    let wanted: Vec<Span> =
        parts.iter().filter_map(|(_, part)| part.only.as_deref()).flatten().copied().collect();
    if parts.iter().any(|(_, part)| part.only.is_some()) {
        return Some(partial(pool, parts, first.sort, &spans::merge(wanted)));
    }
    let refused = match first.sort {
        PoolSort::File => {
            pool.rest = Rest::File(first.name.as_str().into());
            pool.found_by = "union of pagemaps";
            pool.runs = touched(parts);
            return Some(pool);
        }
        PoolSort::Huge => "huge pages do not tell which of them exist".to_owned(),
        PoolSort::Memory => match existing(parts, &pool.mapped) {
            Ok((size, runs)) => {
                (pool.size, pool.runs) = (Some(size), runs);
                return Some(pool);
            }
            Err(error) => {
                tracing::warn!(pool = pool.member, %error, "its file cannot be asked for holes");
                "no process of the group has it in its page table; CAP_CHECKPOINT_RESTORE or \
                 CAP_SYS_ADMIN would tell"
                    .to_owned()
            }
        },
    };
    pool.rest = Rest::NotSaved(format!("may exist: {refused}").into());
    pool.found_by = "union of pagemaps";
    pool.runs = touched(parts);
    Some(pool)
}

/// A pool of which only these offsets are wanted.
fn partial(mut pool: Pool, parts: &[(u32, &PoolPart)], sort: PoolSort, wanted: &[Span]) -> Pool {
    pool.partial = true;
    pool.rest = Rest::NotSaved(NO_STACK.into());
    match existing(parts, wanted) {
        Ok((size, runs)) if sort == PoolSort::Memory => {
            (pool.size, pool.runs) = (Some(size), runs);
        }
        _ => {
            pool.found_by = "union of pagemaps";
            pool.runs = touched(parts);
        }
    }
    pool
}

/// What exists of some parts of it, as its own file says. Reading it later allocates nothing either.
fn existing(parts: &[(u32, &PoolPart)], mapped: &[Span]) -> io::Result<(u64, Vec<Run>)> {
    let mut opened = Err(io::Error::from(io::ErrorKind::NotFound));
    for (_, part) in parts {
        opened = File::open(&part.path);
        if opened.is_ok() {
            break;
        }
    }
    let file = Arc::new(opened?);
    let size = file.metadata()?.len();
    let mut runs = Vec::new();
    for span in mapped {
        let mut at = span.start;
        while at < span.end
            && let Some(data) = sys::next_data(&file, at)?
        {
            let data = Span::new(page_floor(data.start).max(at), page_ceil(data.end)).and(*span);
            if data.is_empty() {
                break;
            }
            // A file may end inside its last page; reading stops there too.
            let end = data.end.min(size.max(data.start));
            let length = end.saturating_sub(data.start);
            if length > 0 {
                let origin = Origin::File(Arc::clone(&file));
                runs.push(Run { at: data.start, from: data.start, length, origin });
            }
            at = data.end;
        }
    }
    Ok((size, runs))
}

/// The union of what the processes have touched, each page read through one that has.
fn touched(parts: &[(u32, &PoolPart)]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut known: Vec<(Span, ())> = Vec::new();
    for (id, part) in parts {
        // Pages of shared memory are not copied on write: either door will do.
        let door = Door::new(*id, true);
        for span in part.wanted() {
            let fresh = spans::split(span, &known).into_iter().filter(|(_, by)| by.is_none());
            for (span, _) in fresh {
                runs.push(Run {
                    at: span.start,
                    from: part.address + (span.start - part.offsets.start),
                    length: span.length(),
                    origin: Origin::Process(Arc::clone(&door)),
                });
            }
        }
        let all = known.iter().map(|(span, ())| *span).chain(part.wanted());
        known = spans::merge(all.collect()).into_iter().map(|span| (span, ())).collect();
    }
    runs.sort_by_key(|run| run.at);
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_file_each_page_is_read_through_a_process_that_has_it() {
        let part = |address, offsets: Span, touched: &[Span]| PoolPart {
            key: FileKey { device: "00:01".into(), inode: 7 },
            name: "/dev/zero (deleted)".into(),
            sort: PoolSort::Memory,
            offsets,
            address,
            touched: touched.to_vec(),
            path: "/nowhere".into(),
            only: None,
        };
        let one = part(0x10_0000, Span::new(0, 0x8000), &[Span::new(0x1000, 0x3000)]);
        let two = part(
            0x20_0000,
            Span::new(0x2000, 0xa000),
            &[Span::new(0x2000, 0x4000), Span::new(0x9000, 0xa000)],
        );
        let surveys = [
            Survey { id: 11, pools: vec![one], ..Survey::default() },
            Survey { id: 12, pools: vec![two], ..Survey::default() },
        ];
        let pools = pools(surveys.iter());
        let [pool] = pools.as_slice() else { panic!("{pools:?}") };
        assert_eq!(pool.mapped, [Span::new(0, 0xa000)]);
        assert!(matches!(&pool.rest, Rest::NotSaved(why) if why.contains("CAP_CHECKPOINT")));
        let runs: Vec<(u64, u64, u64, u32)> = pool
            .runs
            .iter()
            .map(|run| {
                let Origin::Process(door) = &run.origin else { panic!("{run:?}") };
                (run.at, run.from, run.length, door.id)
            })
            .collect();
        assert_eq!(
            runs,
            [
                (0x1000, 0x10_1000, 0x2000, 11),
                (0x3000, 0x20_1000, 0x1000, 12),
                (0x9000, 0x20_7000, 0x1000, 12)
            ]
        );
    }

    #[test]
    fn of_a_partial_pool_exactly_what_is_wanted_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(0x8000).unwrap();
        std::os::unix::fs::FileExt::write_all_at(file.as_file(), &[1; 0x3000], 0x2000).unwrap();
        let wanted =
            [Span::new(0x2010, 0x2018), Span::new(0x2ff0, 0x3010), Span::new(0x4f00, 0x6000)];
        let part = PoolPart {
            key: FileKey { device: "00:01".into(), inode: 7 },
            name: "/dev/zero (deleted)".into(),
            sort: PoolSort::Memory,
            offsets: Span::new(0, 0x8000),
            address: 0x10_0000,
            touched: Vec::new(),
            path: file.path().display().to_string(),
            only: Some(wanted.to_vec()),
        };
        // Two processes want the same.
        let survey = |id| Survey { id, pools: vec![part.clone()], ..Survey::default() };
        let surveys = [survey(11), survey(12)];
        let pools = pools(surveys.iter());
        let [pool] = pools.as_slice() else { panic!("{pools:?}") };
        let runs: Vec<(u64, u64)> = pool.runs.iter().map(|run| (run.at, run.length)).collect();
        // The file ends its data at a page of the file system.
        assert_eq!(runs, [(0x2010, 8), (0x2ff0, 0x20), (0x4f00, 0x100)]);
        assert_eq!((pool.partial, &pool.rest), (true, &Rest::NotSaved(NO_STACK.into())));
    }
}
