//! Half-open ranges of addresses or of file offsets, and the few things done with lists of them.
//!
//! Lists are by rising start and do not overlap, except where [`merge`] takes any.

/// A half-open range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first byte in it.
    pub start: u64,
    /// The first byte after it.
    pub end: u64,
}

impl Span {
    /// From `start` up to, not including, `end`.
    pub fn new(start: u64, end: u64) -> Self {
        Self { start, end }
    }

    /// Its length in bytes.
    pub fn length(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it holds no byte.
    pub fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// What both hold; may be empty.
    pub fn and(self, other: Self) -> Self {
        Self { start: self.start.max(other.start), end: self.end.min(other.end) }
    }
}

/// The total length of a list, in bytes.
pub fn total(spans: &[Span]) -> u64 {
    spans.iter().map(|span| span.length()).sum()
}

/// Sorts any spans and joins those that touch or overlap.
pub fn merge(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|span| !span.is_empty());
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => merged.push(span),
        }
    }
    merged
}

/// Cuts `whole` at the edges of `parts`: each piece comes with the part that covers it, if any.
pub fn split<T>(whole: Span, parts: &[(Span, T)]) -> Vec<(Span, Option<&T>)> {
    let mut pieces = Vec::new();
    let mut at = whole.start;
    let first = parts.partition_point(|(span, _)| span.end <= whole.start);
    for (span, value) in parts.iter().skip(first) {
        let covered = span.and(whole);
        if span.start >= whole.end {
            break;
        }
        if covered.is_empty() {
            continue;
        }
        if at < covered.start {
            pieces.push((Span::new(at, covered.start), None));
        }
        pieces.push((covered, Some(value)));
        at = covered.end;
    }
    if at < whole.end {
        pieces.push((Span::new(at, whole.end), None));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_spans_become_one() {
        let spans = vec![Span::new(8, 9), Span::new(0, 4), Span::new(4, 6), Span::new(5, 5)];
        assert_eq!(merge(spans), [Span::new(0, 6), Span::new(8, 9)]);
    }

    #[test]
    fn a_span_is_split_at_the_edges_of_what_covers_it() {
        let parts = [(Span::new(0, 2), 'a'), (Span::new(4, 6), 'b'), (Span::new(9, 20), 'c')];
        assert_eq!(
            split(Span::new(1, 10), &parts),
            [
                (Span::new(1, 2), Some(&'a')),
                (Span::new(2, 4), None),
                (Span::new(4, 6), Some(&'b')),
                (Span::new(6, 9), None),
                (Span::new(9, 10), Some(&'c')),
            ]
        );
        assert_eq!(split(Span::new(6, 8), &parts), [(Span::new(6, 8), None)]);
    }
}
