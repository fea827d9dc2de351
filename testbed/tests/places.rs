//! What `forensics` says of addresses and registers, against the kernel's list of mappings and
//! gdb's `info symbol`, for a bundle, for gdb's core of the same stopped worker, and for the core that
//! the kernel writes when that dies.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use bundle::PAGE_SIZE;
use forensics::case::{Case, CaseOptions};
use forensics::input::{Evidence, OpenOptions};
use forensics::modules::LibraryOptions;
use forensics::places::{Place, Places};
use forensics::symbols::SymbolOptions;
use object::SymbolKind;
use serde_json::Value;
use testbed::kamailio::{Instance, Options};
use testbed::proc::{self, Mapping};
use testbed::{gdb, kernel, oracle, tools};

const KAMAILIO: &str = "/usr/sbin/kamailio";

/// A worker as the kernel showed it while it stood still, and its dumps.
struct Worker {
    pid: u32,
    mappings: Vec<Mapping>,
    bundle: PathBuf,
    core: PathBuf,
    kernel_core: PathBuf,
    private: Range<u64>,
    shared: Range<u64>,
}

/// Made once for all tests of this file.
#[track_caller]
fn worker() -> &'static Worker {
    static WORKER: OnceLock<Option<Worker>> = OnceLock::new();
    let worker = WORKER.get_or_init(|| std::panic::catch_unwind(make_worker).ok());
    worker.as_ref().expect("the worker could be dumped; the first test says why not")
}

fn make_worker() -> Worker {
    let scratch = tools::scratch("places");
    let instance = Instance::start(Options::default());
    oracle::exercise(&instance, 2000);
    proc::stop_all(instance.pids());
    let pid = instance.pids()[1];
    let mappings = proc::mappings(pid);
    let (bundle, core) = (scratch.join("group.tar.zst"), scratch.join("core"));
    tools::collect(instance.main_pid(), &bundle);
    gdb::gcore(pid, &core);
    // `_pkg_root` and `_shm_root` hold the block's address at 16; a block holds its length at 8.
    let length = ["_pkg_root", "_shm_root"].map(|root| {
        let block = format!("*(long*)((char*)&{root}+16)");
        let said = gdb::ask(
            Path::new(KAMAILIO),
            &core,
            &[&format!("printf \"pool %ld %ld\\n\", {block}, *(long*)({block}+8)")],
        );
        let line = said.lines().find_map(|line| line.strip_prefix("pool ")).expect("gdb answers");
        let (block, length) = line.split_once(' ').unwrap();
        let (block, length): (u64, u64) = (block.parse().unwrap(), length.parse().unwrap());
        block..block + length
    });
    let [private, shared] = length;
    let kernel_core = scratch.join("kernel.core");
    kernel::dump(pid, instance.directory(), &kernel_core);
    Worker { pid, mappings, bundle, core, kernel_core, private, shared }
}

/// The case that an input is, without a walk.
fn case(input: &Path, this_host: bool) -> Case {
    let options = OpenOptions { memory: 2 << 30 };
    let evidence = Evidence::open(&[input.to_owned()], options).unwrap();
    let library = LibraryOptions { this_host, ..LibraryOptions::default() };
    let options = CaseOptions { without_pools: true, ..CaseOptions::default() };
    Case::build(evidence, &library, SymbolOptions::default(), options)
}

/// Asks an input about the worker: a question is answered by `ask`.
fn with_places(input: &Path, this_host: bool, ask: impl FnOnce(&dyn Fn(u64) -> Option<Place>)) {
    with_places_of(worker().pid, input, this_host, ask);
}

fn with_places_of(
    pid: u32,
    input: &Path,
    this_host: bool,
    ask: impl FnOnce(&dyn Fn(u64) -> Option<Place>),
) {
    let case = case(input, this_host);
    let index = case.members.iter().position(|member| member.process.pid == Some(pid)).unwrap();
    let places: Places<'_> = case.places();
    ask(&|value| places.of(index, value));
}

/// Addresses all over a mapping, its first and its last one included.
fn samples(mapping: &Mapping) -> Vec<u64> {
    let Range { start, end } = mapping.range;
    let step = ((end - start) / 37).max(8) | 1;
    let inner = (start..end).step_by(usize::try_from(step).unwrap());
    inner.chain([start + 8, end - 8, end - 1]).collect()
}

