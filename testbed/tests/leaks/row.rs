//! One release with one memory manager.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use testbed::foreign::Root;
use testbed::kamailio::{Instance, Manager, Options};
use testbed::load::{self, Kind};
use testbed::plant::{Plan, Planted, Wanted};
use testbed::seed::Seed;
use testbed::{kernel, proc, tools};

use crate::answers::{Input, Leaks, Lost};
use crate::expected::{self, Held, Stale};
use crate::shapes::{self, FIRST_LINE};
use crate::stale::Search;
use crate::{others, paths};

/// Requests that the planted worker answers alone.
const ALONE: u32 = 200;

/// What all rows share.
#[derive(Debug)]
pub(crate) struct Bench {
    /// For bundles and cores.
    pub(crate) scratch: PathBuf,
    /// The seed.
    pub(crate) number: u64,
}

/// What one row counted.
#[derive(Debug)]
pub(crate) struct Row {
    /// Fragments that nothing points to by the plan.
    pub(crate) lost: usize,
    /// Of these, those that a stale word holds.
    pub(crate) stale: usize,
    /// Fragments that the program itself has lost, and that a stale word held before or after.
    pub(crate) moved: usize,
}

impl Bench {
    /// Plants into an instance of its own, and asks about bundles and cores of it.
    #[track_caller]
    pub(crate) fn row(&self, version: &str, root: Option<&Root>, manager: Manager) -> Row {
        let started = Instant::now();
        let case = format!("{version} {}", manager.name());
        let scratch = self.scratch.join(&case);
        std::fs::create_dir(&scratch).unwrap();
        let instance = Instance::start_in(root, Options { manager, ..Options::default() });
        assert!(instance.rpc().version().starts_with(&format!("kamailio {version} ")), "{case}");
        let (worker, other) = udp_workers(&instance);
        traffic(&instance, worker, other);
        let path = scratch.join("before.tar.zst");
        tools::collect(instance.main_pid(), &path);
        let earlier = Input { path: &path, is_bundle: true, sysroot: None };
        let before = earlier.leaks();
        assert_eq!(before.confidence.level, "high", "{case}: {:?}", before.confidence.missing);
        assert_eq!(planted_rows(&before.unreachable), [], "{case}: before");

        let shapes = shapes::thousand(Seed::of(self.number, &case));
        let sysroot = root.map_or(Path::new("/"), Root::directory);
        let planted = shapes.plan.carry_out(worker, sysroot, &scratch);
        traffic(&instance, worker, other);
        let later = scratch.join("after.tar.zst");
        tools::collect(instance.main_pid(), &later);
        let group = Input { path: &later, is_bundle: true, sysroot: None };
        let after = group.leaks();
        assert_eq!(after.confidence.level, "high", "{case}: {:?}", after.confidence.missing);
        let planted_case =
            Case { name: &case, plan: &shapes.plan, planted: &planted, worker, scratch: &scratch };
        let stale = planted_case.assert_told(group, &after);
        let moved = others::assert_same(&case, [earlier, group], [&before, &after]);
        for sample in &shapes.samples {
            paths::assert_path(group, &shapes.plan, &planted, sample, worker);
            paths::assert_reference(group, &shapes.plan, &planted, sample, worker);
        }

        let core = scratch.join("core");
        proc::stop_all(&[worker]);
        kernel::dump(worker, instance.directory(), &core);
        drop(instance);
        let alone = Input { path: &core, is_bundle: false, sysroot: root.map(Root::directory) };
        let said = alone.leaks();
        assert_eq!(said.confidence.level, "low", "{case}");
        let missing = &said.confidence.missing;
        let absent = "11 of the 12 processes are not in the input";
        assert!(missing.iter().any(|text| text.contains(absent)), "{case}: {missing:?}");
        planted_case.assert_told(alone, &said);

        let lost = expected::holds(&shapes.plan, &Stale::default());
        let lost = lost.iter().filter(|hold| **hold == Held::Nothing).count();
        println!(
            "{case:10}  {} planted, {lost} lost, {stale} of these held by stale words; of {} others \
             {moved} held by one before or after; {} paths; {:.1?}",
            planted.fragments.len(),
            others::all(&after).iter().map(|row| row.fragments).sum::<u64>(),
            shapes.samples.len(),
            started.elapsed(),
        );
        std::fs::remove_dir_all(&scratch).unwrap();
        Row { lost, stale, moved }
    }
}

