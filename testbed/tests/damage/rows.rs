//! The rows: what is overwritten, and what must then be said.

use testbed::kamailio::Manager;
use testbed::patch::Patch;
use testbed::seed::Seed;

use crate::pool::Pool;

/// One way to damage a pool.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Chooses a victim; `None` if the pool has none for this row.
    pub(crate) make: fn(&Pool<'_>, &mut Seed) -> Option<Damage>,
    /// The managers that have what it damages.
    pub(crate) managers: &'static [Manager],
}

/// What is overwritten, and what follows.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    pub(crate) patches: Vec<Patch>,
    /// Fragments whose headers are destroyed.
    pub(crate) lost: Vec<usize>,
    /// A fragment whose file is not known any more.
    pub(crate) without_file: Option<usize>,
    /// Free fragments of whose headers only what an older owner left there is destroyed.
    pub(crate) without_owner: Vec<usize>,
    /// A long run is overwritten, in which more than one header may have stood. Whether the first
    /// one behind it is the next, or an old one inside a fragment whose own is overwritten, too,
    /// only a pointer to its payload shows.
    pub(crate) leaves_doubt: bool,
    pub(crate) expected: Vec<Expected>,
    /// Rules that may speak, too.
    pub(crate) may: &'static [&'static str],
    /// What the report for people says.
    pub(crate) text: Vec<String>,
}

/// A fact that must be found.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) rule: &'static str,
    pub(crate) at: u64,
    pub(crate) says: String,
    /// The fragment right before it.
    pub(crate) before: Option<usize>,
}

const BROKEN: &str = "heap-chain-broken";
const OVERWRITTEN: &str = "heap-check-overwritten";
const LISTS: &str = "free-list-damaged";
const WILD: &str = "owner-pointer-wild";
/// With fragments lost, the walk and the block's counters cannot agree.
const FOLLOWS_A_BREAK: &[&str] = &["heap-counters-disagree", LISTS];

/// Where nothing is.
const WILD_ADDRESS: u64 = 0xdead_beef_0000;
/// Sizes that nothing has.
const HUGE: u64 = 1 << 40;

const ALL: &[Manager] = &[Manager::Qm, Manager::Fm, Manager::Tlsf];
const WITH_CHECKS: &[Manager] = &[Manager::Qm, Manager::Fm];
const WITH_BITMAP: &[Manager] = &[Manager::Fm, Manager::Tlsf];

pub(crate) const ROWS: &[Row] = &[
    Row { name: "a check and a size", make: check_and_size, managers: ALL },
    Row { name: "one check word", make: check_word, managers: WITH_CHECKS },
    Row { name: "the state of the fragment before", make: state_bit, managers: &[Manager::Tlsf] },
    Row { name: "a size too small by 48", make: size_too_small, managers: ALL },
    Row { name: "a size that makes no step", make: size_of_no_step, managers: ALL },
    Row { name: "a size of any kind", make: any_size, managers: ALL },
    Row { name: "72 bytes past a payload", make: overrun, managers: ALL },
    Row { name: "400 bytes past a payload", make: long_overrun, managers: ALL },
    Row { name: "two sizes far apart", make: two_sizes, managers: ALL },
    Row { name: "the first fragment", make: first_fragment, managers: ALL },
    Row { name: "the last fragment", make: last_fragment, managers: ALL },
    Row { name: "a wild file", make: wild_file, managers: ALL },
    Row { name: "a free link to itself", make: link_to_itself, managers: ALL },
    Row { name: "a free link to nowhere", make: link_to_nowhere, managers: ALL },
    Row { name: "a free link to a used fragment", make: link_to_used, managers: ALL },
    Row { name: "a free link backwards", make: link_backwards, managers: ALL },
    Row { name: "a list head to nowhere", make: wild_head, managers: ALL },
    Row { name: "a free fragment in no list", make: unlisted, managers: ALL },
    Row { name: "a bit of the bitmap", make: bitmap, managers: WITH_BITMAP },
];

