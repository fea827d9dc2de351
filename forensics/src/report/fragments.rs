//! Single fragments: as a list with previews, or one in full.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::selection::is_process;
use crate::addr::Addr;
use crate::case::{Case, Member, Walked, describe};
use crate::content::{self, Kind, Shown};
use crate::heap::{BacktraceShape, Fragment};
use crate::kamailio::{Names, OwnerName, PoolKind};
use crate::memory::Memory as _;
use crate::num::{narrow, wide};
use crate::places::return_address;
use crate::units::size;

/// Bytes of content shown in a list.
const PREVIEW: usize = 32;
/// Length of the largest trailer of any manager, in bytes.
const LARGEST_TRAILER: u64 = 48;
/// Bytes of content shown in full.
const FULL: u64 = 4096;

/// One fragment.
#[derive(Clone, Debug, Serialize)]
pub struct FragmentReport {
    /// What the program was given: the start of the payload.
    pub address: Addr,
    /// Its header.
    pub header: Addr,
    /// Payload in bytes.
    pub size: u64,
    /// `used` or `free`.
    pub state: &'static str,
    /// Who allocated it; of a free fragment, who last split or freed it.
    #[serde(flatten)]
    pub owner: OwnerName,
    /// What is wrong with it, for a person.
    pub damage: Vec<String>,
    /// Its first bytes: as text, or as hex, or why they are not known.
    pub preview: String,
    /// The calls that led to its allocation, innermost first; only of builds that record them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<Vec<FrameReport>>,
}

/// One recorded call.
#[derive(Clone, Debug, Serialize)]
pub struct FrameReport {
    /// Where it returns to.
    pub address: Addr,
    /// The module that made it; null outside every known one.
    pub module: Option<String>,
    /// The function that made it; null where no symbol covers it.
    pub function: Option<String>,
    /// From the function's start to `address`, in bytes.
    pub offset: Option<u64>,
    /// `address` in the module's file, as addr2line wants it.
    pub address_in_file: Option<Addr>,
}

/// `0x55… leaky: take+0x1c`
impl fmt::Display for FrameReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, module, function, offset, address_in_file } = self;
        let Some(module) = module else { return write!(f, "{address} in no known module") };
        match (function.as_ref().zip(*offset), address_in_file) {
            (Some((function, offset)), _) => {
                write!(f, "{address} {module}: {function}+{offset:#x}")
            }
            (None, Some(inside)) => write!(f, "{address} {module}+{inside}"),
            (None, None) => write!(f, "{address} {module}"),
        }
    }
}

/// Every fragment of a pool.
pub(super) fn list(walked: &Walked, member: &Member, shown: Shown) -> Vec<FragmentReport> {
    let mut names = Names::new(&member.process);
    let calls = walked.backtrace;
    walked.summary.fragments.iter().map(|f| one(f, member, calls, &mut names, shown)).collect()
}

fn one(
    fragment: &Fragment,
    member: &Member,
    calls: Option<BacktraceShape>,
    names: &mut Names<'_>,
    shown: Shown,
) -> FragmentReport {
    FragmentReport {
        address: fragment.payload.start,
        header: fragment.header,
        size: fragment.payload.length(),
        state: if fragment.used { "used" } else { "free" },
        owner: fragment.owner.map(|owner| names.owner(owner)).unwrap_or_default(),
        damage: fragment.damage.iter().map(ToString::to_string).collect(),
        preview: preview(member, fragment.payload.start, fragment.payload.length(), shown),
        backtrace: calls.map(|calls| backtrace(member, fragment.header, calls)),
    }
}

/// The calls in a fragment's header up to the first null one; those whose bytes are not known are
/// left out.
fn backtrace(member: &Member, header: Addr, calls: BacktraceShape) -> Vec<FrameReport> {
    let length = narrow(calls.count.saturating_mul(8));
    let bytes = header.checked_add(calls.offset).map(|at| member.process.memory.bytes(at, length));
    let Some(Ok(bytes)) = bytes else { return Vec::new() };
    let words = bytes.chunks_exact(8).filter_map(<[u8]>::first_chunk);
    let addresses = words.map(|word| Addr(u64::from_le_bytes(*word)));
    addresses.take_while(|at| !at.is_null()).map(|at| frame(member, at)).collect()
}

fn frame(member: &Member, address: Addr) -> FrameReport {
    let place = return_address(&member.process, address);
    let symbol = place.as_ref().and_then(|place| place.symbol.clone());
    FrameReport {
        address,
        offset: symbol.as_ref().map(|symbol| symbol.offset),
        function: symbol.map(|symbol| symbol.name),
        address_in_file: place.as_ref().map(|place| Addr(place.address_in_file)),
        module: place.map(|place| place.module),
    }
}

/// The first bytes of a payload, in one line.
pub fn preview(member: &Member, at: Addr, length: u64, shown: Shown) -> String {
    let want = narrow(length).min(PREVIEW);
    if want == 0 {
        return String::new();
    }
    let bytes = match member.process.memory.bytes(at, want) {
        Ok(bytes) => bytes,
        Err(absent) => return format!("<{}>", absent.why),
    };
    let text = bytes.iter().take_while(|byte| is_text(**byte)).count();
    let ended = bytes.get(text).is_none_or(|&byte| byte == 0);
    if text >= 4 && ended {
        return content::quoted(bytes.get(..text).unwrap_or_default(), shown);
    }
    let start = bytes.get(..16).unwrap_or(&bytes);
    content::hex(start, shown, &|word| is_mapped(member, word))
}

