//! Where the kernel writes cores: `kernel.core_pattern`, and which file names it can have made.
//!
//! Of a process that is gone little is known, so every `%` of the pattern matches whatever it may
//! have been: numbers by digits, names by anything. What a file really is, its own notes say.

/// What becomes of a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// A file.
    File {
        /// The folders and the name; `/`-separated parts of the pattern.
        parts: Vec<Part>,
        /// It does not begin at the root but in the working directory of the process.
        relative: bool,
    },
    /// The kernel gives it to a program.
    Pipe {
        /// The program's file name.
        program: String,
    },
    /// The kernel sends it to a socket.
    Socket,
    /// Nowhere.
    Nothing,
}

/// One name of a path: pieces of text, and places for what is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// `%p`, `%P`, `%i`, `%I`, `%u`, `%g`, `%d`, `%s`, `%t`, `%c`
    Number,
    /// `%e`, `%E`, `%f`, `%h`, and what this program does not know
    Anything,
}

impl Pattern {
    /// Reads `core_pattern`; with `uses_pid` (`core_uses_pid`), `.PID` follows a name without one.
    pub(crate) fn parse(text: &str, uses_pid: bool) -> Self {
        let text = text.trim_end_matches('\n');
        if let Some(command) = text.strip_prefix('|') {
            let path = command.split_whitespace().next().unwrap_or_default();
            let program = path.rsplit('/').next().unwrap_or_default().to_owned();
            return Self::Pipe { program };
        }
        if text.starts_with('@') {
            return Self::Socket;
        }
        if text.is_empty() && !uses_pid {
            return Self::Nothing;
        }
        let mut parts: Vec<Part> =
            text.split('/').filter(|part| !part.is_empty()).map(Part::parse).collect();
        if uses_pid && !text.contains("%p") {
            let pieces = [Piece::Text(".".to_owned()), Piece::Number];
            match parts.last_mut() {
                Some(name) => name.0.extend(pieces),
                None => parts.push(Part(pieces.into())),
            }
        }
        Self::File { parts, relative: !text.starts_with('/') }
    }
}

impl Part {
    /// A name that is known.
    pub(crate) fn text(name: &str) -> Self {
        Self(vec![Piece::Text(name.to_owned())])
    }

    /// Any name.
    pub(crate) fn anything() -> Self {
        Self(vec![Piece::Anything])
    }

    fn parse(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            let piece = match letter {
                '%' => match letters.next() {
                    None => break,
                    Some('%') => {
                        plain.push('%');
                        continue;
                    }
                    Some('p' | 'P' | 'i' | 'I' | 'u' | 'g' | 'd' | 's' | 't' | 'c') => {
                        Piece::Number
                    }
                    Some(_) => Piece::Anything,
                },
                letter => {
                    plain.push(letter);
                    continue;
                }
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece);
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Self(pieces)
    }

    /// The name itself, where nothing of it is unknown.
    pub(crate) fn plain(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether the kernel can have made this name of it.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let name = name.as_bytes();
        // Every length of the name that the pieces so far can have: no way is tried twice.
        let mut ends = vec![false; name.len().saturating_add(1)];
        if let Some(start) = ends.first_mut() {
            *start = true;
        }
        for piece in &self.0 {
            let mut next = vec![false; ends.len()];
            for (at, _) in ends.iter().enumerate().filter(|(_, reached)| **reached) {
                let rest = name.get(at..).unwrap_or_default();
                let lengths = match piece {
                    Piece::Text(text) if rest.starts_with(text.as_bytes()) => {
                        text.len()..=text.len()
                    }
                    Piece::Text(_) => continue,
                    Piece::Number => {
                        1..=rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
                    }
                    Piece::Anything => 0..=rest.len(),
                };
                for end in lengths.map(|length| at.saturating_add(length)) {
                    if let Some(end) = next.get_mut(end) {
                        *end = true;
                    }
                }
            }
            ends = next;
        }
        ends.last() == Some(&true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names, of these, that a pattern can have made; its last part only.
    fn matched<'a>(pattern: &str, uses_pid: bool, names: &[&'a str]) -> Vec<&'a str> {
        let Pattern::File { parts, .. } = Pattern::parse(pattern, uses_pid) else {
            panic!("{pattern} is no file");
        };
        let name = parts.last().unwrap();
        names.iter().copied().filter(|one| name.matches(one)).collect()
    }

    #[test]
    fn a_name_is_matched_where_only_the_process_is_unknown() {
        let names = ["core", "core.12", "core.x", "core.kamailio.12.1700000000", "xcore.12"];
        assert_eq!(matched("core", false, &names), ["core"]);
        assert_eq!(matched("core", true, &names), ["core.12"]);
        assert_eq!(matched("core.%p\n", true, &names), ["core.12"]);
        assert_eq!(
            matched("/var/cores/core.%e.%P.%t", false, &names),
            ["core.kamailio.12.1700000000"]
        );
        assert_eq!(matched("%%%e", false, &["%kamailio", "kamailio", "%"]), ["%kamailio", "%"]);
        assert_eq!(matched("%E.core", false, &["!usr!sbin!kamailio.core", "core"]).len(), 1);
        assert_eq!(matched("core%", false, &["core"]), ["core"]);
    }

    #[test]
    fn a_pattern_with_many_unknowns_takes_no_longer() {
        let pattern = "%e".repeat(60) + "x";
        let name = "a".repeat(255);
        assert_eq!(matched(&pattern, false, &[&name]), [""; 0]);
    }

    #[test]
    fn what_is_no_file_is_told() {
        let parse = |text| Pattern::parse(text, false);
        let program = "systemd-coredump".to_owned();
        assert_eq!(
            parse("|/usr/lib/systemd/systemd-coredump %P %u %g %s %t %c %h\n"),
            Pattern::Pipe { program }
        );
        assert_eq!(parse("@/run/dump.socket"), Pattern::Socket);
        assert_eq!(parse("\n"), Pattern::Nothing);
        assert!(matches!(parse("core"), Pattern::File { relative: true, .. }));
        assert!(matches!(parse("/cores/%e/core"), Pattern::File { relative: false, parts }
            if parts.len() == 3 && parts[0].plain() == Some("cores")));
        assert!(matches!(Pattern::parse("", true), Pattern::File { relative: true, .. }));
    }
}
