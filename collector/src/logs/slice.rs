//! The part of a log that is wanted: from the first line that is young enough to the end, and of
//! that the last bytes up to a cap.
//!
//! Lines without a time belong to the line before. A log without any time is kept from its end
//! backwards up to the cap. A log that grows meanwhile ends where it ended when it was opened.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use jiff::Timestamp;

use super::time::Clock;
use crate::number::{bytes, human, size};

/// How much a slice may be and take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Lines from here on.
    pub(crate) since: Timestamp,
    /// Bytes that are kept: the last ones.
    pub(crate) cap: u64,
    /// Bytes that are read, or come out of a packed file.
    pub(crate) most: u64,
    /// When reading ends, finished or not.
    pub(crate) until: Instant,
}

/// What is kept of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    /// Its bytes.
    pub(crate) text: Vec<u8>,
    /// Time of its first and last line that tell one.
    pub(crate) times: Option<(Timestamp, Timestamp)>,
    /// What was cut, in words; not the lines that are too old.
    pub(crate) cut: Option<String>,
}

/// Distances from the end at which it is tried whether lines are too old already.
const PROBES: [u64; 5] = [64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20];
/// Bytes of one probe.
const PROBE: usize = 8 << 10;

/// The slice of a plain file.
pub(crate) fn of_file(file: &mut File, clock: &Clock, limits: &Limits) -> io::Result<Slice> {
    let length = file.metadata()?.len();
    let earliest = length.saturating_sub(limits.cap);
    let old = PROBES.into_iter().filter_map(|back| {
        let at = length.checked_sub(back).filter(|at| *at > earliest)?;
        is_older(file, at, clock, limits.since).then_some(at)
    });
    let start = old.take(1).next().unwrap_or(earliest);
    file.seek(SeekFrom::Start(start))?;
    let mut window = Window::new(clock, limits, start == 0);
    window.dropped = if start == earliest { earliest } else { 0 };
    window.fill(&mut file.take(length.saturating_sub(start)))?;
    Ok(window.finish())
}

/// Whether the first line with a time after `at` is too old.
fn is_older(file: &File, at: u64, clock: &Clock, since: Timestamp) -> bool {
    let mut piece = [0; PROBE];
    let Ok(read) = file.read_at(&mut piece, at) else { return false };
    let piece = piece.get(..read).unwrap_or_default();
    let mut lines = piece.split(|byte| *byte == b'\n').skip(1);
    lines.find_map(|line| clock.stamp(line)).is_some_and(|stamp| stamp < since)
}

/// Takes a log from front to back.
pub(crate) struct Window<'a> {
    clock: &'a Clock,
    limits: &'a Limits,
    text: Vec<u8>,
    /// Where in `text` the line begins at which the search goes on; `None`: its begin is gone.
    line: Option<usize>,
    /// Where the search for its end goes on.
    searched: usize,
    /// The first line that is young enough was met.
    started: bool,
    /// A line with a time was met.
    dated: bool,
    /// Bytes before `text` that may have been wanted.
    dropped: u64,
    /// `text` begins within a line.
    ragged: bool,
    /// What went wrong.
    ended_early: Option<String>,
}

impl<'a> Window<'a> {
    pub(crate) fn new(clock: &'a Clock, limits: &'a Limits, at_line_start: bool) -> Self {
        Self {
            clock,
            limits,
            text: Vec::new(),
            line: at_line_start.then_some(0),
            searched: 0,
            started: false,
            dated: false,
            dropped: 0,
            ragged: !at_line_start,
            ended_early: None,
        }
    }

