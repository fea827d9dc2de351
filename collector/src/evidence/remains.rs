//! The ELF files that a dead process had mapped: `modules/BUILDID/NAME`, whole.
//!
//! Its core names them. A file is taken only if it still has the build ID that the core has of it;
//! one that was replaced since would name the wrong functions, and is a gap. Where the core has no
//! build ID of it, the file is taken by its name, which is said.

use std::time::Duration;

use bundle::Phase;

use super::modules::Shelf;
use super::{Context, Drawer, Needs, Source};
use crate::build_id;
use crate::files::Root;

/// A larger file is no program.
const LONGEST: u64 = 1 << 30;

/// What is left of a program that is gone, for sources that are asked post mortem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// The words of its command line: of its unit's `ExecStart`, else what its core has of them.
    pub command_line: Vec<String>,
    /// Where it worked, as far as its unit or its options tell.
    pub working_directory: Option<String>,
    /// Its systemd unit, with `.service`.
    pub unit: Option<String>,
    /// The unit's files.
    pub unit_files: Vec<String>,
    /// [`Context::files`] is another system, mounted here.
    pub mounted: bool,
    /// The files that its cores had mapped.
    pub files: Vec<MappedFile>,
    /// Build IDs of ELF files in its cores whose paths are lost.
    pub nameless: Vec<String>,
    /// Files of our own root that the operator named for it, and where the program is installed.
    pub candidates: Vec<String>,
}

/// A file that a dead process had mapped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MappedFile {
    /// As the process saw it; may end in ` (deleted)`.
    pub path: String,
    /// From its first page in the core, in lower-case hex; `None` where the core lacks that page.
    pub build_id: Option<String>,
    /// Its first page is in the core and is that of an ELF file.
    pub is_elf: bool,
}

#[derive(Debug)]
pub(crate) struct DeadModules;

impl Source for DeadModules {
    fn name(&self) -> &'static str {
        "modules"
    }

    fn about(&self) -> &'static str {
        "the program and its libraries, as far as they are those of the core"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn needs(&self) -> Needs {
        Needs::Files
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let Some(remains) = &context.remains else { return Ok(()) };
        let mut shelf = Shelf::new(context.modules);
        let mut offered: Vec<String> = Vec::new();
        for path in &remains.candidates {
            let Some(content) = read_elf(&Root::own(), path) else { continue };
            let Some(id) = build_id::of_file(&content) else { continue };
            let mapped = remains.files.iter().find(|file| file.build_id.as_ref() == Some(&id));
            if mapped.is_some() || remains.nameless.contains(&id) {
                let name = mapped.map_or(path, |file| &file.path);
                shelf.put(name, path.clone(), content, out);
                offered.push(id);
            }
        }
        for file in remains.files.iter().filter(|file| is_file(&file.path)) {
            if out.is_given_up() {
                break;
            }
            if !file.build_id.as_ref().is_some_and(|id| offered.contains(id)) {
                take(file, context, &mut shelf, out);
            }
        }
        let lost = remains.nameless.iter().filter(|id| !offered.contains(id)).count();
        if lost > 0 {
            let why = "their paths were in the part of the core that is lost; name the program's \
                file with --executable";
            out.gap(format!("files of {lost} modules"), why);
        }
        shelf.close(out);
        Ok(())
    }
}

fn take(file: &MappedFile, context: &Context, shelf: &mut Shelf, out: &Drawer) {
    let path = file.path.strip_suffix(" (deleted)").unwrap_or(&file.path);
    let what = format!("module {path}");
    let Some(content) = read_elf(&context.files, path) else {
        if file.is_elf {
            let id = file.build_id.as_deref().unwrap_or("none");
            out.gap(what, format!("there is no such file any more (build ID {id})"));
        }
        return;
    };
    match (&file.build_id, build_id::of_file(&content)) {
        (Some(then), Some(now)) if *then == now => {}
        (Some(then), now) => {
            let now = now.unwrap_or_else(|| "none".to_owned());
            let why = format!("replaced since: the core has build ID {then}, the file now {now}");
            out.gap(what, why);
            return;
        }
        (None, _) if file.is_elf => {}
        (None, _) => {
            let why = "the core lacks its first page: it was taken by its name, and may not be the \
                file that was mapped";
            out.left_out(format!("proof that {what} is the right one"), why);
        }
    }
    shelf.put(&file.path, path.to_owned(), content, out);
}

