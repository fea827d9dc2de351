//! What Kamailio itself logs about its pools, owner by owner and fragment by fragment.
//!
//! `corex.shm_summary` and `corex.shm_status` write about the shared pool to the log, at the level
//! `memlog`; `corex.pkg_summary` makes another process write about its private one, in the same
//! words. The text is the memory manager's own; a fragment list is printed by `q_malloc` only.

use std::collections::BTreeMap;

/// Where an allocation was made, in full.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// `core` or a module's name.
    pub module: String,
    /// The source file.
    pub file: String,
    /// The function that allocated.
    pub function: String,
    /// The line in the file.
    pub line: u32,
}

/// What one owner has in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Number of fragments.
    pub fragments: u64,
    /// Their payload, in bytes.
    pub bytes: u64,
}

/// A used fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedFragment {
    /// Address of the payload.
    pub address: u64,
    /// Address of the header.
    pub header: u64,
    /// Payload, in bytes.
    pub size: u64,
    /// Who allocated it.
    pub owner: Owner,
}

/// The status dump of `q_malloc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The fragments in use, by rising address.
    pub used: Vec<UsedFragment>,
    /// Number of fragments in the free lists.
    pub free_fragments: u64,
}

/// The table of a summary; `log` is what was written since before the call. A function of a header
/// file stands in it once for each module that has a copy of it: their shares are added.
pub fn parse_summary(log: &str) -> BTreeMap<Owner, Share> {
    let mut owners = BTreeMap::new();
    for line in log.lines() {
        let Some((_, rest)) = line.split_once(" count=") else { continue };
        let (count, rest) = rest.split_once(" size=").expect("a size after the count");
        let (size, owner) = rest.split_once(" bytes from ").expect("an owner after the size");
        let share: &mut Share = owners.entry(parse_owner(owner)).or_default();
        share.fragments += count.trim().parse::<u64>().unwrap();
        share.bytes += size.trim().parse::<u64>().unwrap();
    }
    owners
}

/// The table of a process that was asked for its private pool; `log` is what was written since
/// before the call. A process that was asked again before it looked writes one table each time.
#[track_caller]
pub fn parse_private_summary(log: &str) -> BTreeMap<Owner, Share> {
    let tables = log.split("summarizing all alloc'ed. fragments").skip(1).map(parse_summary);
    let mut tables: Vec<_> = tables.collect();
    tables.dedup();
    let [table] = &tables[..] else { panic!("{} different tables in {log}", tables.len()) };
    table.clone()
}

/// The fragments of a status dump; `log` is what was written since before the call.
pub fn parse_status(log: &str) -> Status {
    let mut status = Status::default();
    let mut open = None;
    for line in log.lines() {
        if let Some((_, fragment)) = line.split_once(" address=") {
            assert!(open.is_none(), "a fragment without an owner before: {line}");
            let (address, rest) = fragment.split_once(" frag=").unwrap();
            let (header, rest) = rest.split_once(" size=").unwrap();
            let (size, used) = rest.split_once(" used=").unwrap();
            assert_eq!(used.trim(), "1", "{line}");
            open = Some((hex(address), hex(header), size.parse().unwrap()));
        } else if let Some((_, owner)) = line.split_once("alloc'd from ") {
            let (address, header, size) = open.take().expect("a fragment before its owner");
            let owner = parse_owner(owner);
            status.used.push(UsedFragment { address, header, size, owner });
        } else if let Some((_, rest)) = line.split_once(" fragments no.:") {
            let (count, _) = rest.split_once(',').unwrap();
            status.free_fragments += count.trim().parse::<u64>().unwrap();
        }
    }
    status
}

/// `core: core/pt.c: init_pt(105)`
fn parse_owner(text: &str) -> Owner {
    let parts: Vec<&str> = text.trim().splitn(3, ": ").collect();
    let [module, file, place] = parts[..] else { panic!("not an owner: {text}") };
    let (function, line) = place.strip_suffix(')').and_then(|p| p.split_once('(')).unwrap();
    Owner {
        module: module.to_owned(),
        file: file.to_owned(),
        function: function.to_owned(),
        line: line.parse().unwrap(),
    }
}

