//! The time that a log line begins with.
//!
//! Understood: `Nov  3 05:06:07` (RFC 3164, with or without `<PRI>`; the year is the one that puts
//! it before now), `2026-11-03T05:06:07.123+01:00` (RFC 5424, with or without `<PRI>1 `, and ISO
//! with a blank between). Without a zone it is the host's.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// A line's head is looked at so far, in bytes.
const HEAD: usize = 64;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// What time stamps without a year or a zone are read by.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    now: Timestamp,
    zone: TimeZone,
}

impl Clock {
    /// Stamps are those of `zone`, and none is of the future.
    pub(crate) fn new(now: Timestamp, zone: TimeZone) -> Self {
        Self { now, zone }
    }

    /// This host's.
    pub(crate) fn of_host() -> Self {
        Self::new(Timestamp::now(), TimeZone::system())
    }

    /// Its now.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// The time as a person reads it, with the zone's offset.
    pub(crate) fn words(&self, time: Timestamp) -> String {
        time.to_zoned(self.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.6f%:z").to_string()
    }

    /// The time at the start of a line.
    pub(crate) fn stamp(&self, line: &[u8]) -> Option<Timestamp> {
        let head = line.get(..HEAD.min(line.len()))?;
        let end = head.iter().position(|byte| !(b' '..=b'~').contains(byte)).unwrap_or(head.len());
        let text = std::str::from_utf8(head.get(..end)?).ok()?;
        let text = without_priority(text);
        self.iso(text).or_else(|| self.bsd(text))
    }

    fn iso(&self, text: &str) -> Option<Timestamp> {
        let (date, rest) = text.split_at_checked(10)?;
        let (year, month_day) = date.split_once('-')?;
        let (month, day) = month_day.split_once('-')?;
        let date = Date::new(number(year, 4)?, number8(month)?, number8(day)?).ok()?;
        let rest = rest.strip_prefix(['T', ' '])?;
        let (time, rest) = clock_time(rest)?;
        let (nanos, rest) = fraction(rest);
        let time = DateTime::from_parts(date, time);
        let stamp = match offset(rest) {
            Some(offset) => offset.to_timestamp(time).ok()?,
            None => self.local(time)?,
        };
        stamp.checked_add(SignedDuration::from_nanos(nanos)).ok()
    }

    /// Without a year.
    fn bsd(&self, text: &str) -> Option<Timestamp> {
        let (name, rest) = text.split_at_checked(3)?;
        let month = MONTHS.iter().position(|month| *month == name)?;
        let month = i8::try_from(month.checked_add(1)?).ok()?;
        let (day, rest) = rest.strip_prefix(' ')?.trim_start_matches(' ').split_once(' ')?;
        let (time, _) = clock_time(rest)?;
        let day = day.parse().ok()?;
        let this_year = self.now.to_zoned(self.zone.clone()).year();
        // Clocks differ; a day in the future is another host's, more is another year's.
        let latest = self.now.checked_add(SignedDuration::from_hours(24)).ok()?;
        [this_year, this_year.checked_sub(1)?].into_iter().find_map(|year| {
            let date = Date::new(year, month, day).ok()?;
            self.local(DateTime::from_parts(date, time)).filter(|stamp| *stamp <= latest)
        })
    }

    fn local(&self, time: DateTime) -> Option<Timestamp> {
        self.zone.to_timestamp(time).ok()
    }
}

/// Skips `<PRI>` and RFC 5424's version.
fn without_priority(text: &str) -> &str {
    let Some((priority, rest)) = text.strip_prefix('<').and_then(|text| text.split_once('>'))
    else {
        return text;
    };
    if priority.len() > 3 || !priority.bytes().all(|byte| byte.is_ascii_digit()) {
        return text;
    }
    rest.strip_prefix("1 ").unwrap_or(rest)
}

fn number(text: &str, digits: usize) -> Option<i16> {
    let right = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    right.then(|| text.parse().ok()).flatten()
}

fn number8(text: &str) -> Option<i8> {
    i8::try_from(number(text, 2)?).ok()
}

/// `05:06:07` and what follows.
fn clock_time(text: &str) -> Option<(Time, &str)> {
    let (time, rest) = text.split_at_checked(8)?;
    let mut parts = time.split(':');
    let mut next = || number8(parts.next()?);
    let (hour, minute, second) = (next()?, next()?, next()?);
    // A leap second is the last one of its minute.
    Some((Time::new(hour, minute, second.min(59), 0).ok()?, rest))
}

/// `.123` as nanoseconds, and what follows.
fn fraction(text: &str) -> (i64, &str) {
    let Some(digits) = text.strip_prefix(['.', ',']) else { return (0, text) };
    let end = digits.find(|one: char| !one.is_ascii_digit()).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at_checked(end).unwrap_or((digits, ""));
    let nanos = digits.bytes().chain(std::iter::repeat(b'0')).take(9);
    (nanos.fold(0, |sum, digit| sum * 10 + i64::from(digit.saturating_sub(b'0'))), rest)
}

/// `Z`, `+01:00` or `+0100`.
fn offset(text: &str) -> Option<Offset> {
    if text.starts_with('Z') {
        return Some(Offset::UTC);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let text = text.strip_prefix(['+', '-'])?;
    let (hours, rest) = text.split_at_checked(2)?;
    let minutes = rest.strip_prefix(':').unwrap_or(rest).get(..2)?;
    let seconds = i32::from(number8(hours)?) * 3600 + i32::from(number8(minutes)?) * 60;
    Offset::from_seconds(sign * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-02 in a zone two hours east.
    fn clock() -> Clock {
        let zone = TimeZone::fixed(Offset::from_hours(2).unwrap());
        Clock::new("2026-01-02T10:00:00Z".parse().unwrap(), zone)
    }

    #[track_caller]
    fn stamp(line: &str, expected: &str) {
        let found = clock().stamp(line.as_bytes());
        assert_eq!(found.map(|found| found.to_string()).as_deref(), Some(expected), "{line}");
    }

    #[test]
    fn the_styles_of_syslog_daemons_are_read() {
        stamp("Jan  2 03:04:05 host kamailio[7]: x", "2026-01-02T01:04:05Z");
        stamp("<134>Jan 02 03:04:05 host x", "2026-01-02T01:04:05Z");
        stamp("2026-01-02T03:04:05.25+01:00 host x", "2026-01-02T02:04:05.25Z");
        stamp("2026-01-02T03:04:05.123456-0130 host x", "2026-01-02T04:34:05.123456Z");
        stamp("<134>1 2026-01-02T03:04:05Z host x", "2026-01-02T03:04:05Z");
        stamp("2026-01-02 03:04:05,5 x", "2026-01-02T01:04:05.5Z");
        stamp("2026-01-02 23:59:60 x", "2026-01-02T21:59:59Z");
    }

    #[test]
    fn a_stamp_without_a_year_is_of_the_past() {
        stamp("Dec 31 23:00:00 host x", "2025-12-31T21:00:00Z");
        stamp("Jan  3 11:00:00 a clock that is ahead", "2026-01-03T09:00:00Z");
        stamp("Jan  4 11:00:00 host x", "2025-01-04T09:00:00Z");
    }

    #[test]
    fn other_lines_have_no_stamp() {
        let others = [
            "",
            " 0(123) INFO: <core>: x",
            "Jan",
            "Jan 32 03:04:05 x",
            "2026-13-01T00:00:00Z x",
            "2026-01-02T25:04:05Z x",
            "<99999>Jan  2 03:04:05",
            "Janu 2 03:04:05",
            "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
            "20260102 030405",
        ];
        for line in others {
            assert_eq!(clock().stamp(line.as_bytes()), None, "{line}");
        }
        assert_eq!(clock().stamp(&[0; 100]), None);
        assert_eq!(clock().stamp(b"Jan  2 03:04:0\xff"), None);
    }
}
