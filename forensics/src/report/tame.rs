//! Text from a core or a bundle is hostile: what reaches the terminal must not steer it.

use std::io::{self, Write};

/// Passes text on with every control character but the line end and the tab made visible.
#[derive(Debug)]
pub struct Tame<W>(pub W);

impl<W: Write> Write for Tame<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A character that is cut at the end of a piece is made visible too; `writeln!` hands
        // over whole strings.
        for character in String::from_utf8_lossy(bytes).chars() {
            if character.is_control() && !matches!(character, '\n' | '\t') {
                write!(self.0, "{}", character.escape_unicode())?;
            } else {
                write!(self.0, "{character}")?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_become_visible() {
        let mut out = Vec::new();
        writeln!(Tame(&mut out), "a\x1b[31mb\u{9b}2J\r\tc é").unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "a\\u{1b}[31mb\\u{9b}2J\\u{d}\tc é\n");
    }
}