/// `0x7f…`
pub fn hex(text: &str) -> u64 {
    let digits = text.trim().trim_start_matches("0x");
    u64::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("not an address: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(module: &str, file: &str, function: &str, line: u32) -> Owner {
        let text = |text: &str| text.to_owned();
        Owner { module: text(module), file: text(file), function: text(function), line }
    }

    #[test]
    fn a_summary_is_read_whatever_the_manager() {
        let log = " 6(9) NOTICE: qm_sums: qm_sums(): summarizing all alloc'ed. fragments:\n\
                   6(9) NOTICE: qm_sums: qm_sums():  count= 19720 size=   2358712 bytes from \
                   htable: ht_api.c: ht_cell_new(186)\n \
                   6(9) NOTICE: tlsf_sums:  count=     1 size=        56 bytes from core: \
                   core/pt.c: init_pt(107)\n";
        let expected = BTreeMap::from([
            (
                owner("htable", "ht_api.c", "ht_cell_new", 186),
                Share { fragments: 19_720, bytes: 2_358_712 },
            ),
            (owner("core", "core/pt.c", "init_pt", 107), Share { fragments: 1, bytes: 56 }),
        ]);
        assert_eq!(parse_summary(log), expected);
    }

    #[test]
    fn the_copies_of_a_function_in_a_header_file_are_one_owner() {
        let log = " 1(9) ALERT: qm_sums:  count= 1 size= 512 bytes from core: core/str_hash.h: \
                   str_hash_alloc(59)\n\
                   1(9) ALERT: qm_sums:  count= 6 size= 768 bytes from core: core/str_hash.h: \
                   str_hash_alloc(59)\n";
        let expected = Share { fragments: 7, bytes: 1280 };
        let owner = owner("core", "core/str_hash.h", "str_hash_alloc", 59);
        assert_eq!(parse_summary(log), BTreeMap::from([(owner, expected)]));
    }

    #[test]
    fn a_private_summary_that_is_written_twice_counts_once() {
        let table = " 1(9) ALERT: fm_status: fm_sums(): summarizing all alloc'ed. fragments:\n \
                     1(9) ALERT: fm_status: fm_sums():  count=     2 size=      1280 bytes from \
                     core: core/str_hash.h: str_hash_alloc(59)\n";
        let said = BTreeMap::from([(
            owner("core", "core/str_hash.h", "str_hash_alloc", 59),
            Share { fragments: 2, bytes: 1280 },
        )]);
        assert_eq!(parse_private_summary(table), said);
        assert_eq!(parse_private_summary(&table.repeat(2)), said);
    }

    #[test]
    #[should_panic(expected = "2 different tables")]
    fn private_summaries_that_differ_are_refused() {
        parse_private_summary(
            "summarizing all alloc'ed. fragments\n count= 1 size= 8 bytes from a: a.c: f(1)\n\
             summarizing all alloc'ed. fragments\n count= 2 size= 8 bytes from a: a.c: f(1)\n",
        );
    }

    #[test]
    fn a_status_dump_is_read() {
        let log = " 6(9) NOTICE: qm_status:      0. N  address=0x7faa8 frag=0x7fa70 size=8 used=1\n \
                   6(9) NOTICE: qm_status:           alloc'd from core: core/pt.c: init_pt(107)\n \
                   6(9) NOTICE: qm_status: hash=  14. fragments no.:    58, unused:     0\n\
                   \t\t bucket size:       112 -       112 (first       112)\n\
                   6(9) NOTICE: qm_status: hash= 2060. fragments no.:     1, unused:     0\n";
        let status = parse_status(log);
        assert_eq!(status.free_fragments, 59);
        let fragment = UsedFragment {
            address: 0x7_faa8,
            header: 0x7_fa70,
            size: 8,
            owner: owner("core", "core/pt.c", "init_pt", 107),
        };
        assert_eq!(status.used, [fragment]);
    }
}
