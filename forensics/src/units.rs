//! Numbers as people read them, the exact figure always beside the rounded one.

use crate::num::ratio;

const UNITS: [(u64, &str); 4] =
    [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];

/// `2.4 MiB (2,546,624 bytes)`; below 1 KiB just `824 bytes`.
pub(crate) fn size(bytes: u64) -> String {
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => {
            format!("{:.1} {name} ({} bytes)", ratio(bytes, *unit), count(bytes))
        }
        None => format!("{bytes} bytes"),
    }
}

/// `2,546,624`
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len().saturating_mul(2));
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && digits.len().saturating_sub(index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `12.3 %`
pub(crate) fn share(part: u64, whole: u64) -> String {
    format!("{:.1} %", ratio(part, whole) * 100.0)
}

/// `31.4 ms`
pub(crate) fn milliseconds(micros: u64) -> String {
    format!("{:.1} ms", ratio(micros, 1000))
}

/// `1 h 3 min (3,800.500 s)`; below a minute just `20.500 s`.
pub(crate) fn span(time: jiff::SignedDuration) -> String {
    let seconds = time.as_secs().unsigned_abs();
    let exact = format!("{}.{:03} s", count(seconds), time.subsec_millis());
    if seconds < 60 { exact } else { format!("{} ({exact})", duration(seconds)) }
}

/// `2 h 10 min`: the two largest units.
pub(crate) fn duration(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut parts = Vec::new();
    let mut rest = seconds;
    for (unit, name) in UNITS {
        let whole = rest.checked_div(unit).unwrap_or(0);
        rest = rest.saturating_sub(whole.saturating_mul(unit));
        if whole > 0 || !parts.is_empty() {
            parts.push((whole, name));
        }
    }
    let shown: Vec<String> = parts
        .iter()
        .take(2)
        .filter(|(whole, _)| *whole > 0)
        .map(|(whole, name)| format!("{whole} {name}"))
        .collect();
    if shown.is_empty() { "0 s".to_owned() } else { shown.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_shows_its_two_largest_units() {
        assert_eq!(duration(0), "0 s");
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(60), "1 min");
        assert_eq!(duration(7859), "2 h 10 min");
        assert_eq!(duration(86_400 + 59), "1 d");
    }

    #[test]
    fn a_size_keeps_the_exact_number() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(1023), "1023 bytes");
        assert_eq!(size(2_546_624), "2.4 MiB (2,546,624 bytes)");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(share(1, 8), "12.5 %");
        assert_eq!(share(1, 0), "0.0 %");
    }

    #[test]
    fn a_time_keeps_its_exact_seconds() {
        let time = jiff::SignedDuration::from_millis;
        assert_eq!(span(time(20_500)), "20.500 s");
        assert_eq!(span(time(80_001)), "1 min 20 s (80.001 s)");
        assert_eq!(span(time(3_800_500)), "1 h 3 min (3,800.500 s)");
    }
}