/// The bytes of a file, if it is an ELF file.
fn read_elf(root: &Root, path: &str) -> Option<Vec<u8>> {
    if root.read(path, 4).ok()?.content != b"\x7fELF" {
        return None;
    }
    Some(root.read(path, LONGEST).ok()?.content)
}

/// Whether a mapping can have been that of a file with this name: shared memory has names of files
/// that do not exist.
fn is_file(path: &str) -> bool {
    path.starts_with('/')
        && !["/dev/", "/SYSV", "/memfd:", "/proc/", "/sys/"]
            .iter()
            .any(|start| path.starts_with(start))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::bundle_writer::Bundle;

    /// The members and gaps for what a core had mapped, in a root that has `/usr/bin/prog`, a copy
    /// of this host's `env`.
    fn collected(remains: Remains) -> (Vec<String>, Vec<(String, String, bool)>) {
        static SOURCE: DeadModules = DeadModules;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("usr/bin/prog");
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        std::fs::copy("/usr/bin/env", &program).unwrap();
        std::fs::write(folder.path().join("data"), "no ELF file").unwrap();
        let context = Context {
            files: Root::at(folder.path()).unwrap(),
            remains: Some(remains),
            ..Context::default()
        };
        let mut bundle = Bundle::create(&folder.path().join("b.tar.zst"), 1).unwrap();
        let later = Instant::now() + Duration::from_secs(60);
        super::super::run(&SOURCE, &Arc::new(context), &mut bundle, later).unwrap();
        let manifest = bundle.seal(true).unwrap().manifest;
        let gap = |gap: bundle::GapRecord| (gap.what, gap.why, gap.expected);
        let members = manifest.members.into_iter().map(|member| member.path);
        let members = members.filter(|path| path.starts_with("modules/")).collect();
        (members, manifest.gaps.into_iter().map(gap).collect())
    }

    fn env_id() -> String {
        build_id::of_file(&std::fs::read("/usr/bin/env").unwrap()).unwrap()
    }

    fn mapped(path: &str, build_id: Option<String>, is_elf: bool) -> Remains {
        let files = vec![MappedFile { path: path.to_owned(), build_id, is_elf }];
        Remains { files, ..Remains::default() }
    }

    #[test]
    fn a_file_with_the_cores_build_id_is_taken() {
        let (members, gaps) = collected(mapped("/usr/bin/prog (deleted)", Some(env_id()), true));
        assert_eq!(members, [format!("modules/{}/prog", env_id())]);
        assert_eq!(gaps, []);
    }

    #[test]
    fn a_file_that_was_replaced_is_a_gap() {
        let (members, gaps) = collected(mapped("/usr/bin/prog", Some("00ff".into()), true));
        assert_eq!(members, [""; 0]);
        let (what, why, expected) = &gaps[0];
        assert_eq!((what.as_str(), *expected), ("module /usr/bin/prog", false));
        assert!(why.starts_with("replaced since: the core has build ID 00ff, the file now "));
    }

    #[test]
    fn a_file_without_a_build_id_in_the_core_is_taken_by_its_name() {
        let (members, gaps) = collected(mapped("/usr/bin/prog", None, false));
        assert_eq!(members.len(), 1);
        assert!(gaps[0].1.contains("taken by its name") && gaps[0].2, "{gaps:?}");
    }

    #[test]
    fn what_was_never_a_file_is_not_missed() {
        assert_eq!(collected(mapped("/dev/zero (deleted)", None, false)), (vec![], vec![]));
        assert_eq!(collected(mapped("/data", None, false)), (vec![], vec![]));
        assert_eq!(collected(mapped("/gone.so", None, false)), (vec![], vec![]));
        assert_eq!(collected(mapped("/gone.so", Some("0f".into()), true)).1.len(), 1);
    }

    #[test]
    fn a_program_whose_path_is_lost_is_known_by_its_build_id() {
        let candidates = vec!["/nowhere".to_owned(), "/usr/bin/env".to_owned()];
        let nameless = vec![env_id(), "00ff".to_owned()];
        let (members, gaps) = collected(Remains { candidates, nameless, ..Remains::default() });
        assert_eq!(members, [format!("modules/{}/env", env_id())]);
        assert_eq!(gaps[0].0, "files of 1 modules");
    }
}
