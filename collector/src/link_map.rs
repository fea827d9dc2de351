//! What a debugger reads to learn which files a process has loaded: the loader's list. Its nodes
//! lie between other allocations, so each is taken by itself.

use std::fs;

use crate::program::Words;
use crate::spans::Span;

/// Files that are listed at most.
const MOST: usize = 4096;
/// The longest path.
const LONGEST: u64 = 4096;

/// `l_addr`, `l_name`, `l_ld`, `l_next`, `l_prev`.
const NODE: u64 = 40;
const NAME: u64 = 8;
const NEXT: u64 = 24;
/// `struct r_debug` up to `r_ldbase`; `r_map` at 8.
const DEBUG: u64 = 40;
const MAP: u64 = 8;

const AT_PHDR: u64 = 3;
const AT_PHNUM: u64 = 5;
const PT_DYNAMIC: u32 = 2;
const PT_PHDR: u32 = 6;
const DT_DEBUG: u64 = 21;
/// More than any program has.
const MOST_ENTRIES: u64 = 512;

/// Where the list lies in the process with the thread `id`: the pointer to it, its head, its nodes
/// and their names. What cannot be read ends it.
pub(crate) fn spans(id: u32, words: &Words) -> Vec<Span> {
    let auxiliary = fs::read(format!("/proc/{id}/auxv")).unwrap_or_default();
    let mut spans = Vec::new();
    let Some(debug) = pointer(&auxiliary, words) else { return spans };
    spans.push(Span::new(debug, debug.saturating_add(8)));
    let Some(debug) = words.word(debug).filter(|at| *at != 0) else { return spans };
    spans.push(Span::new(debug, debug.saturating_add(DEBUG)));
    let mut node = words.word(debug.saturating_add(MAP));
    for _ in 0..MOST {
        let Some(at) = node.filter(|at| *at != 0) else { break };
        spans.push(Span::new(at, at.saturating_add(NODE)));
        if let Some(name) = words.word(at.saturating_add(NAME))
            && let Some(length) = words.text_length(name, LONGEST)
        {
            spans.push(Span::new(name, name.saturating_add(length + 1)));
        }
        node = words.word(at.saturating_add(NEXT));
    }
    spans
}

/// Address of the program's `DT_DEBUG` value.
fn pointer(auxiliary: &[u8], words: &Words) -> Option<u64> {
    let (values, _) = auxiliary.as_chunks::<8>();
    let values: Vec<u64> = values.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let value = |key: u64| {
        let mut pairs = values.as_chunks::<2>().0.iter();
        pairs.find(|[known, _]| *known == key).map(|[_, value]| *value)
    };
    let (headers, count) = (value(AT_PHDR)?, value(AT_PHNUM)?.min(MOST_ENTRIES));
    let (mut bias, mut dynamic) = (0, None);
    for index in 0..count {
        let at = headers.checked_add(index * 56)?;
        let kind = u32::from_le_bytes(words.bytes(at)?);
        let address = words.word(at.checked_add(16)?)?;
        match kind {
            PT_PHDR => bias = headers.wrapping_sub(address),
            PT_DYNAMIC => dynamic = Some(address),
            _ => {}
        }
    }
    let dynamic = dynamic?.wrapping_add(bias);
    for index in 0..MOST_ENTRIES {
        let at = dynamic.checked_add(index * 16)?;
        match words.word(at)? {
            0 => break,
            DT_DEBUG => return at.checked_add(8),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_list_names_our_libraries() {
        let id = std::process::id();
        let words = Words::of(id).unwrap();
        let spans = spans(id, &words);
        let text = |span: &Span| -> String {
            let bytes = (span.start..span.end - 1).map(|at| words.bytes::<1>(at).unwrap()[0]);
            String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
        };
        let names: Vec<String> = spans.iter().skip(2).map(text).collect();
        assert!(names.iter().any(|name| name.contains("libc.so")), "{names:?}");
        assert!(names.iter().any(|name| name.contains("ld-linux")), "{names:?}");
    }

    #[test]
    fn without_an_auxiliary_vector_there_is_none() {
        let words = Words::of(std::process::id()).unwrap();
        assert_eq!(pointer(b"", &words), None);
        let wild: Vec<u8> = [3_u64, 8, 5, 600, 0, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
        assert_eq!(pointer(&wild, &words), None);
    }
}
