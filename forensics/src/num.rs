//! Lengths between `usize` and `u64` without `as`: saturating, so that a wrong one fails a bounds
//! check instead of wrapping into a plausible number.

/// A length as `u64`.
pub(crate) fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// A length or index as `usize`.
pub(crate) fn narrow(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// `count` as a floating-point number, for shares and rates.
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    #[expect(clippy::as_conversions, reason = "f64 has no From<u64>; a share needs no 64 bits")]
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
