//! Three Debian releases with three memory managers each, and one pair of different ones: real
//! processes in root directories of their releases, collected from outside, analysed when they and
//! their files are gone, compared with what they said.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test stops at the first surprise; the rows are for a person"
)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::JoinHandle;

use testbed::analysis::{Heap, Pool};
use testbed::foreign::Root;
use testbed::kamailio::{Instance, Manager, Options};
use testbed::{oracle, tools};

const REQUESTS: u32 = 3000;

/// What the releases bring.
const BULLSEYE: Release = Release { name: "bullseye", version: "5.4.4" };
const BOOKWORM: Release = Release { name: "bookworm", version: "5.6.3" };
const TRIXIE: Release = Release { name: "trixie", version: "6.0.1" };

const MANAGERS: [Manager; 3] = [Manager::Qm, Manager::Fm, Manager::Tlsf];

#[derive(Clone, Copy)]
struct Release {
    name: &'static str,
    version: &'static str,
}

#[test]
fn every_release_with_every_manager() {
    let scratch = tools::scratch("releases");
    let roots = scratch.join("roots");
    fs::create_dir(&roots).unwrap();
    let make = |release: Release| -> JoinHandle<Root> {
        let roots = roots.clone();
        std::thread::spawn(move || Root::make(release.name, &roots))
    };
    let ready = |root: JoinHandle<Root>| root.join().expect("the release can be fetched");
    let (bullseye, trixie) = (make(BULLSEYE), make(TRIXIE));
    let bench = Bench { bundle: scratch.join("group.tar.zst"), roots: roots.clone() };

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
    bundle: PathBuf,
    /// Hidden from the analysis.
    roots: PathBuf,
}

impl Bench {
    /// Starts, exercises, collects and ends one instance, and compares the analysis with what it
    /// said.
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
        let oracle = oracle::collect_between_readings(&instance, &self.bundle);
        assert!(oracle.reading.shared.fragments > 50, "the deletions left holes");
        drop(instance);

        let heap: Heap = self.offline(&["heap", "--json"]);
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
            let listed: Heap = self.offline(&["heap", "--json", "--list", "--pool", "shm"]);
            oracle.assert_fragments(listed.shared());
        }
        oracle.assert_private_walks(&heap);
        if private == Manager::Qm {
            oracle.assert_private(&heap);
        }
        fs::remove_file(&self.bundle).unwrap();

        let first = heap.private().next().unwrap();
        let row = format!(
            "{:8}  {version}  pkg {:4} shm {:4}  pkg layout {}; shm layout {}  {} pkg pools, {} \
             fragments; shm {} fragments  equal",
            release.name,
            private.name(),
            shared.name(),
            layout(first),
            layout(heap.shared()),
            heap.private().count(),
            heap.private().map(fragments).sum::<u64>(),
            fragments(heap.shared()),
        );
        println!("{row}");
        row
    }

    /// `forensics` about the bundle where neither the roots nor this host's Kamailio exist.
    #[track_caller]
    fn offline(&self, arguments: &[&str]) -> Heap {
        const HIDE: &str = "while [ \"$1\" != -- ]; do mount -t tmpfs none \"$1\"; shift; done
shift
exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-euc", HIDE, "sh", "/usr/sbin"]);
        command.args(library_directories()).arg(&self.roots).arg("--");
        command.arg(tools::forensics().get_program()).args(arguments).arg(&self.bundle);
        tools::run(&mut command, tools::PATIENCE).expect(&[0, 1]).json()
    }
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

#[track_caller]
fn layout(pool: &Pool) -> &str {
    let layout = pool.layout.as_ref().expect("a walked pool has a layout");
    layout.layout.as_deref().unwrap_or(&layout.source)
}

fn fragments(pool: &Pool) -> u64 {
    let walked = pool.walked();
    walked.used_fragments + walked.free_fragments
}
