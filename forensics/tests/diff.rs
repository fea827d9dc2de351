//! `forensics diff` on a recorded bundle: what it refuses, and what it says where there is nothing
//! to say.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};

use clap::Parser as _;
use forensics::cli::Cli;

fn bundle() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/recorded/leaky.tar.zst")
}

fn diff(inputs: &[&Path]) -> Result<(u8, String), String> {
    let mut line = vec!["forensics".into(), "diff".into()];
    line.extend(inputs.iter().map(|path| path.as_os_str().to_owned()));
    let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    let code = cli.run(&mut out).map_err(|error| format!("{error:#}"))?;
    Ok((code, String::from_utf8(out).unwrap()))
}

#[test]
fn the_same_snapshot_twice_has_no_growth() {
    let (code, text) = diff(&[&bundle(), &bundle()]).unwrap();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("Run        the same (alike: the host's boot, the main"), "{text}");
    assert!(text.contains("Time       no rate: all were taken at the same time"), "{text}");
    assert!(text.contains("Owners that grew (0)"), "{text}");
    assert!(!text.contains("Owners that shrank"), "{text}");
}

#[test]
fn one_snapshot_is_not_enough() {
    let why = diff(&[&bundle()]).unwrap_err();
    assert!(why.contains("2 values required"), "{why}");
}

#[test]
fn a_missing_file_is_named() {
    let why = diff(&[&bundle(), Path::new("/nowhere/else.tar.zst")]).unwrap_err();
    assert!(why.contains("/nowhere/else.tar.zst"), "{why}");
}

#[test]
fn a_cut_bundle_is_compared_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(bundle()).unwrap();
    let mut compared = 0;
    for tenths in 1..10 {
        let path = folder.path().join(format!("{tenths}.tar.zst"));
        std::fs::write(&path, whole.get(..whole.len() * tenths / 10).unwrap()).unwrap();
        match diff(&[&path, &bundle()]) {
            Ok((code, text)) => {
                assert_eq!(code, 0);
                assert!(text.contains("INCOMPLETE"), "{text}");
                assert!(text.contains("collection begun at"), "{text}");
                compared += 1;
            }
            Err(why) => assert!(why.contains("no pool is in every snapshot"), "{why}"),
        }
    }
    assert!(compared > 0, "at least one of the cuts keeps a pool");
}