/// A fragment for which `fits` holds, neither the first nor the last.
fn choose(pool: &Pool<'_>, seed: &mut Seed, fits: impl Fn(usize) -> bool) -> Option<usize> {
    let inner = 1..pool.fragments.len() - 1;
    seed.pick(&inner.filter(|index| fits(*index)).collect::<Vec<_>>())
}

fn any(pool: &Pool<'_>, seed: &mut Seed) -> Option<usize> {
    // As many free ones as used ones, though the pool has far fewer.
    let used = seed.number().is_multiple_of(2);
    choose(pool, seed, |index| pool.fragments[index].used == used)
}

fn used(pool: &Pool<'_>, seed: &mut Seed) -> Option<usize> {
    choose(pool, seed, |index| pool.fragments[index].used)
}

fn free(pool: &Pool<'_>, seed: &mut Seed) -> Option<usize> {
    choose(pool, seed, |index| !pool.fragments[index].used)
}

fn word(at: u64, value: u64) -> Patch {
    (at, value.to_le_bytes().to_vec())
}

/// Another size in a header; the fragment is lost.
fn with_size(pool: &Pool<'_>, victim: usize, size: u64) -> Damage {
    let header = pool.fragments[victim].header;
    let at = header + pool.layout.size;
    let flags = pool.core.word(at) & pool.layout.flags;
    Damage {
        patches: vec![word(at, size | flags)],
        lost: vec![victim],
        expected: vec![Expected {
            rule: BROKEN,
            at: header,
            says: format!("its size field holds {size} ("),
            before: victim.checked_sub(1),
        }],
        may: FOLLOWS_A_BREAK,
        ..Damage::default()
    }
}

impl Damage {
    /// Both.
    fn and(mut self, other: Self) -> Self {
        self.patches.extend(other.patches);
        self.lost.extend(other.lost);
        self.without_owner.extend(other.without_owner);
        self.expected.extend(other.expected);
        self.may = if self.may.is_empty() { other.may } else { self.may };
        self
    }
}

/// A word of fixed value in the fragment, but not the one in `q_malloc`'s trailers.
fn with_check(pool: &Pool<'_>, victim: usize) -> Option<Damage> {
    let header = pool.fragments[victim].header;
    let (found, says) = match pool.layout.manager {
        Manager::Qm => (vec![0x41; 8], "beginning overwritten (0x4141414141414141)"),
        _ => (vec![0x41; 4], "beginning overwritten (0x41414141)"),
    };
    Some(Damage {
        patches: vec![(header + pool.layout.check?, found)],
        expected: vec![overwritten(pool, victim, says)],
        // A list does not go on behind a header that is not whole.
        may: if pool.fragments[victim].used { &[] } else { &[LISTS] },
        ..Damage::default()
    })
}

fn overwritten(pool: &Pool<'_>, victim: usize, says: &str) -> Expected {
    let (at, before) = (pool.fragments[victim].header, victim.checked_sub(1));
    Expected { rule: OVERWRITTEN, at, says: says.to_owned(), before }
}

fn with_state_bit(pool: &Pool<'_>, victim: usize) -> Damage {
    let at = pool.fragments[victim].header + pool.layout.size;
    Damage {
        patches: vec![word(at, pool.core.word(at) ^ 2)],
        expected: vec![overwritten(pool, victim, "disagree on whether that one is free")],
        ..Damage::default()
    }
}

/// Not for two free fragments of one list of `f_malloc`: the list ends at the first, and then
/// nothing tells how long the second was, and which headers inside it are old ones.
fn are_told_apart(pool: &Pool<'_>, one: usize, other: usize) -> bool {
    let list = |index| pool.list_with(index).map(|(list, _)| list.index);
    pool.layout.manager != Manager::Fm || list(one).is_none() || list(one) != list(other)
}

