//! Is a bundle whole? Every member's hash and size against the manifest, every core's headers as
//! two independent ELF readers see them.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;

use anyhow::Result;
use bundle::{MemberRecord, member};
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::bytes::Blob;
use crate::core::CoreFile;
use crate::input::{Evidence, Member};
use crate::modules::hex;
use crate::num::{narrow, wide};
use crate::report::Tame;
use crate::units::{count, size};

/// What was checked and what did not hold.
#[derive(Debug, Serialize)]
struct Verdict {
    schema: u32,
    inputs: Vec<String>,
    complete: bool,
    members: usize,
    bytes: u64,
    cores: usize,
    problems: Vec<String>,
}

/// Checks all inputs; exit code 0 if everything holds, 1 if not.
///
/// # Errors
/// Those of `out`.
pub fn verify(evidence: &Evidence, json: bool, out: &mut dyn Write) -> Result<u8> {
    let mut problems = evidence.cuts.clone();
    problems.extend(order(evidence));
    problems.extend(listed(evidence));
    // By path: a bundle of ten thousand threads has 160,000 members.
    let records: Option<Records<'_>> = evidence.manifest.as_ref().map(|manifest| {
        manifest.members.iter().rev().map(|record| (record.path.as_str(), record)).collect()
    });
    let hashes: Vec<Vec<String>> =
        evidence.members.par_iter().map(|member| hash(member, records.as_ref())).collect();
    problems.extend(hashes.into_iter().flatten());
    let cores: Vec<Vec<String>> = evidence
        .cores
        .par_iter()
        .map(|core| {
            let said = second_opinion(&core.blob);
            said.into_iter().map(|problem| format!("{}: {problem}", core.label)).collect()
        })
        .collect();
    problems.extend(cores.into_iter().flatten());
    let verdict = Verdict {
        schema: crate::report::SCHEMA,
        inputs: evidence.paths.clone(),
        complete: problems.is_empty(),
        members: evidence.members.len(),
        bytes: evidence.members.iter().map(|member| member.blob.length()).sum(),
        cores: evidence.cores.len(),
        problems,
    };
    if json {
        serde_json::to_writer_pretty(&mut *out, &verdict).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        text(&verdict, &mut Tame(out))?;
    }
    Ok(u8::from(!verdict.complete))
}

fn text(verdict: &Verdict, out: &mut dyn Write) -> Result<()> {
    writeln!(
        out,
        "{}: {} members, {}; {} cores",
        verdict.inputs.join(", "),
        count(wide(verdict.members)),
        size(verdict.bytes),
        verdict.cores
    )?;
    for problem in &verdict.problems {
        writeln!(out, "  PROBLEM  {problem}")?;
    }
    let sum = match verdict.problems.len() {
        0 => "complete: every hash, size and core header holds".to_owned(),
        1 => "NOT complete: 1 problem".to_owned(),
        some => format!("NOT complete: {some} problems"),
    };
    writeln!(out, "{sum}")?;
    Ok(())
}

fn order(evidence: &Evidence) -> Vec<String> {
    let mut problems = Vec::new();
    let paths: Vec<&str> = evidence.members.iter().map(|member| member.path.as_str()).collect();
    // A directory has no order.
    let archive = evidence.paths.iter().all(|path| !std::path::Path::new(path).is_dir());
    if archive && evidence.is_bundle && paths.first() != Some(&member::HEADER) {
        problems.push(format!("{} is not the first member", member::HEADER));
    }
    if archive && evidence.manifest.is_some() && paths.last() != Some(&member::MANIFEST) {
        problems.push(format!("{} is not the last member", member::MANIFEST));
    }
    let mut seen = BTreeSet::new();
    problems.extend(
        paths
            .iter()
            .filter(|path| !seen.insert(**path))
            .map(|path| format!("{path}: stands twice")),
    );
    problems
}

