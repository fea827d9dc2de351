//! Three Debian releases with three memory managers each, and one pair of different ones: real
//! processes in root directories of their releases, collected from outside, analysed when they and
//! their files are gone, compared with what they said and with what gdb's scripts find in the
//! cores that are extracted from the bundle.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test stops at the first surprise; the rows are for a person"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use testbed::analysis::{Heap, Pool};
use testbed::foreign::{self, Root};
use testbed::kamailio::{Instance, Manager, Options};
use testbed::memlog::{Owner, Share};
use testbed::tools::Finished;
use testbed::{oracle, scripts, tools};

const REQUESTS: u32 = 3000;

/// What the releases bring.
const BULLSEYE: Release = Release { name: "bullseye", version: "5.4.4" };
const BOOKWORM: Release = Release { name: "bookworm", version: "5.6.3" };
const TRIXIE: Release = Release { name: "trixie", version: "6.0.1" };

const MANAGERS: [Manager; 3] = [Manager::Qm, Manager::Fm, Manager::Tlsf];

/// The processes that gdb is asked about, by their numbers in the process table: the main process,
/// a SIP worker and the timer.
const ASKED: [usize; 3] = [0, 1, 4];

#[derive(Clone, Copy)]
struct Release {
    name: &'static str,
    version: &'static str,
}

#[test]
fn every_release_with_every_manager() {
    let scratch = tools::scratch("releases");
    let make = |release: Release| -> JoinHandle<Root> {
        std::thread::spawn(move || Root::of(release.name))
    };
    let ready = |root: JoinHandle<Root>| root.join().expect("the release can be fetched");
    let (bullseye, trixie) = (make(BULLSEYE), make(TRIXIE));
    let bench = Bench { scratch: scratch.clone(), roots: foreign::directory() };

    // The host's own release, while the other two are fetched.
    let mut rows: Vec<String> =
        MANAGERS.iter().map(|&manager| bench.row(BOOKWORM, None, manager, manager)).collect();
    let bullseye = ready(bullseye);
    rows.extend(MANAGERS.map(|manager| bench.row(BULLSEYE, Some(&bullseye), manager, manager)));
    let trixie = ready(trixie);
    rows.extend(MANAGERS.map(|manager| bench.row(TRIXIE, Some(&trixie), manager, manager)));
    rows.push(bench.row(TRIXIE, Some(&trixie), Manager::Fm, Manager::Tlsf));

    assert_eq!(rows.len(), 10, "releases × managers and one mixed pair: {rows:#?}");
    fs::remove_dir_all(&scratch).unwrap();
}

struct Bench {
    /// For the bundle and what is extracted from it.
    scratch: PathBuf,
    /// Hidden from the analysis.
    roots: PathBuf,
}

impl Bench {
    /// Starts, exercises, collects and ends one instance, and compares the analysis with what it
    /// said and with gdb's.
    #[track_caller]
    fn row(
        &self,
        release: Release,
        root: Option<&Root>,
        private: Manager,
        shared: Manager,
    ) -> String {
        let private_manager = Some(private).filter(|own| *own != shared);
        let options = Options { manager: shared, private_manager, ..Options::default() };
        let instance = Instance::start_in(root, options);
        let version = instance.rpc().version();
        let expected = format!("kamailio {} ", release.version);
        assert!(version.starts_with(&expected), "{}: {version}", release.name);
        oracle::exercise(&instance, REQUESTS);
        let oracle = oracle::collect_between_readings(&instance, &self.bundle());
        assert!(oracle.reading.shared.fragments > 50, "the deletions left holes");
        let summaries = oracle::summaries_of_workers(&instance);
        let asked = ASKED.map(|index| instance.pids()[index]);
        drop(instance);

        let heap: Heap = self.forensics(&["heap", "--json"]).json();
        let case = format!("{version}, pkg {}, shm {}", private.name(), shared.name());
        assert!(heap.gaps.is_empty(), "{case}: everything is in the bundle: {:?}", heap.gaps);
        let program = heap.program.as_deref().unwrap_or_default();
        assert!(program.starts_with(&version), "{case}: {program}");
        for pool in &heap.pools {
            let manager = if pool.kind == "shm" { shared } else { private };
            assert_eq!(pool.manager, long_name(manager), "{case}: {} {:?}", pool.kind, pool.pid);
        }

        oracle.assert_shared(heap.shared());
        if shared != Manager::Tlsf {
            oracle.assert_shared_free(heap.shared());
        }
        if shared == Manager::Qm {
            let listed = self.forensics(&["heap", "--json", "--list", "--pool", "shm"]);
            oracle.assert_fragments(listed.json::<Heap>().shared());
        }
        oracle.assert_private_walks(&heap);
        if private == Manager::Qm {
            oracle.assert_private(&heap);
        }
        let owners = compare_summaries(&heap, &summaries);
        let program_root = root.map_or(Path::new("/"), Root::directory);
        let by_gdb = asked.map(|pid| self.compare_with_gdb(&heap, pid, program_root)).len();
        fs::remove_file(self.bundle()).unwrap();

        let (shm, first) = (heap.shared(), heap.private().next().unwrap());
        let row = format!(
            "{:8}  {}  {:9}  SHM {} used {} free = RPC = gdb; PKG {} processes, {} fragments = \
             block{} = gdb({by_gdb}) = pkg_summary({} workers, {owners} owners); {}",
            release.name,
            release.version,
            managers(private, shared),
            shm.walked().used_fragments,
            shm.walked().free_fragments,
            heap.private().count(),
            heap.private().map(fragments).sum::<u64>(),
            if private == Manager::Qm { " = pkg.stats" } else { "" },
            summaries.len(),
            layouts(first, shm),
        );
        println!("{row}");
        row
    }