/// What was planted, and into whom.
struct Case<'a> {
    name: &'a str,
    plan: &'a Plan,
    planted: &'a Planted,
    worker: u32,
    scratch: &'a Path,
}

impl Case<'_> {
    /// Asserts that the planted owners are told exactly, but for fragments that stale words hold;
    /// how many these are.
    #[track_caller]
    fn assert_told(&self, input: Input<'_>, said: &Leaks) -> usize {
        let Self { name, plan, planted, worker, scratch } = *self;
        assert_eq!(planted_rows(&said.inherited), [], "{name}");
        let told = [
            (Held::Nothing, planted_rows(&said.unreachable)),
            (Held::Stack, without_heads(planted_rows(&said.on_stacks))),
        ];
        let rows = |stale: &Stale, hold| {
            let rows = expected::rows(plan, planted, stale, hold, worker);
            if hold == Held::Stack { without_heads(rows) } else { rows }
        };
        let mut stale = Stale::default();
        let planned = expected::holds(plan, &stale);
        let wrong = told.iter().flat_map(|(hold, told)| differing(&rows(&stale, *hold), told));
        let wrong: Vec<(u32, Option<u32>)> = wrong.collect();
        let is_suspect = |index: &usize| {
            let Wanted { pool, line, .. } = plan.fragments[*index];
            planned[*index] != Held::Data
                && wrong.contains(&(line, expected::pool(pool, worker).pid))
        };
        let suspects = (0..planned.len()).filter(is_suspect).map(|index| (index, planned[index]));
        let suspects: Vec<(usize, Held)> = suspects.collect();
        if !suspects.is_empty() {
            let search = Search { input, plan, planted, worker, scratch, cores: BTreeMap::new() };
            stale = search.stale(&suspects);
        }
        for (hold, told) in &told {
            assert_eq!(
                told,
                &rows(&stale, *hold),
                "{name}: told, and {hold:?} as planned; {stale:?}"
            );
        }
        stale.held.len()
    }
}

/// The worker to plant into, and the other one over UDP.
fn udp_workers(instance: &Instance) -> (u32, u32) {
    let processes = instance.rpc().processes();
    let workers = processes.iter().zip(instance.pids());
    let workers = workers.filter(|(process, _)| process.description.starts_with("udp receiver"));
    let workers: Vec<u32> = workers.map(|(_, pid)| *pid).collect();
    let [first, second] = workers[..] else { panic!("two workers over UDP, not {workers:?}") };
    (first, second)
}

/// Requests of each kind, some of which only the first worker can answer.
#[track_caller]
fn traffic(instance: &Instance, worker: u32, other: u32) {
    load::send(instance, Kind::Keep, 300, 2000);
    load::send(instance, Kind::Register, 100, 2000);
    let woken = || -> u32 {
        let count = proc::status(worker, "voluntary_ctxt_switches").unwrap();
        count.parse().unwrap()
    };
    let before = woken();
    proc::stop_all(&[other]);
    load::answered(instance, ALONE);
    proc::continue_all(&[other]);
    assert!(woken() > before + ALONE / 10, "the worker has answered");
}

/// Rows of planted owners, sorted.
fn planted_rows(rows: &[Lost]) -> Vec<Lost> {
    let mut rows: Vec<Lost> = rows.iter().filter(|row| row.line >= FIRST_LINE).cloned().collect();
    rows.sort();
    rows
}

/// Line and process of rows that are not the same in both.
fn differing(one: &[Lost], other: &[Lost]) -> Vec<(u32, Option<u32>)> {
    let only = |these: &[Lost], those: &[Lost]| -> Vec<(u32, Option<u32>)> {
        let only = these.iter().filter(|row| !those.contains(row));
        only.map(|row| (row.line, row.pool.pid)).collect()
    };
    [only(one, other), only(other, one)].concat()
}

fn without_heads(mut rows: Vec<Lost>) -> Vec<Lost> {
    rows.iter_mut().for_each(|row| row.heads = 0);
    rows
}
