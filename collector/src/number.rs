//! Conversions that cannot lose anything on a 64-bit machine.

/// A length in memory as a count of bytes.
pub(crate) fn bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// A count of bytes as a length in memory.
pub(crate) fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Rounds down to a page.
pub(crate) fn page_floor(at: u64) -> u64 {
    at - at % bundle::PAGE_SIZE
}

/// Rounds up to a page.
pub(crate) fn page_ceil(at: u64) -> u64 {
    at.checked_next_multiple_of(bundle::PAGE_SIZE).unwrap_or(page_floor(u64::MAX))
}

/// `12.3 MiB`, for a person.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    // Tenths of the unit, in whole numbers.
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = "KiB";
    for next in UNITS.into_iter().skip(1) {
        if tenths < 10 * 1024 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// A text in which nothing moves a terminal or begins a line: control characters are shown as escapes.
pub(crate) fn plain(text: &str) -> String {
    let shown = |letter: char| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_begins_no_line_of_its_own() {
        assert_eq!(
            plain("a\nsafe to restart now\u{1b}[0m é"),
            "a\\nsafe to restart now\\u{1b}[0m é"
        );
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(human(1023), "1023 bytes");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(100_999_168), "96.3 MiB");
        assert_eq!(human(5 << 40), "5.0 TiB");
    }
}
