//! Where a bundle goes, how large it becomes, how long it takes: real collections of a small group.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bundle::frames::{FrameIndex, decompress};
use bundle::{Manifest, Outcome};
use common::{Victim, assert_untouched, collector};

/// A collection of the victim that is ready to run, but for where it goes.
fn collection(victim: &Victim, arguments: &[&str]) -> Command {
    let mut command = collector();
    command.args(["--pid", &victim.pid().to_string()]).args(arguments);
    command
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// All members of a sealed or a cut bundle, as one tar archive.
fn content(file: &[u8]) -> Vec<u8> {
    let index = FrameIndex::read(file).unwrap();
    index.frames.iter().flat_map(|frame| decompress(file, frame).unwrap()).collect()
}

fn manifest(file: &Path) -> Manifest {
    let mut tar = Command::new("tar");
    let output = tar.args(["--zstd", "-xOf"]).arg(file).arg("manifest.json").output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Starts it, and reads its words up to the thaw.
fn started_and_thawed(mut command: Command) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut running = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(running.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("thawed") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it ended before the thaw");
    }
    (running, lines)
}

#[test]
fn a_folder_gets_a_bundle_of_the_usual_name() {
    let victim = Victim::start(&["threads", "1"]);
    let folder = tempfile::tempdir().unwrap();
    let output = collection(&victim, &["-o"]).arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let names = entries(folder.path());
    let [name] = names.as_slice() else { panic!("{names:?}") };
    assert!(name.starts_with("evidence-") && name.ends_with("Z.tar.zst"), "{name}");
    assert!(String::from_utf8_lossy(&output.stdout).contains(name.as_str()));
}

#[test]
fn standard_output_carries_the_bundle_and_nothing_else() {
    let victim = Victim::start(&["threads", "1"]);
    let output = collection(&victim, &["-o", "-"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(words(&output).contains("safe to restart now"), "{}", words(&output));
    let archive = content(&output.stdout);
    assert!(archive.starts_with(b"header.json\0"));
    assert!(archive.windows(13).any(|window| window == b"manifest.json"));
    assert_eq!(
        FrameIndex::read(&output.stdout).unwrap().source,
        bundle::frames::IndexSource::SeekTable
    );
}

#[test]
fn standard_output_may_be_a_file() {
    let victim = Victim::start(&["threads", "1"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b");
    let mut command = collection(&victim, &["-q", "-o", "-"]);
    let output = command.stdout(fs::File::create(&path).unwrap()).output().unwrap();
    assert_eq!((output.status.code(), words(&output).as_str()), (Some(0), ""));
    assert_eq!(manifest(&path).processes[0].pid, victim.pid());
}

#[test]
fn a_terminal_gets_no_bundle() {
    let victim = Victim::start(&["threads", "0"]);
    let program = env!("CARGO_BIN_EXE_collect-evidence");
    let line = format!("{program} --pid {} -o -", victim.pid());
    let mut script = Command::new("script");
    let output = script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("standard output is a terminal"), "{text}");
}

#[test]
fn a_pipe_that_nobody_reads_any_more_ends_it_in_words() {
    let victim = Victim::start(&["noise", "8"]);
    let mut command = collection(&victim, &["-o", "-"]);
    let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = running.stdout.take().unwrap();
    pipe.read_exact(&mut [0; 100]).unwrap();
    drop(pipe);
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(words(&output).contains("Broken pipe"), "{}", words(&output));
    assert_untouched(victim.pid(), 'S');
}

#[test]
fn links_on_the_way_are_refused_or_harmless() {
    let victim = Victim::start(&["threads", "0"]);
    let folder = tempfile::tempdir().unwrap();
    let (mine, path) = (folder.path().join("mine"), folder.path().join("b.tar.zst"));
    fs::write(&mine, b"mine").unwrap();
    for taken in ["b.tar.zst", "b.tar.zst.partial"] {
        let link = folder.path().join(taken);
        symlink(&mine, &link).unwrap();
        let output = collection(&victim, &["-o"]).arg(&path).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(words(&output).contains("exists already"), "{}", words(&output));
        fs::remove_file(link).unwrap();
    }
    // Somebody else lays a link where everybody may, and waits for root to follow it.
    let open = folder.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
    symlink(folder.path(), open.join("link")).unwrap();
    std::os::unix::fs::lchown(open.join("link"), Some(65534), None).unwrap();
    let output = collection(&victim, &["-o"]).arg(open.join("link/b.tar.zst")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(words(&output).contains("symbolic link of user 65534"), "{}", words(&output));
    assert_eq!(fs::read(&mine).unwrap(), b"mine");
    assert_eq!(entries(folder.path()).len(), 2, "nothing was written");
    assert_untouched(victim.pid(), 'S');
}

#[test]
fn a_name_that_is_taken_meanwhile_costs_only_the_name() {
    let victim = Victim::start(&["threads", "0"]);
    let folder = tempfile::tempdir().unwrap();
    let (mine, path) = (folder.path().join("mine"), folder.path().join("b.tar.zst"));
    fs::write(&mine, b"mine").unwrap();
    let mut command = collection(&victim, &["--sample-gap", "1000", "-o"]);
    command.arg(&path);
    let (mut running, _lines) = started_and_thawed(command);
    symlink(&mine, &path).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(1));
    assert_eq!(fs::read(&mine).unwrap(), b"mine");
    let partial = folder.path().join("b.tar.zst.partial");
    assert_eq!(manifest(&partial).processes[0].pid, victim.pid());
}

#[test]
fn the_deadline_ends_the_waiting_and_seals_what_there_is() {
    let victim = Victim::start(&["threads", "0"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.tar.zst");
    let begun = Instant::now();
    let mut command = collection(&victim, &["--sample-gap", "60000", "--deadline", "1.5", "-o"]);
    let output = command.arg(&path).output().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let manifest = manifest(&path);
    let modules = manifest.sources.iter().find(|source| source.name == "modules").unwrap();
    let Outcome::Skipped { why } = &modules.outcome else { panic!("{modules:?}") };
    assert_eq!(why, "not asked: 1.5 s had passed (--deadline)");
    assert!(manifest.gaps.iter().any(|gap| gap.what == "modules" && !gap.expected));
    assert!(manifest.members.iter().any(|member| member.path.ends_with("/core")));
}

#[test]
fn a_bundle_does_not_pass_its_size_and_keeps_registers_and_stacks() {
    let victim = Victim::start(&["noise", "8"]);
    let folder = tempfile::tempdir().unwrap();
    for (most, whole) in [("1M", false), ("4M", false), ("64M", true)] {
        let path = folder.path().join(most);
        let arguments = ["--max-size", most, "-o"];
        let output = collection(&victim, &arguments).arg(&path).output().unwrap();
        assert_eq!(output.status.code(), Some(if whole { 0 } else { 1 }), "{output:?}");
        let mebibytes: u64 = most.trim_end_matches('M').parse().unwrap();
        assert!(fs::metadata(&path).unwrap().len() <= mebibytes << 20);
        let manifest = manifest(&path);
        let core = manifest.members.iter().find(|member| member.path.ends_with("/core")).unwrap();
        assert_eq!(core.size > 8 << 20, whole, "{core:?}");
        assert!(core.size > 4096, "the stack is in it: {core:?}");
        let gap = manifest.gaps.iter().find(|gap| gap.why.contains("--max-size"));
        assert_eq!(gap.is_none(), whole, "{:?}", manifest.gaps);
    }
}

/// A file system of so many bytes, as long as this lives.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs"]);
        assert!(mount.arg(folder.path()).status().unwrap().success(), "run the tests as root");
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("b.tar.zst")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.unwrap().success());
    }
}

#[test]
fn a_disk_that_becomes_full_at_any_point_leaves_words_and_an_openable_part() {
    let victim = Victim::start(&["noise", "2"]);
    let whole = {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.tar.zst");
        assert!(collection(&victim, &["-o"]).arg(&path).status().unwrap().success());
        fs::metadata(path).unwrap().len()
    };
    const STEPS: u64 = 16;
    let mut ends = [0; 3];
    for step in 1..=STEPS + 2 {
        let disk = SmallDisk::new((whole * step / STEPS).max(4096));
        let output = collection(&victim, &["--force", "-o"]).arg(disk.path()).output().unwrap();
        let code = output.status.code().unwrap();
        ends[usize::try_from(code).unwrap()] += 1;
        let partial = disk.path().with_file_name("b.tar.zst.partial");
        let left = entries(disk.0.path());
        match code {
            0 => assert_eq!(left, ["b.tar.zst"]),
            _ if left.is_empty() => assert!(words(&output).contains("nothing could be written")),
            _ => {
                assert!(words(&output).contains("No space left"), "{}", words(&output));
                assert!(words(&output).contains(partial.to_str().unwrap()), "{}", words(&output));
                assert!(content(&fs::read(&partial).unwrap()).starts_with(b"header.json\0"));
            }
        }
        assert_untouched(victim.pid(), 'S');
    }
    assert!(ends[0] >= 1 && ends[2] >= STEPS / 2, "{ends:?}");
}

#[test]
fn a_small_disk_is_refused_before_anything_is_touched() {
    let victim = Victim::start(&["noise", "2"]);
    let disk = SmallDisk::new(8 << 20);
    let output = collection(&victim, &["-o"]).arg(disk.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(words(&output).contains("not enough room"), "{}", words(&output));
    assert!(words(&output).contains("that stay free (--keep-free)"), "{}", words(&output));
    assert!(!words(&output).contains("freezing"));
    assert!(entries(disk.0.path()).is_empty());
}

#[test]
fn what_is_to_stay_free_stays_free() {
    let victim = Victim::start(&["noise", "8"]);
    let disk = SmallDisk::new(16 << 20);
    let mut command = collection(&victim, &["--force", "--keep-free", "13M", "-o"]);
    let output = command.arg(disk.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(fs::metadata(disk.path()).unwrap().len() <= 3 << 20);
    let manifest = manifest(&disk.path());
    assert!(manifest.gaps.iter().any(|gap| gap.why.contains("--keep-free")), "{:?}", manifest.gaps);
}

#[test]
fn progress_for_a_program_is_one_object_a_line() {
    let victim = Victim::start(&["group", "2"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.tar.zst");
    let arguments = ["--progress", "json", "-o"];
    let output = collection(&victim, &arguments).arg(&path).output().unwrap();
    let lines: Vec<serde_json::Value> =
        words(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["schema"] == 1 && line["time"].is_string()));
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!((events[0], events[events.len() - 1]), ("begin", "end"));
    for event in ["phase", "source", "thawed", "progress"] {
        assert!(events.contains(&event), "{event} in {events:?}");
    }
    let phases = lines.iter().filter_map(|line| match line["event"].as_str() {
        Some("phase") => line["phase"].as_str(),
        _ => None,
    });
    let phases: Vec<&str> = phases.collect();
    assert_eq!(phases, ["before-freeze", "frozen", "memory", "after-thaw", "seal"]);
    let end = lines.last().unwrap();
    assert_eq!(end["path"], path.to_str().unwrap());
    assert_eq!(end["bytes"], fs::metadata(&path).unwrap().len());
    assert_eq!(end["exit_code"], output.status.code().unwrap());
    assert!(end["pause_micros"].as_u64().unwrap() > 0);
    // Where there is no bundle, the last line says why.
    let output = collection(&victim, &arguments).arg(&path).output().unwrap();
    let line: serde_json::Value = serde_json::from_str(words(&output).trim()).unwrap();
    assert_eq!((line["event"].as_str(), line["exit_code"].as_u64()), (Some("failed"), Some(2)));
}

#[cfg(feature = "encrypt")]
mod encrypted {
    use age::secrecy::ExposeSecret as _;
    use bundle::encrypted::Identities;

    use super::common::{statuses, wait_until};
    use super::*;

    const MARKER: &str = "marker-7f3d91c2-in-plain-text";

    struct Key {
        recipient: String,
        identities: Identities,
    }

    fn key() -> Key {
        let identity = age::x25519::Identity::generate();
        let mut identities = Identities::default();
        identities.add_file(identity.to_string().expose_secret()).unwrap();
        Key { recipient: identity.to_public().to_string(), identities }
    }

    /// What can be decrypted, and whether that is all.
    fn decrypted(key: &Key, file: &Path) -> (Vec<u8>, bool) {
        let mut plain = Vec::new();
        let file = fs::read(file).unwrap();
        let end = key.identities.decrypt(file.as_slice()).unwrap().read_to_end(&mut plain);
        (plain, end.is_ok())
    }

    fn holds(bytes: &[u8], text: &str) -> bool {
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    #[test]
    fn only_the_recipient_reads_it() {
        let victim = Victim::start(&["noise", "1"]);
        let (key, folder) = (key(), tempfile::tempdir().unwrap());
        let arguments = ["--reason", MARKER, "--encrypt-to", &key.recipient, "-o"];
        let output = collection(&victim, &arguments).arg(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let [name] = entries(folder.path()).try_into().unwrap();
        let name: String = name;
        assert!(name.ends_with(".tar.zst.age"), "{name}");
        let file = folder.path().join(name);
        assert!(!holds(&fs::read(&file).unwrap(), MARKER));
        let (plain, all) = decrypted(&key, &file);
        assert!(all && holds(&content(&plain), MARKER));
    }

    #[test]
    fn what_was_written_before_a_kill_can_be_opened() {
        let victim = Victim::start(&["noise", "4"]);
        let (key, folder) = (key(), tempfile::tempdir().unwrap());
        let path = folder.path().join("b.tar.zst.age");
        let arguments =
            ["--reason", MARKER, "--sample-gap", "60000", "--encrypt-to", &key.recipient, "-o"];
        let mut command = collection(&victim, &arguments);
        let (mut running, mut lines) = started_and_thawed({
            command.arg(&path);
            command
        });
        let mut line = String::new();
        while !line.starts_with("memory: ") {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0);
        }
        let partial = folder.path().join("b.tar.zst.age.partial");
        wait_until("the memory is in the file", || fs::metadata(&partial).unwrap().len() > 4 << 20);
        running.kill().unwrap();
        running.wait().unwrap();
        assert!(statuses(victim.pid(), "TracerPid").iter().all(|tracer| tracer == "0"));
        let (plain, all) = decrypted(&key, &partial);
        assert!(!all && plain.len() > 3 << 20);
        assert!(holds(&content(&plain), MARKER));
        assert!(!holds(&fs::read(&partial).unwrap(), MARKER));
    }

    #[test]
    fn a_bad_recipient_is_refused_before_anything_is_touched() {
        let victim = Victim::start(&["threads", "0"]);
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("recipients");
        fs::write(&empty, "# nobody yet\n").unwrap();
        let out = folder.path().join("out");
        fs::create_dir(&out).unwrap();
        let empty = empty.to_str().unwrap();
        for bad in [
            ["--encrypt-to", "age1nobody"],
            ["--encrypt-to-file", empty],
            ["--encrypt-to-file", "/nowhere/at/all"],
            ["--encrypt-to-file", "/dev/zero"],
        ] {
            let output = collection(&victim, &bad).arg("-o").arg(&out).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{bad:?}");
            assert!(words(&output).contains(bad[0]), "{}", words(&output));
            assert!(!words(&output).contains("freezing"));
            assert!(entries(&out).is_empty(), "{bad:?}");
        }
    }

    #[test]
    fn its_spool_file_is_encrypted_too() {
        let victim = Victim::start(&["noise", "4"]);
        let (key, folder) = (key(), tempfile::tempdir().unwrap());
        let path = folder.path().join("b.tar.zst.age");
        let arguments = ["--memory", "8K", "--encrypt-to", &key.recipient, "-o"];
        let output = collection(&victim, &arguments).arg(&path).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let (plain, _) = decrypted(&key, &path);
        let archive = content(&plain);
        // The noise as victim.c makes it.
        let mut word = 88_172_645_463_325_252_u64;
        let mut noise = Vec::new();
        for _ in 0..512 {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            noise.extend_from_slice(&word.to_le_bytes());
        }
        assert!(archive.windows(noise.len()).any(|window| window == noise));
    }
}