impl Worker {
    /// What an address is by the kernel's word, gdb's, and the order of mappings.
    fn truth(&self, at: u64) -> String {
        if self.shared.contains(&at) {
            return "SHM".to_owned();
        }
        if self.private.contains(&at) {
            return "PKG".to_owned();
        }
        let index = self.mappings.iter().position(|mapping| mapping.range.contains(&at));
        let Some(index) = index else { return "nothing".to_owned() };
        match self.mappings[index].name.as_str() {
            "[stack]" => format!("stack of thread {}", self.pid),
            "[heap]" => "C heap".to_owned(),
            "[vdso]" => "the kernel's vDSO".to_owned(),
            "" => self.of_nameless(at),
            name if is_module(name) => module_name(name),
            name if name.starts_with("/dev/zero") => "shared memory outside the pools".to_owned(),
            name => format!("mapped file {name}"),
        }
    }

    /// Memory without a name is the rest of a module's `.bss` up to the end of its last segment;
    /// the kernel may have joined it with what lies behind.
    fn of_nameless(&self, at: u64) -> String {
        let first = |mapping: &&Mapping| mapping.offset == 0 && is_module(&mapping.name);
        let modules = self.mappings.iter().filter(first);
        let before = modules.take_while(|mapping| mapping.range.start < at).last();
        match before.filter(|first| at < first.range.start + length_in_memory(&first.name)) {
            Some(first) => module_name(&first.name),
            None => "mapped, not known what".to_owned(),
        }
    }
}

fn is_module(name: &str) -> bool {
    name == KAMAILIO || name.contains(".so")
}

/// From a library's start to the last page of its last segment, in bytes.
fn length_in_memory(path: &str) -> u64 {
    use object::{Object as _, ObjectSegment as _};
    let bytes = std::fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let ends = file.segments().map(|segment| segment.address() + segment.size());
    ends.max().unwrap().next_multiple_of(PAGE_SIZE)
}

fn module_name(path: &str) -> String {
    format!("module {}", path.rsplit('/').next().unwrap())
}

/// An answer in the words of [`Worker::truth`].
fn plain(place: Option<Place>) -> String {
    match place {
        None => "nothing".to_owned(),
        Some(Place::Module(place)) => format!("module {}", place.module),
        Some(Place::Pkg { process: Some(process) }) => {
            let own = format!("process {} (udp receiver child=0", worker().pid);
            assert!(process.starts_with(&own), "{process}");
            "PKG".to_owned()
        }
        Some(place) => place.to_string(),
    }
}

/// Every mapping is what the kernel says; how many answers there were of each kind.
fn check_mappings(ask: &dyn Fn(u64) -> Option<Place>) {
    let worker = worker();
    let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
    for mapping in &worker.mappings {
        // The kernel's own pages and guards are in no core.
        let unsaved = ["[vvar", "[vsyscall"].iter().any(|name| mapping.name.starts_with(name));
        if unsaved || mapping.permissions.starts_with("---") {
            continue;
        }
        for at in samples(mapping) {
            let (truth, said) = (worker.truth(at), plain(ask(at)));
            assert_eq!(said, truth, "at {at:#x} in {mapping:x?}");
            *kinds.entry(truth).or_default() += 1;
        }
    }
    let stack = format!("stack of thread {}", worker.pid);
    for kind in ["SHM", "PKG", "C heap", &stack, "module kamailio", "module tm.so"] {
        assert!(kinds.get(kind).is_some_and(|count| *count >= 30), "too few of {kind}: {kinds:?}");
    }
    for pair in worker.mappings.windows(2) {
        let hole = pair[0].range.end..pair[1].range.start;
        if !hole.is_empty() {
            assert_eq!(ask(hole.start), None, "behind {:x?}", pair[0]);
        }
    }
}

fn check_values(ask: &dyn Fn(u64) -> Option<Place>) {
    let say = |value| ask(value).map(|place| place.to_string());
    assert_eq!(say(0x18).as_deref(), Some("NULL + 0x18"));
    assert_eq!(say(0xf0f0_f0f0).as_deref(), Some("the allocator's start check"));
    assert_eq!(say(0xabcd_efed).as_deref(), Some("the allocator's second end check"));
    assert_eq!(say(0x7367_7562_6874_6977), None, "text is no pointer");
}

#[test]
fn in_the_bundle_every_mapping_is_what_the_kernel_says() {
    with_places(&worker().bundle, false, |ask| {
        check_mappings(ask);
        check_values(ask);
    });
}

#[test]
fn in_gdbs_core_every_mapping_is_what_the_kernel_says() {
    with_places(&worker().core, true, |ask| {
        check_mappings(ask);
        check_values(ask);
    });
}

#[test]
fn in_the_kernels_core_every_mapping_is_what_the_kernel_said() {
    with_places(&worker().kernel_core, true, check_mappings);
}

/// What gdb says of an address: name, offset and section.
#[derive(Debug, PartialEq, Eq)]
struct Symbol {
    name: String,
    offset: u64,
    section: String,
}