fn check_and_size(pool: &Pool<'_>, seed: &mut Seed) -> Option<Damage> {
    let one = any(pool, seed)?;
    let other =
        choose(pool, seed, |index| index.abs_diff(one) > 10 && are_told_apart(pool, one, index))?;
    let check = match pool.layout.manager {
        Manager::Qm => Damage {
            patches: vec![word(pool.fragments[one].end(), 0)],
            expected: vec![overwritten(pool, one, "end overwritten (0x0, 0xabcdefed)")],
            ..Damage::default()
        },
        Manager::Fm => with_check(pool, one)?,
        Manager::Tlsf => with_state_bit(pool, one),
    };
    Some(check.and(with_size(pool, other, HUGE)))
}

fn check_word(pool: &Pool<'_>, seed: &mut Seed) -> Option<Damage> {
    with_check(pool, any(pool, seed)?)
}

fn state_bit(pool: &Pool<'_>, seed: &mut Seed) -> Option<Damage> {
    Some(with_state_bit(pool, any(pool, seed)?))
}

fn size_too_small(pool: &Pool<'_>, seed: &mut Seed) -> Option<Damage> {
    let victim = choose(pool, seed, |index| pool.fragments[index].size > 48)?;
    Some(with_size(pool, victim, pool.fragments[victim].size - 48))
}

fn size_of_no_step(pool: &Pool<'_>, seed: &mut Seed) -> Option<Damage> {
    Some(with_size(pool, any(pool, seed)?, 0_u64.wrapping_sub(pool.layout.overhead())))
}

fn any_size(pool: &Pool<'_>, seed: &mut Seed) -> Option<Damage> {
    let victim = any(pool, seed)?;
    let size = pool.fragments[victim].size;
    let sizes = [0, size - 8, size + 8, HUGE, 0_u64.wrapping_sub(8)];
    Some(with_size(pool, victim, seed.pick(&sizes)?))
}

fn two_sizes(pool: &Pool<'_>, seed: &mut Seed) -> Option<Damage> {
    let one = any(pool, seed)?;
    let far = pool.fragments.len() / 4;
    let other =
        choose(pool, seed, |index| index.abs_diff(one) > far && are_told_apart(pool, one, index))?;
    Some(with_size(pool, one, HUGE).and(with_size(pool, other, pool.fragments[other].size + 8)))
}

fn first_fragment(pool: &Pool<'_>, _: &mut Seed) -> Option<Damage> {
    Some(with_size(pool, 0, HUGE))
}

fn last_fragment(pool: &Pool<'_>, _: &mut Seed) -> Option<Damage> {
    Some(with_size(pool, pool.fragments.len() - 1, HUGE))
}

/// A part of a SIP message.
fn message(length: u64) -> Vec<u8> {
    let lines = b"Via: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bK77ef4c2312983.1;rport\r\nTo: <sip:bob@\
                  example.net>\r\nFrom: <sip:ann@example.net>;tag=9fxced76sl\r\nCSeq: 314159 INVITE\r\n\
                  Contact: <sip:ann@192.0.2.7>\r\n";
    lines.iter().copied().cycle().take(usize::try_from(length).unwrap()).collect()
}

/// The fragments that a write of `length` bytes behind the payload of `victim` reaches.
fn hit_by_overrun(pool: &Pool<'_>, victim: usize, length: u64) -> impl Iterator<Item = usize> {
    let layout = pool.layout;
    let from = pool.fragments[victim].end();
    let to = from + length;
    (victim + 1..pool.fragments.len()).take_while(move |index| {
        let header = pool.fragments[*index].header;
        header + layout.shared < to && header + layout.header > from
    })
}

/// Whether old headers inside the fragments that such a write reaches can be told. They chain into
/// true ones only in `f_malloc`, and there pointers to the fragment in use that holds them tell.
fn old_headers_are_told(pool: &Pool<'_>, victim: usize, length: u64) -> bool {
    let holds_old_header = |index: &usize| {
        let fragment = &pool.fragments[*index];
        let words = (fragment.payload..fragment.end()).step_by(8);
        let is_check = |at| pool.core.holds(at, 4) && pool.core.bytes(at, 4) == [0xf0; 4];
        fragment.used && words.into_iter().any(is_check)
    };
    pool.layout.manager != Manager::Fm
        || !hit_by_overrun(pool, victim, length).any(|index| holds_old_header(&index))
        || hit_by_overrun(pool, victim, length)
            .filter(|index| pool.fragments[*index].used)
            .all(|index| pool.is_pointed_at(index, &[]))
}