fn is_text(byte: u8) -> bool {
    byte.is_ascii_graphic() || matches!(byte, b' ' | b'\r' | b'\n' | b'\t')
}

fn is_mapped(member: &Member, word: u64) -> bool {
    member.process.memory.find(Addr(word)).is_some()
}

/// The fragments that contain an address, in full, for a person; one for each pool that has it.
pub fn details(case: &Case, at: Addr, pid: Option<u32>, shown: Shown) -> Vec<String> {
    let mut found = Vec::new();
    for pool in &case.pools {
        let (Ok(walked), Some(member)) = (&pool.walked, case.members.get(pool.member)) else {
            continue;
        };
        let other = pid.is_some_and(|pid| !is_process(member, pid));
        if pool.kind == PoolKind::Pkg && other {
            continue;
        }
        let all = &walked.summary.fragments;
        let index = all.partition_point(|fragment| fragment.header <= at);
        let Some(index) = index.checked_sub(1) else { continue };
        // Behind the last fragment before a break lies what no fragment is known to hold.
        let next = all.get(index.saturating_add(1)).map(|next| next.header);
        let holds = |fragment: &&Fragment| {
            let gap = next.and_then(|next| next.offset_from(fragment.payload.end));
            at < fragment.payload.end || gap.is_some_and(|gap| gap <= LARGEST_TRAILER)
        };
        let Some(fragment) = all.get(index).filter(holds) else { continue };
        let mut names = Names::new(&member.process);
        let mut text = format!(
            "{} of {}\n",
            pool.kind.name(),
            if pool.kind == PoolKind::Shm {
                "the whole group".to_owned()
            } else {
                describe(member)
            }
        );
        let calls = walked.backtrace;
        let report = one(fragment, member, calls, &mut names, shown);
        describe_one(&mut text, &report, at);
        let neighbours = index.checked_sub(1).into_iter().chain([index.saturating_add(1)]);
        for neighbour in neighbours.filter_map(|index| all.get(index)) {
            let report = one(neighbour, member, None, &mut names, shown);
            let side = if neighbour.header < fragment.header { "before" } else { "after " };
            let _ = writeln!(
                text,
                "  {side}:   {} {} {}  {}",
                report.address,
                report.state,
                size(report.size),
                report.owner
            );
        }
        text.push_str(&dump(member, fragment, shown));
        found.push(text);
    }
    found
}

fn describe_one(text: &mut String, report: &FragmentReport, at: Addr) {
    let inside = at.0.wrapping_sub(report.address.0);
    let _ = writeln!(text, "  address:  {} (header {})", report.address, report.header);
    if at != report.address {
        let place = if at < report.address {
            "in its header".to_owned()
        } else {
            format!("{inside} bytes into it")
        };
        let _ = writeln!(text, "  asked:    {at}, {place}");
    }
    let _ = writeln!(text, "  state:    {}", report.state);
    let _ = writeln!(text, "  size:     {}", size(report.size));
    let _ = writeln!(text, "  owner:    {}", report.owner);
    for damage in &report.damage {
        let _ = writeln!(text, "  damage:   {damage}");
    }
    for (number, frame) in report.backtrace.iter().flatten().enumerate() {
        let label = if number == 0 { "called:" } else { "" };
        let _ = writeln!(text, "  {label:9} {frame}");
    }
}

/// Content as hex and text, 16 bytes a line; masked, in words for the whole and as hex.
fn dump(member: &Member, fragment: &Fragment, shown: Shown) -> String {
    let length = fragment.payload.length();
    let mut text = String::new();
    let bytes = match member.process.memory.bytes(fragment.payload.start, narrow(length.min(FULL)))
    {
        Ok(bytes) => bytes,
        Err(absent) => return format!("  content:  <{absent}>\n"),
    };
    let found = content::classify(fragment.payload, &bytes, &mut |_| None);
    for found in found.into_iter().filter(|found| found.kind != Kind::Nothing) {
        let value = bytes.get(found.value).unwrap_or_default();
        let value = match value.is_empty() {
            true => String::new(),
            false => format!(": {}", content::quoted(value, shown)),
        };
        let _ = writeln!(text, "  holds:    {}{value}", found.kind);
    }
    for (row, line) in bytes.chunks(16).enumerate() {
        let at = fragment.payload.start.0.saturating_add(wide(row).saturating_mul(16));
        let hex = content::hex(line, shown, &|word| is_mapped(member, word));
        let _ = match shown {
            Shown::AsItIs => writeln!(text, "  {at:#x}  {hex:48} {}", plain(line)),
            Shown::Masked => writeln!(text, "  {at:#x}  {hex}"),
        };
    }
    if length > FULL {
        let _ = writeln!(text, "  … {} more bytes", length.saturating_sub(FULL));
    }
    if shown == Shown::Masked {
        text.push_str("  ·· is masked; --show-content shows it\n");
    }
    text
}

fn plain(line: &[u8]) -> String {
    let printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    line.iter().map(|&byte| if printable(byte) { char::from(byte) } else { '.' }).collect()
}