/// `t_relay + 28 in section .text of …` or `main in section .text`; `None` without a match.
fn parse_symbol(line: &str) -> Option<Symbol> {
    let (symbol, rest) = line.split_once(" in section ")?;
    let section = rest.split(' ').next().unwrap().to_owned();
    let (name, offset) = symbol.split_once(" + ").unwrap_or((symbol, "0"));
    let name = name.split('@').next().unwrap().to_owned();
    Some(Symbol { name, offset: offset.parse().unwrap(), section })
}

/// gdb's answers, one for each address.
fn info_symbol(executable: &Path, core: &Path, addresses: &[u64]) -> Vec<String> {
    let commands: Vec<String> = addresses
        .iter()
        .flat_map(|at| ["echo >>>".to_owned(), format!("info symbol {at:#x}")])
        .collect();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let said = gdb::ask(executable, core, &commands);
    let answers: Vec<String> =
        said.split(">>>").skip(1).map(|answer| answer.trim().to_owned()).collect();
    assert_eq!(answers.len(), addresses.len(), "{said}");
    answers
}

/// The addresses of symbols, by gdb.
fn addresses_of(names: &[&str]) -> Vec<u64> {
    let commands: Vec<String> =
        names.iter().map(|name| format!("printf \"address %ld\\n\", (long)&{name}")).collect();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let said = gdb::ask(Path::new(KAMAILIO), &worker().core, &commands);
    let lines = said.lines().filter_map(|line| line.strip_prefix("address "));
    let addresses: Vec<u64> = lines.map(|line| line.parse().unwrap()).collect();
    assert_eq!(addresses.len(), names.len(), "{said}");
    addresses
}

/// A stripped file's own symbols, by name and with an offset.
fn check_exports(ask: &dyn Fn(u64) -> Option<Place>) {
    let names = ["main", "_pkg_root", "_shm_root", "receive_msg", "full_version", "qm_malloc"];
    for (name, at) in names.iter().zip(addresses_of(&names)) {
        for offset in [0, 3] {
            let Some(Place::Module(place)) = ask(at + offset) else { panic!("{name} at {at:#x}") };
            let symbol = place.symbol.unwrap_or_else(|| panic!("{name} at {at:#x}"));
            assert_eq!((symbol.name.as_str(), symbol.offset), (*name, offset));
            assert_eq!(place.module, "kamailio");
        }
    }
}

/// Hundreds of addresses all over the program and its modules.
fn check_symbols(ask: &dyn Fn(u64) -> Option<Place>) {
    let worker = worker();
    // Of the C library gdb may know more than the file says: its debug information is packaged.
    let ours = |mapping: &&Mapping| {
        mapping.name == KAMAILIO || mapping.name.contains("/kamailio/modules/")
    };
    let addresses: Vec<u64> = worker.mappings.iter().filter(ours).flat_map(samples).collect();
    let answers = info_symbol(Path::new(KAMAILIO), &worker.core, &addresses);
    let (mut named, mut unnamed) = (0, 0);
    for (at, answer) in addresses.iter().zip(answers) {
        let Some(Place::Module(place)) = ask(*at) else { panic!("{at:#x} is in a module") };
        let told = parse_symbol(&answer);
        // gdb names stubs of the procedure linkage table, which no symbol table has, and marks
        // without a type or size (`_edata`).
        let is_stub = answer.contains("@plt") || answer.contains("@got");
        let is_mark = |told: &Symbol| exported(&place.module, &told.name).1 == SymbolKind::Unknown;
        let Some(told) = told.filter(|told| !is_stub && !is_mark(told)) else {
            assert_eq!(place.symbol, None, "{at:#x}: {answer}");
            unnamed += 1;
            continue;
        };
        let symbol = place.symbol.unwrap_or_else(|| panic!("{at:#x}: {answer}"));
        assert_eq!(place.section.as_deref(), Some(told.section.as_str()), "{at:#x}: {answer}");
        assert_eq!(symbol.offset, told.offset, "{at:#x}: {answer}, not {}", symbol.name);
        if symbol.name != told.name {
            // One address may have several names.
            assert_eq!(
                exported(&place.module, &symbol.name),
                exported(&place.module, &told.name),
                "{at:#x}: {answer}, not {}",
                symbol.name
            );
        }
        named += 1;
    }
    assert!(named > 100 && unnamed > 20, "{named} addresses have a symbol, {unnamed} have none");
}

/// Value and kind of an exported symbol.
fn exported(module: &str, name: &str) -> (u64, SymbolKind) {
    use object::{Object as _, ObjectSymbol as _};
    let path = worker().mappings.iter().find(|m| m.name.ends_with(&format!("/{module}"))).unwrap();
    let bytes = std::fs::read(&path.name).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbol = file.dynamic_symbols().find(|symbol| symbol.name() == Ok(name));
    let symbol = symbol.unwrap_or_else(|| panic!("{module} exports no {name}"));
    (symbol.address(), symbol.kind())
}