    /// Takes all that a reader gives, within the limits. An error of reading keeps what came.
    pub(crate) fn fill(&mut self, from: &mut impl Read) -> io::Result<()> {
        let mut piece = vec![0; 256 << 10];
        let mut total: u64 = 0;
        loop {
            let read = match from.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if total == 0 => return Err(error),
                Err(error) => {
                    self.ended_early =
                        Some(format!("reading ended after {total} bytes with an error: {error}"));
                    return Ok(());
                }
            };
            self.push(piece.get(..read).unwrap_or_default());
            total = total.saturating_add(bytes(read));
            if total >= self.limits.most {
                let most = human(self.limits.most);
                self.ended_early = Some(format!("reading ended after {most} ({total} bytes)"));
                return Ok(());
            }
            if Instant::now() >= self.limits.until {
                self.ended_early = Some(format!("no time was left after {total} bytes"));
                return Ok(());
            }
        }
    }

    fn push(&mut self, piece: &[u8]) {
        self.text.extend_from_slice(piece);
        while !self.started {
            let rest = self.text.get(self.searched..).unwrap_or_default();
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.text.len();
                break;
            };
            let next = self.searched.saturating_add(end).saturating_add(1);
            self.judge();
            if !self.started {
                self.line = Some(next);
                self.searched = next;
            }
        }
        let cap = size(self.limits.cap);
        if self.text.len() > cap.saturating_add(cap / 2) {
            self.trim();
        }
    }

    /// Looks at the line that was being searched: does the slice begin with it?
    fn judge(&mut self) {
        let Some(at) = self.line else { return };
        let line = self.text.get(at..).unwrap_or_default();
        let Some(stamp) = self.clock.stamp(line) else { return };
        self.dated = true;
        self.started = stamp >= self.limits.since;
        if self.started {
            self.text.drain(..at);
            self.ragged = false;
        } else {
            self.dropped = 0;
        }
    }

    fn trim(&mut self) {
        let surplus = self.text.len().saturating_sub(size(self.limits.cap));
        if surplus == 0 {
            return;
        }
        if !self.started && self.line.is_some_and(|line| line < surplus) {
            self.judge();
            self.line = None;
        }
        // `judge` may have made it shorter.
        let surplus = self.text.len().saturating_sub(size(self.limits.cap));
        self.line = self.line.map(|line| line.saturating_sub(surplus));
        self.searched = self.searched.saturating_sub(surplus);
        if surplus > 0 {
            self.text.drain(..surplus);
            self.ragged = true;
            self.dropped = self.dropped.saturating_add(bytes(surplus));
        }
    }

    pub(crate) fn finish(mut self) -> Slice {
        if !self.started {
            self.judge();
        }
        if self.dated && !self.started {
            self.text.clear();
            self.dropped = 0;
        }
        self.trim();
        if self.ragged {
            let rest = after_first_line(&self.text, self.clock);
            self.text.drain(..rest);
        }
        let before = (self.dropped > 0 && !self.text.is_empty())
            .then(|| format!("only the last {} bytes of what was wanted", self.text.len()));
        let undated = (!self.dated && !self.text.is_empty()).then(|| "no line has a time".into());
        let cut: Vec<String> = [before, undated, self.ended_early].into_iter().flatten().collect();
        let times = times(&self.text, self.clock);
        Slice { times, cut: (!cut.is_empty()).then(|| cut.join("; ")), text: self.text }
    }
}

/// Where the first whole line begins, one with a time if there is one: what is before it may be the
/// half of a secret. Where that would leave nearly nothing, the first whole word.
fn after_first_line(text: &[u8], clock: &Clock) -> usize {
    let newlines = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let starts = newlines.map(|(at, _)| at.saturating_add(1)).take(LINES);
    let starts = starts.take_while(|start| *start < text.len() / 2);
    let dated = |start: &usize| text.get(*start..).is_some_and(|line| clock.stamp(line).is_some());
    let first = starts.clone().find(dated).or_else(|| starts.clone().next());
    let word = || text.iter().position(|byte| byte.is_ascii_whitespace());
    first.or_else(word).unwrap_or(0)
}

/// So many lines are looked at for a time.
const LINES: usize = 1000;

