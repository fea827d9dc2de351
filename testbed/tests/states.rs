//! One command on a Kamailio in each of the states in which operators call for it: healthy, hung in
//! the lock of shared memory, spinning, with its main process ended by the OOM killer. The bundle is complete, no source overruns its deadline, the
//! first look names what is wrong, and the instance is no worse off than before.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test stops at the first surprise"
)]

use bundle::{Manifest, Outcome};
use testbed::hang::{self, pool, script};
use testbed::kamailio::{Instance, Manager, Options};
use testbed::load::{self, Kind, Traffic};
use testbed::memory_limit::MemoryLimit;
use testbed::proc;
use testbed::tools::{self, Finished};
use testbed::unpacked::Unpacked;

/// What one command gave.
struct Collected {
    finished: Finished,
    bundle: Unpacked,
    manifest: Manifest,
}

impl Collected {
    #[track_caller]
    fn of(name: &str, instance: &Instance) -> Self {
        Self::of_process(name, instance, instance.main_pid())
    }

    /// The same, of the group of this process.
    #[track_caller]
    fn of_process(name: &str, instance: &Instance, pid: u32) -> Self {
        let path = tools::scratch(&format!("states-{name}")).join("bundle.tar.zst");
        let finished = tools::collect(pid, &path);
        println!("{}", finished.text());
        let bundle = Unpacked::open(&path);
        let manifest = bundle.manifest();
        for source in &manifest.sources {
            let fine = matches!(source.outcome, Outcome::Collected | Outcome::Skipped { .. });
            assert!(fine, "{source:?}");
        }
        for &pid in instance.pids() {
            assert_eq!(proc::tracer(pid), 0, "tracer of {pid}");
        }
        Self { finished, bundle, manifest }
    }

    /// The lines of the first look.
    #[track_caller]
    fn first_look(&self) -> String {
        let text = self.finished.text();
        let (_, look) = text.split_once("first look: ").expect("a first look");
        look.split_once("bundle: ").expect("the bundle comes after it").0.to_owned()
    }

    /// An answer over RPC.
    fn answer(&self, method: &str) -> Option<String> {
        let path = self.bundle.path(&format!("kamailio/rpc/{method}.json"));
        std::fs::read_to_string(path).ok()
    }

    fn state_of_the_lock(&self) -> String {
        let text = std::fs::read(self.bundle.path("kamailio/memory.json")).unwrap();
        let memory: serde_json::Value = serde_json::from_slice(&text).unwrap();
        memory["shm_lock"]["state"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn assert_ends_with_safe_to_restart(&self) {
        assert!(self.finished.text().ends_with("\nsafe to restart now\n"), "{:?}", self.finished);
    }
}

#[test]
fn healthy() {
    for manager in [Manager::Qm, Manager::Fm, Manager::Tlsf] {
        let instance = Instance::start(hang_options(manager));
        let collected = Collected::of(&format!("healthy-{}", manager.name()), &instance);
        let look = collected.first_look();
        // The host's disks may be busy or full; that is not the instance's.
        let of_the_instance: Vec<&str> = look
            .lines()
            .map(str::trim)
            .filter(|line| {
                !line.starts_with("disk: ") && !line.starts_with("full: the file system")
            })
            .filter(|line| !line.starts_with("earlier: "))
            .collect();
        match of_the_instance.as_slice() {
            [] => {}
            [calm] => {
                assert!(calm.starts_with("nothing stands out: "), "{look}");
                assert!(calm.contains("0 of 6 workers are blocked"), "{look}");
            }
            _ => panic!("{look}"),
        }
        assert_eq!(collected.state_of_the_lock(), "free");
        assert!(collected.answer("core.shmmem").is_some(), "the lock is free, so it is asked");
        assert!(collected.answer("core.psx").is_some());
        assert_eq!(collected.manifest.processes.len(), instance.pids().len());
        collected.assert_ends_with_safe_to_restart();
        load::answered(&instance, 20);
    }
}

#[test]
fn hung_in_the_lock_of_shared_memory() {
    for manager in [Manager::Qm, Manager::Fm, Manager::Tlsf] {
        let instance = Instance::start(hang_options(manager));
        let hang = pool::stop_inside(&instance, manager);
        let collected = Collected::of(&format!("hung-{}", manager.name()), &instance);
        let look = collected.first_look();
        let waiters = hang.pool.waiters.len();
        assert!(look.contains(&format!("blocked: {waiters} of 6 workers")), "{look}");
        let holder = hang.pool.holder.pid;
        let all = instance.pids().len();
        let stopped = format!("stopped: 1 of {all} processes, in state T before we came: {holder}");
        assert!(look.starts_with(&stopped), "{look}");
        let lock = format!("at 0x{:x}, the lock of shared memory", hang.pool.lock);
        assert!(look.contains(&lock), "{lock}: {look}");
        let stays = format!("process {holder} was stopped before, and still is");
        assert!(collected.finished.text().contains(&stays));
        assert_eq!(collected.state_of_the_lock(), "held");
        assert!(collected.answer("core.psx").is_some(), "lock-free calls are made");
        for method in ["core.shmmem", "mod.stats"] {
            assert_eq!(collected.answer(method), None, "{method} takes the lock");
        }
        collected.assert_ends_with_safe_to_restart();

        // Nobody is wedged by us: the interface answers, and later the proxy does.
        assert_eq!(instance.rpc().processes().len(), instance.pids().len());
        drop(hang);
        load::answered(&instance, 20);
    }
}

#[test]
fn spinning() {
    let instance = Instance::start(hang::options());
    let worker = script::run_in_circles(&instance);
    let collected = Collected::of("spinning", &instance);
    let look = collected.first_look();
    let busy = format!("busy: thread {} ({}) used ", worker.pid, worker.role);
    assert!(look.starts_with(&busy), "{busy}: {look}");
    assert!(!look.contains("waited for a lock"), "{look}");
    collected.assert_ends_with_safe_to_restart();
}

/// The OOM killer takes the main process; the others are orphans that run on.
#[test]
fn without_its_main_process_which_the_oom_killer_took() {
    let mut instance = Instance::start(Options::default());
    let main = instance.main_pid();
    let mut workers = hang::processes(&instance);
    workers.retain(|process| process.role.starts_with("udp receiver"));
    let workers: Vec<u32> = workers.iter().map(|worker| worker.pid).collect();
    let [worker, others @ ..] = workers.as_slice() else { panic!("no workers") };
    // One worker takes all the memory, and the killer prefers the main process.
    proc::stop_all(others);
    std::fs::write(format!("/proc/{main}/oom_score_adj"), "1000").unwrap();
    let limit = MemoryLimit::of(&[main, *worker]);
    let traffic = Traffic::start(&instance, Kind::Keep, 300);
    proc::until("the OOM killer has come", || {
        instance.reap();
        !proc::is_alive(main)
    });
    drop((limit, traffic));
    proc::continue_all(others);
    let orphan = others[0];
    let collected = Collected::of_process("oom", &instance, orphan);
    let look = collected.first_look();
    let killed = format!("killed: kamailio ({main}), by the kernel for want of memory");
    assert!(look.contains(&killed), "{killed}: {look}");
    let pids = collected.bundle.pids();
    assert!(pids.contains(&orphan) && !pids.contains(&main), "{pids:?}");
    assert!(pids.len() >= instance.pids().len() - 2, "{pids:?}");
    collected.assert_ends_with_safe_to_restart();
}

fn hang_options(manager: Manager) -> Options {
    Options { manager, ..hang::options() }
}