#[test]
fn in_the_bundle_symbols_are_those_of_gdb() {
    with_places(&worker().bundle, false, |ask| {
        check_exports(ask);
        check_symbols(ask);
    });
}

#[test]
fn in_gdbs_core_symbols_are_those_of_gdb() {
    with_places(&worker().core, true, |ask| {
        check_exports(ask);
        check_symbols(ask);
    });
}

/// The worker's registers by `forensics info --registers`.
fn registers(input: &Path) -> BTreeMap<String, (u64, Option<String>)> {
    let mut command = tools::forensics();
    command.args(["info", "--registers", "--json"]).arg(input);
    let report: Value = tools::run(&mut command, tools::PATIENCE).expect(&[0, 1]).json();
    let processes = report["processes"].as_array().unwrap();
    let process = processes.iter().find(|process| process["pid"] == worker().pid).unwrap();
    let thread = &process["registers"][0];
    assert_eq!(thread["tid"], worker().pid);
    let register = |value: &Value| {
        let number = value["value"].as_str().unwrap().trim_start_matches("0x");
        let place = value["place"].as_str().map(str::to_owned);
        let name = value["name"].as_str().unwrap().to_owned();
        (name, (u64::from_str_radix(number, 16).unwrap(), place))
    };
    thread["values"].as_array().unwrap().iter().map(register).collect()
}

#[test]
fn registers_are_those_of_gdb_in_both() {
    let worker = worker();
    let ours = registers(&worker.core);
    let said = gdb::ask(
        Path::new(KAMAILIO),
        &worker.core,
        &["info registers", "info registers fs_base gs_base", "info symbol $pc"],
    );
    let mut compared = BTreeSet::new();
    for line in said.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else { continue };
        let Some((own, _)) = ours.get(name) else { continue };
        let value = u64::from_str_radix(value.trim_start_matches("0x"), 16).unwrap();
        assert_eq!(*own, value, "{name}");
        compared.insert(name);
    }
    assert_eq!(compared.len(), 26, "all but orig_rax: {said}");
    let stack = format!("stack of thread {}", worker.pid);
    assert_eq!(ours["rsp"].1.as_ref(), Some(&stack));
    assert_eq!(ours["cs"].1, None);
    let pc = said.lines().find_map(parse_symbol).expect("gdb names the program counter");
    let place = ours["rip"].1.clone().unwrap();
    assert!(place.ends_with(&format!("{}+{:#x}", pc.name, pc.offset)), "{place}; gdb: {pc:?}");
    assert_eq!(registers(&worker.bundle), ours, "the bundle's (left) and gdb's core's");
}

/// A program whose threads have arenas of their own, and what it says of its addresses.
struct Arenas {
    child: Child,
    /// (address, its place)
    said: Vec<(u64, String)>,
}

impl Arenas {
    fn start(scratch: &Path) -> Self {
        let program = scratch.join("arenas");
        let mut compiler = Command::new("gcc");
        compiler.args(["-O1", "-pthread", "-o"]).arg(&program);
        compiler.arg(tools::workspace().join("testbed/config/arenas.c"));
        tools::run(&mut compiler, tools::PATIENCE).expect(&[0]);
        let mut child = Command::new(&program).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let lines = lines.map(Result::unwrap).take_while(|line| line != "ready");
        let said = lines.map(|line| Self::parse(&line)).collect();
        Self { child, said }
    }

    /// `heap 0x…` or `stack TID 0x…`
    fn parse(line: &str) -> (u64, String) {
        let (place, address) = line.rsplit_once(" 0x").unwrap();
        let place = match place.split_once(' ') {
            Some((_, thread)) => format!("stack of thread {thread}"),
            None => "C heap".to_owned(),
        };
        (u64::from_str_radix(address, 16).unwrap(), place)
    }
}

impl Drop for Arenas {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn threads_have_stacks_and_arenas_of_their_own() {
    let scratch = tools::scratch("places-arenas");
    let arenas = Arenas::start(&scratch);
    let pid = arenas.child.id();
    let (bundle, core) = (scratch.join("arenas.tar.zst"), scratch.join("core"));
    tools::collect(pid, &bundle);
    gdb::gcore(pid, &core);
    let heap = arenas.said.iter().filter(|(_, place)| place == "C heap").count();
    assert_eq!((heap, arenas.said.len()), (1 + 2 + 20 + 50 + 4, heap + 5));
    for (input, this_host) in [(&bundle, false), (&core, true)] {
        with_places_of(pid, input, this_host, |ask| {
            for (at, place) in &arenas.said {
                let said = ask(*at).map(|place| place.to_string());
                assert_eq!(said.as_ref(), Some(place), "{at:#x} in {}", input.display());
            }
        });
    }
}