/// Time of the first and of the last line that tell one, near either end.
fn times(text: &[u8], clock: &Clock) -> Option<(Timestamp, Timestamp)> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let first = lines.by_ref().take(LINES).find_map(|line| clock.stamp(line))?;
    let mut lines = text.rsplit(|byte| *byte == b'\n').take(LINES);
    let last = lines.find_map(|line| clock.stamp(line)).unwrap_or(first);
    Some((first, last))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use jiff::tz::TimeZone;

    use super::*;

    fn clock() -> Clock {
        Clock::new("2026-06-01T12:00:00Z".parse().unwrap(), TimeZone::UTC)
    }

    fn limits(cap: u64) -> Limits {
        Limits {
            since: "2026-06-01T10:00:00Z".parse().unwrap(),
            cap,
            most: 1 << 40,
            until: Instant::now() + Duration::from_secs(60),
        }
    }

    fn slice_of(content: &[u8], cap: u64) -> Slice {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        of_file(&mut file, &clock(), &limits(cap)).unwrap()
    }

    fn text(slice: &Slice) -> &str {
        std::str::from_utf8(&slice.text).unwrap()
    }

    #[test]
    fn it_begins_with_the_first_line_that_is_young_enough() {
        let log = "Jun  1 09:59:59 h old\n more of it\nJun  1 10:00:00 h young\n more\n\
                   Jun  1 11:00:00 h last\n";
        let slice = slice_of(log.as_bytes(), 1000);
        assert_eq!(text(&slice), "Jun  1 10:00:00 h young\n more\nJun  1 11:00:00 h last\n");
        let (first, last) = slice.times.unwrap();
        assert_eq!(first.to_string(), "2026-06-01T10:00:00Z");
        assert_eq!(last.to_string(), "2026-06-01T11:00:00Z");
        assert_eq!(slice.cut, None);
    }

    #[test]
    fn a_log_of_old_lines_only_gives_nothing() {
        let slice = slice_of(b"Jun  1 09:59:59 h old\nmore\n", 1000);
        assert_eq!(slice, Slice::default());
        assert_eq!(slice_of(b"", 1000), Slice::default());
    }

    #[test]
    fn of_a_long_slice_the_end_is_kept_in_whole_lines() {
        let mut log = "Jun  1 09:00:00 h old\n".to_owned();
        for number in 0..1000 {
            log += &format!("Jun  1 11:00:00 h line {number}\n");
        }
        let slice = slice_of(log.as_bytes(), 100);
        assert!(text(&slice).ends_with("line 999\n") && text(&slice).starts_with("Jun"));
        assert!((50..=100).contains(&slice.text.len()), "{}", slice.text.len());
        let length = slice.text.len();
        assert_eq!(slice.cut.unwrap(), format!("only the last {length} bytes of what was wanted"));
    }

    #[test]
    fn old_lines_far_before_the_end_are_not_even_read() {
        let mut log = Vec::new();
        while log.len() < 3 << 20 {
            log.extend_from_slice(b"Jun  1 09:00:00 h an old line that is rather long\n");
        }
        log.extend_from_slice(b"Jun  1 11:00:00 h young\n");
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&log).unwrap();
        let limits = Limits { most: 100_000, ..limits(32 << 20) };
        let slice = of_file(&mut file, &clock(), &limits).unwrap();
        assert_eq!(text(&slice), "Jun  1 11:00:00 h young\n");
        assert_eq!(slice.cut, None);
    }

    #[test]
    fn a_log_without_times_is_kept_up_to_the_cap() {
        let slice = slice_of(b" 0(1) INFO: a\n 0(1) INFO: b\n", 1000);
        assert_eq!(text(&slice), " 0(1) INFO: a\n 0(1) INFO: b\n");
        assert_eq!(slice.cut.as_deref(), Some("no line has a time"));
    }

    #[test]
    fn a_line_of_a_gigabyte_costs_no_more_than_the_cap() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"Jun  1 09:00:00 h old\nJun  1 11:00:00 h ").unwrap();
        file.set_len(1 << 30).unwrap();
        let slice = of_file(&mut file, &clock(), &limits(1 << 20)).unwrap();
        assert_eq!(slice.text.len(), 1 << 20);
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b"\nJun  1 11:30:00 h after it\n").unwrap();
        let slice = of_file(&mut file, &clock(), &limits(1 << 20)).unwrap();
        assert_eq!(text(&slice), "Jun  1 11:30:00 h after it\n");
    }

    #[test]
    fn a_file_of_a_terabyte_is_read_from_its_end_only() {
        let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(1 << 40).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b"\nJun  1 11:30:00 h at the end\n").unwrap();
        let begun = Instant::now();
        let slice = of_file(&mut file, &clock(), &limits(1 << 20)).unwrap();
        assert_eq!(text(&slice), "Jun  1 11:30:00 h at the end\n");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn in_any_pieces_the_slice_is_the_same() {
        let mut log = String::new();
        for number in 0..60 {
            log += &format!(
                "Jun  1 {:02}:{number:02}:00 h {}\n more\n",
                9 + number / 30,
                "x".repeat(number)
            );
        }
        let (clock, limits) = (clock(), limits(500));
        let whole = slice_of(log.as_bytes(), 500);
        for length in [1, 7, 64, 499, 5000] {
            let mut window = Window::new(&clock, &limits, true);
            log.as_bytes().chunks(length).for_each(|piece| window.push(piece));
            assert_eq!(text(&window.finish()), text(&whole), "pieces of {length}");
        }
    }

    #[test]
    fn what_is_read_and_how_long_is_limited() {
        let (clock, limits) = (clock(), Limits { most: 1 << 20, ..limits(1000) });
        let mut window = Window::new(&clock, &limits, true);
        window.fill(&mut io::repeat(b'x')).unwrap();
        let slice = window.finish();
        assert_eq!(slice.text.len(), 1000);
        assert!(slice.cut.unwrap().contains("reading ended after 1.0 MiB (1048576 bytes)"));
        let limits = Limits { until: Instant::now(), ..self::limits(1000) };
        let mut window = Window::new(&clock, &limits, true);
        window.fill(&mut io::repeat(b'x')).unwrap();
        assert!(window.finish().cut.unwrap().contains("no time was left"));
    }
}
