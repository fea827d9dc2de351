//! Encrypted bundles, and bundles that had to stay small, of a real instance: what the analyzer
//! makes of them.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret as _;
use testbed::kamailio::{Instance, Options};
use testbed::tools::{self, Finished, run};

/// In the plain text of every bundle here, and nowhere in an encrypted one.
const MARKER: &str = "marker-2b6e0d77-in-plain-text";

/// A new identity file, and its recipient.
fn key(folder: &Path, name: &str) -> (PathBuf, String) {
    let identity = age::x25519::Identity::generate();
    let path = folder.join(name);
    let text = format!("# of a test\n{}\n", identity.to_string().expose_secret());
    fs::write(&path, text).unwrap();
    (path, identity.to_public().to_string())
}

fn collect(instance: &Instance, output: &Path, arguments: &[&str], code: i32) -> Finished {
    let mut command = tools::collect_evidence();
    command.args(["--pid", &instance.main_pid().to_string(), "--reason", MARKER]);
    command.args(["--modules", "tables", "--sample-gap", "10"]).args(arguments);
    run(command.arg("-o").arg(output), tools::PATIENCE).expect(&[code])
}

/// `forensics` with these words, on this input.
fn forensics(words: &[&str], input: &Path) -> Finished {
    run(tools::forensics().args(words).arg(input), tools::PATIENCE)
}

#[test]
fn an_encrypted_bundle_is_read_with_its_key_and_refused_plainly_without() {
    let folder = tools::scratch("output-encrypted");
    let instance = Instance::start(Options::default());
    let (identity, recipient) = key(&folder, "identity");
    let (other, _) = key(&folder, "other");
    let bundle = folder.join("b.tar.zst.age");
    collect(&instance, &bundle, &["--encrypt-to", &recipient], 0);
    let file = fs::read(&bundle).unwrap();
    assert!(!file.windows(MARKER.len()).any(|window| window == MARKER.as_bytes()));

    let identity = ["--identity", identity.to_str().unwrap()];
    forensics(&[&["verify"], &identity[..]].concat(), &bundle).expect(&[0]);
    let info = forensics(&[&["info"], &identity[..]].concat(), &bundle).expect(&[0, 1]);
    assert!(info.text().contains(MARKER), "{info:?}");
    // Too large for the memory that is allowed: through a file without a name.
    let before = entries(&std::env::temp_dir());
    let small = [&["info", "--memory", "1K"], &identity[..]].concat();
    assert_eq!(forensics(&small, &bundle).expect(&[0, 1]).text(), info.text());
    let plain = |name: &String| name.contains("decrypt") || name.ends_with(".tar.zst");
    assert!(
        !entries(&std::env::temp_dir()).iter().any(|name| !before.contains(name) && plain(name))
    );

    let refused = |words: &[&str], input: &Path, why: &str| {
        let refused = forensics(words, input).expect(&[2]);
        assert!(refused.errors().contains(why), "{refused:?}");
    };
    refused(&["info"], &bundle, "give the identity file that opens it with --identity");
    let other = other.to_str().unwrap();
    refused(&["info", "--identity", other], &bundle, "for other recipients");
    let no_key = folder.join("recipient");
    fs::write(&no_key, &recipient).unwrap();
    refused(&["info", "--identity", no_key.to_str().unwrap()], &bundle, "not an age identity");
    refused(&["info", "--identity", "/dev/null"], &bundle, "not a regular file");

    let cut = folder.join("cut.tar.zst.age");
    fs::write(&cut, file.get(..file.len() / 10 * 9).unwrap()).unwrap();
    let cut = forensics(&[&["info"], &identity[..]].concat(), &cut).expect(&[0, 1]);
    assert!(cut.text().contains("the encrypted data ends after"), "{cut:?}");
    assert!(cut.text().contains(MARKER), "{cut:?}");
    let stump = folder.join("stump.tar.zst.age");
    fs::write(&stump, file.get(..100).unwrap()).unwrap();
    refused(&[&["info"], &identity[..]].concat(), &stump, "its header is damaged or cut");
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_bundle_that_had_to_stay_small_is_read_without_what_it_lacks() {
    let folder = tools::scratch("output-small");
    let instance = Instance::start(Options::default());
    let bundle = folder.join("b.tar.zst");
    collect(&instance, &bundle, &["--max-size", "1M"], 1);
    assert!(fs::metadata(&bundle).unwrap().len() <= 1 << 20);
    forensics(&["verify"], &bundle).expect(&[0, 1]);
    let threads = forensics(&["threads"], &bundle).expect(&[0, 1]);
    assert!(threads.text().contains("--max-size"), "{threads:?}");
    forensics(&[], &bundle).expect(&[0, 1]);
}