    fn bundle(&self) -> PathBuf {
        self.scratch.join("group.tar.zst")
    }

    /// Extracts the core of one process with the program's files, and compares what gdb's scripts
    /// find there with `heap`. `root` is where the program had its root directory.
    #[track_caller]
    fn compare_with_gdb(&self, heap: &Heap, pid: u32, root: &Path) {
        let (core, files) = (self.scratch.join("core"), self.scratch.join("files"));
        let (number, output) = (pid.to_string(), core.display().to_string());
        let modules = files.display().to_string();
        self.forensics(&["extract", "--pid", &number, "-o", &output, "--modules-to", &modules]);
        let sysroot = files.join(root.strip_prefix("/").unwrap());
        let program = sysroot.join("usr/sbin/kamailio");
        assert!(program.is_file(), "no program at {}", program.display());
        let said = self.offline(&scripts::questions(&sysroot, &program, &core)).expect(&[0]);
        let said = scripts::read(&said.text());
        said.private.assert_same(heap.private_of(pid));
        said.shared.assert_same(heap.shared());
        fs::remove_file(&core).unwrap();
        fs::remove_dir_all(&files).unwrap();
    }

    /// `forensics` about the bundle, offline.
    #[track_caller]
    fn forensics(&self, arguments: &[&str]) -> Finished {
        let mut command = tools::forensics();
        command.args(arguments).arg(self.bundle());
        self.offline(&command).expect(&[0, 1])
    }

    /// Runs a command where neither the roots nor this host's Kamailio exist.
    #[track_caller]
    fn offline(&self, inner: &Command) -> Finished {
        const HIDE: &str = "while [ \"$1\" != -- ]; do mount -t tmpfs none \"$1\"; shift; done
shift
exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-euc", HIDE, "sh", "/usr/sbin"]);
        command.args(library_directories()).arg(&self.roots).arg("--");
        command.arg(inner.get_program()).args(inner.get_args());
        tools::run(&mut command, tools::PATIENCE)
    }
}

/// Compares every owner in the private pools of the processes that wrote a summary; how many
/// there are in the shortest of them.
#[track_caller]
fn compare_summaries(heap: &Heap, summaries: &BTreeMap<u32, BTreeMap<Owner, Share>>) -> usize {
    assert_eq!(summaries.len(), 2, "SIP workers over UDP");
    for (pid, said) in summaries {
        oracle::assert_private_owners(heap.private_of(*pid), said);
    }
    let owners = summaries.values().map(BTreeMap::len).min().unwrap();
    assert!(owners >= 20, "only {owners} owners in a worker's private pool");
    owners
}

/// Where this host's Kamailio has its modules: `/usr/lib/TRIPLE/kamailio`.
fn library_directories() -> Vec<PathBuf> {
    let triples = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> =
        triples.map(|triple| triple.join("kamailio")).filter(|path| path.is_dir()).collect();
    assert!(!found.is_empty(), "this host's Kamailio has modules");
    found
}

fn long_name(manager: Manager) -> &'static str {
    match manager {
        Manager::Qm => "q_malloc",
        Manager::Fm => "f_malloc",
        Manager::Tlsf => "tlsf_malloc",
    }
}

/// As in `-x` and `-X`.
fn managers(private: Manager, shared: Manager) -> String {
    if private == shared {
        shared.name().to_owned()
    } else {
        format!("{} -X {}", shared.name(), private.name())
    }
}

fn layouts(private: &Pool, shared: &Pool) -> String {
    let name = |pool: &Pool| {
        let layout = pool.layout.clone().expect("a walked pool has a layout");
        layout.layout.unwrap_or(layout.source)
    };
    let (private, shared) = (name(private), name(shared));
    if private == shared { private } else { format!("PKG {private}, SHM {shared}") }
}

fn fragments(pool: &Pool) -> u64 {
    let walked = pool.walked();
    walked.used_fragments + walked.free_fragments
}