/// `length` bytes of a message behind the payload of a used fragment.
fn with_overrun(pool: &Pool<'_>, victim: usize, length: u64) -> Damage {
    let layout = pool.layout;
    let from = pool.fragments[victim].end();
    let to = from + length;
    let hit = hit_by_overrun(pool, victim, length);
    // A free fragment needs no owner, which TLSF keeps in front of the size.
    let is_lost = |index: &usize| {
        let fragment = &pool.fragments[*index];
        fragment.used || fragment.header + layout.size < to
    };
    let (lost, without_owner): (Vec<usize>, Vec<usize>) = hit.partition(is_lost);
    let next = pool.fragments[victim + 1].header;
    let broken = |says: String| Expected { rule: BROKEN, at: next, says, before: Some(victim) };
    let mut expected = vec![
        broken("its size field holds ".to_owned()),
        broken("part of a SIP message".to_owned()),
    ];
    if layout.manager == Manager::Qm {
        expected.push(overwritten(pool, victim, "end overwritten (0x"));
    }
    // TLSF has no words of fixed value, which tell how far damage reaches.
    if layout.check.is_some() {
        let says = format!("overwritten are at least {length} bytes, from {from:#x} to {to:#x}");
        expected.push(Expected { rule: BROKEN, at: from, says, before: Some(victim) });
    }
    let owner = &pool.fragments[victim].owner;
    let function = owner.function.as_deref().unwrap_or("?");
    Damage {
        patches: vec![(from, message(length))],
        lost,
        without_owner,
        leaves_doubt: layout.manager == Manager::Fm,
        expected,
        may: FOLLOWS_A_BREAK,
        text: vec![
            "part of a SIP message".to_owned(),
            format!(": {function}({})", owner.line.unwrap_or_default()),
        ],
        ..Damage::default()
    }
}

fn is_text(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte.is_ascii_whitespace()
}

/// A used fragment whose overrun of `length` bytes stays within the pool's fragments, and ends
/// where no text goes on: that would count as overwritten, too.
fn overrunner(pool: &Pool<'_>, seed: &mut Seed, length: u64) -> Option<usize> {
    let last = pool.fragments.last()?.header;
    let victim = choose(pool, seed, |index| {
        let from = pool.fragments[index].end();
        pool.fragments[index].used
            && from + length < last
            && pool.core.holds(from, length + 1)
            && !is_text(pool.core.bytes(from + length, 1)[0])
    });
    victim.filter(|victim| old_headers_are_told(pool, *victim, length))
}

fn overrun(pool: &Pool<'_>, seed: &mut Seed) -> Option<Damage> {
    Some(with_overrun(pool, overrunner(pool, seed, 72)?, 72))
}

fn long_overrun(pool: &Pool<'_>, seed: &mut Seed) -> Option<Damage> {
    Some(with_overrun(pool, overrunner(pool, seed, 400)?, 400))
}

fn wild_file(pool: &Pool<'_>, seed: &mut Seed) -> Option<Damage> {
    let victim = used(pool, seed)?;
    let fragment = &pool.fragments[victim];
    Some(Damage {
        patches: vec![word(fragment.header + pool.layout.file, WILD_ADDRESS)],
        without_file: Some(victim),
        expected: vec![Expected {
            rule: WILD,
            at: fragment.payload,
            says: format!("file is {WILD_ADDRESS:#x}, which is "),
            before: victim.checked_sub(1),
        }],
        ..Damage::default()
    })
}

/// Another word in a list of free fragments; no fragment is lost.
fn with_fault(patch: Patch, at: u64, says: String, before: Option<usize>) -> Damage {
    let expected = vec![Expected { rule: LISTS, at, says, before }];
    Damage { patches: vec![patch], expected, ..Damage::default() }
}

