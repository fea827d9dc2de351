//! One release with one memory manager.

use std::path::{Path, PathBuf};
use std::time::Instant;

use testbed::foreign::Root;
use testbed::kamailio::{Instance, Manager, Options};
use testbed::load::{self, Kind};
use testbed::plant::{Plan, Planted};
use testbed::seed::Seed;
use testbed::{kernel, oracle, proc, tools};

use crate::answers::{Input, Leaks, Lost};
use crate::expected::{self, Held};
use crate::shapes::{self, FIRST_LINE, Shapes};
use crate::{paths, stale};

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
        let before = Input { path: &path, sysroot: None }.leaks();
        assert_eq!(before.confidence.level, "high", "{case}: {:?}", before.confidence.missing);
        assert_eq!(planted_rows(&before.unreachable), [], "{case}: before");

        let shapes = shapes::thousand(Seed::of(self.number, &case));
        let sysroot = root.map_or(Path::new("/"), Root::directory);
        let planted = shapes.plan.carry_out(worker, sysroot, &scratch);
        traffic(&instance, worker, other);
        let path = scratch.join("after.tar.zst");
        tools::collect(instance.main_pid(), &path);
        let group = Input { path: &path, sysroot: None };
        let after = group.leaks();
        assert_eq!(after.confidence.level, "high", "{case}: {:?}", after.confidence.missing);
        let stale = self.assert_planted(&case, group, &after, &shapes, &planted, worker);
        assert_eq!(others(&after), others(&before), "{case}: what was unreachable before");
        for sample in shapes.samples.iter().filter(|_| std::env::var_os("NO_WHY").is_none()) {
            paths::assert_path(group, &shapes.plan, &planted, sample, worker);
            paths::assert_reference(group, &shapes.plan, &planted, sample, worker);
        }

        let core = scratch.join("core");
        proc::stop_all(&[worker]);
        kernel::dump(worker, instance.directory(), &core);
        drop(instance);
        let alone = Input { path: &core, sysroot: root.map(Root::directory) };
        let said = alone.leaks();
        assert_eq!(said.confidence.level, "low", "{case}");
        let missing = &said.confidence.missing;
        let absent = "11 of the 12 processes are not in the input";
        assert!(missing.iter().any(|text| text.contains(absent)), "{case}: {missing:?}");
        self.assert_planted(&case, alone, &said, &shapes, &planted, worker);

        let lost = expected::holds(&shapes.plan, &[]);
        let lost = lost.iter().filter(|hold| **hold == Held::Nothing).count();
        println!(
            "{case:10}  {} planted, {lost} lost, {stale} of these held by stale words; {} other rows \
             as before; {} paths; {:.1?}",
            planted.fragments.len(),
            others(&after).len(),
            shapes.samples.len(),
            started.elapsed(),
        );
        std::fs::remove_dir_all(&scratch).unwrap();
        Row { lost, stale }
    }

    /// Asserts that the planted owners are told exactly, but for fragments that stale words hold;
    /// how many these are.
    #[track_caller]
    fn assert_planted(
        &self,
        case: &str,
        input: Input<'_>,
        said: &Leaks,
        shapes: &Shapes,
        planted: &Planted,
        worker: u32,
    ) -> usize {
        let plan = &shapes.plan;
        let rows = |holds: &[Held], hold| expected::rows(plan, planted, holds, hold, worker);
        let (lost, stacks) = (planted_rows(&said.unreachable), planted_rows(&said.on_stacks));
        assert_eq!(planted_rows(&said.inherited), [], "{case}");
        let mut holds = expected::holds(plan, &[]);
        let suspects = suspects(plan, &holds, &rows(&holds, Held::Nothing), &lost);
        let held = stale::held(input, plan, planted, &suspects, worker, &self.scratch);
        holds = expected::holds(plan, &held);
        assert_same(case, &lost, &rows(&holds, Held::Nothing));
        let without_heads = |mut rows: Vec<Lost>| {
            rows.iter_mut().for_each(|row| row.heads = 0);
            rows
        };
        assert_same(case, &without_heads(stacks), &without_heads(rows(&holds, Held::Stack)));
        held.len()
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

/// All other rows, inherited ones included, sorted.
fn others(leaks: &Leaks) -> Vec<Lost> {
    let rows = leaks.unreachable.iter().chain(&leaks.inherited);
    let mut rows: Vec<Lost> = rows.filter(|row| row.line < FIRST_LINE).cloned().collect();
    rows.sort();
    rows
}

/// The fragments of those rows that were not told as expected.
fn suspects(plan: &Plan, holds: &[Held], expected: &[Lost], told: &[Lost]) -> Vec<usize> {
    let doubtful = |index: &usize| {
        let fragment = plan.fragments[*index];
        let own = |row: &&Lost| {
            row.line == fragment.line
                && row.pool.pid.is_some() == (fragment.pool == testbed::plant::Kind::Pkg)
        };
        holds[*index] == Held::Nothing
            && expected.iter().find(own).map(|row| row.fragments)
                != told.iter().find(own).map(|row| row.fragments)
    };
    (0..holds.len()).filter(doubtful).collect()
}

#[track_caller]
fn assert_same(case: &str, told: &[Lost], expected: &[Lost]) {
    let missing: Vec<&Lost> = expected.iter().filter(|row| !told.contains(row)).collect();
    let invented: Vec<&Lost> = told.iter().filter(|row| !expected.contains(row)).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "{case}: not told {missing:#?}, but {invented:#?}"
    );
}