/// Members that the manifest lists and the archive lacks, and the other way round.
fn listed(evidence: &Evidence) -> Vec<String> {
    let Some(manifest) = &evidence.manifest else { return Vec::new() };
    let listed: BTreeSet<&str> = manifest.members.iter().map(|m| m.path.as_str()).collect();
    let present: BTreeSet<&str> = evidence.members.iter().map(|m| m.path.as_str()).collect();
    let missing = listed.difference(&present).map(|path| format!("{path}: missing"));
    let unknown = present
        .difference(&listed)
        .filter(|path| **path != member::MANIFEST)
        .map(|path| format!("{path}: not in the manifest"));
    missing.chain(unknown).collect()
}

/// What the manifest says of each member.
type Records<'a> = HashMap<&'a str, &'a MemberRecord>;

fn hash(found: &Member, records: Option<&Records<'_>>) -> Vec<String> {
    if found.blob.length() < found.declared {
        return vec![format!(
            "{}: cut: {} of {} bytes",
            found.path,
            found.blob.length(),
            found.declared
        )];
    }
    let Some(record) = records.and_then(|records| records.get(found.path.as_str())) else {
        return Vec::new();
    };
    if record.size != found.declared {
        return vec![format!(
            "{}: {} bytes, the manifest says {}",
            found.path, found.declared, record.size
        )];
    }
    match sha256(&found.blob) {
        Ok(sum) if sum == record.sha256 => Vec::new(),
        Ok(sum) => {
            vec![format!("{}: SHA-256 {sum}, the manifest says {}", found.path, record.sha256)]
        }
        Err(why) => vec![format!("{}: {why}", found.path)],
    }
}

fn sha256(blob: &Blob) -> Result<String, String> {
    let mut hasher = Sha256::new();
    let mut at = 0;
    while at < blob.length() {
        let chunk = blob.peek(at, 1 << 20).map_err(|error| error.to_string())?;
        hasher.update(&*chunk);
        at = at.saturating_add(wide(chunk.len()));
    }
    Ok(hex(&hasher.finalize()))
}

/// Compares the program headers as goblin reads them with our own view. goblin cannot count more
/// than 65,534 of them, and is not asked then.
fn second_opinion(blob: &Blob) -> Vec<String> {
    let core = match CoreFile::read(blob) {
        Ok(core) => core,
        Err(error) => return vec![error.to_string()],
    };
    let mut problems: Vec<String> =
        core.gaps.iter().map(|gap| format!("{}: {}", gap.what, gap.why)).collect();
    match goblin_loads(blob) {
        Ok(None) => {}
        Ok(Some(loads)) => {
            let ours: Vec<LoadNumbers> =
                core.loads.iter().map(|l| (l.range.start.0, l.offset, l.saved)).collect();
            if loads != ours {
                problems.push(format!(
                    "two ELF readers disagree on its segments ({} and {})",
                    ours.len(),
                    loads.len()
                ));
            }
        }
        Err(why) => problems.push(why),
    }
    problems
}

/// `p_vaddr`, `p_offset`, `p_filesz` of a `PT_LOAD`.
type LoadNumbers = (u64, u64, u64);

/// Every `PT_LOAD`; `None` where goblin cannot count them.
fn goblin_loads(blob: &Blob) -> Result<Option<Vec<LoadNumbers>>, String> {
    use goblin::elf::{Elf, ProgramHeader, program_header::PT_LOAD};
    let start = blob.bytes(0..64).map_err(|error| error.to_string())?;
    let header = Elf::parse_header(&start).map_err(|error| error.to_string())?;
    if header.e_phnum == 0xffff {
        return Ok(None);
    }
    let table = u64::from(header.e_phnum).saturating_mul(u64::from(header.e_phentsize));
    let prefix =
        blob.bytes(0..header.e_phoff.saturating_add(table)).map_err(|error| error.to_string())?;
    let context = goblin::container::Ctx::new(
        goblin::container::Container::Big,
        goblin::container::Endian::Little,
    );
    let headers =
        ProgramHeader::parse(&prefix, narrow(header.e_phoff), usize::from(header.e_phnum), context)
            .map_err(|error| error.to_string())?;
    let loads = headers.iter().filter(|header| header.p_type == PT_LOAD);
    Ok(Some(loads.map(|h| (h.p_vaddr, h.p_offset, h.p_filesz)).collect()))
}