/// Another link forwards in a free fragment.
fn with_link(pool: &Pool<'_>, victim: usize, to: u64, says: &str) -> Damage {
    let at = pool.fragments[victim].header;
    let says = format!("the link at {at:#x} leads {says}");
    with_fault(word(at + pool.layout.next, to), at, says, victim.checked_sub(1))
}

fn link_to_itself(pool: &Pool<'_>, seed: &mut Seed) -> Option<Damage> {
    let victim = free(pool, seed)?;
    let at = pool.fragments[victim].header;
    Some(with_link(pool, victim, at, &format!("back to {at:#x}: it never ends")))
}

fn link_to_nowhere(pool: &Pool<'_>, seed: &mut Seed) -> Option<Damage> {
    let says = format!("to {WILD_ADDRESS:#x}, no free fragment");
    Some(with_link(pool, free(pool, seed)?, WILD_ADDRESS, &says))
}

fn link_to_used(pool: &Pool<'_>, seed: &mut Seed) -> Option<Damage> {
    let victim = free(pool, seed)?;
    let other = pool.fragments[used(pool, seed)?].header;
    Some(with_link(pool, victim, other, &format!("to {other:#x}, which is in use")))
}

fn link_backwards(pool: &Pool<'_>, seed: &mut Seed) -> Option<Damage> {
    let victim = free(pool, seed)?;
    let at = pool.fragments[victim].header;
    let says = format!("the link backwards of {at:#x} leads to {WILD_ADDRESS:#x}");
    Some(with_fault(word(pool.back(victim), WILD_ADDRESS), at, says, victim.checked_sub(1)))
}

fn wild_head(pool: &Pool<'_>, seed: &mut Seed) -> Option<Damage> {
    let (list, _) = pool.list_with(free(pool, seed)?)?;
    let says = format!("the link at {:#x} leads to {WILD_ADDRESS:#x}", list.head);
    let patch = word(list.head + pool.layout.lists.first, WILD_ADDRESS);
    Some(with_fault(patch, list.head, says, None))
}

/// Taken out as the manager does it, and not marked as used.
fn unlisted(pool: &Pool<'_>, seed: &mut Seed) -> Option<Damage> {
    let layout = pool.layout;
    // A list that becomes empty has its bit cleared, too: another row.
    let with_others =
        |index: usize| pool.list_with(index).is_some_and(|(list, _)| list.members.len() > 1);
    let victim = choose(pool, seed, with_others)?;
    let (list, place) = pool.list_with(victim)?;
    let (next, back) = (
        pool.core.word(pool.fragments[victim].header + layout.next),
        pool.core.word(pool.back(victim)),
    );
    let from = match place.checked_sub(1) {
        Some(before) => pool.fragments[list.members[before]].header + layout.next,
        None => list.head + layout.lists.first,
    };
    let mut patches = vec![word(from, next)];
    if let Some(after) = list.members.get(place + 1) {
        patches.push(word(pool.back(*after), back));
    }
    if let Some(said) = layout.lists.said {
        let at = list.head + said;
        patches.push(word(at, pool.core.word(at) - 1));
    }
    let at = pool.fragments[victim].header;
    let says = format!("the free fragment at {at:#x} is in no free list");
    let expected = vec![Expected { rule: LISTS, at, says, before: victim.checked_sub(1) }];
    Some(Damage { patches, expected, ..Damage::default() })
}

fn bitmap(pool: &Pool<'_>, seed: &mut Seed) -> Option<Damage> {
    let (list, _) = pool.list_with(free(pool, seed)?)?;
    let (at, bit) = pool.layout.bit_of_list(pool.block, list.index)?;
    let byte = pool.core.bytes(at, 1)[0];
    assert_ne!(byte & bit, 0, "the sound bitmap knows list {}", list.index);
    let says = format!("free list {}: the bitmap says that it is empty", list.index);
    Some(with_fault((at, vec![byte & !bit]), list.head, says, None))
}
