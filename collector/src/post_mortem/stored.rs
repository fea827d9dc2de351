//! Cores as others keep them: systemd-coredump's names, apport's reports, compressed files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom};

/// What a file's first bytes say it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// An ELF file.
    Elf,
    /// Zstandard.
    Zstd,
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// LZ4 frames.
    Lz4,
    /// A report of apport, with the core in it.
    Apport,
    /// Nothing that a core is kept in.
    Other,
}

impl Form {
    pub(crate) fn of(start: &[u8]) -> Self {
        let is = |magic: &[u8]| start.starts_with(magic);
        match () {
            () if is(b"\x7fELF") => Self::Elf,
            () if is(&[0x28, 0xb5, 0x2f, 0xfd]) => Self::Zstd,
            () if is(&[0x1f, 0x8b]) => Self::Gzip,
            () if is(&[0xfd, b'7', b'z', b'X', b'Z', 0]) => Self::Xz,
            () if is(&[0x04, 0x22, 0x4d, 0x18]) => Self::Lz4,
            () if is(b"ProblemType:") => Self::Apport,
            () => Self::Other,
        }
    }

    /// For a person.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Elf => "as it is",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Apport => "apport's report",
            Self::Other => "unknown",
        }
    }

    /// What is in a file of this form.
    ///
    /// # Errors
    /// Those of reading, or of the decompressor.
    pub(crate) fn open(self, file: &File) -> io::Result<Box<dyn Read + Send>> {
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(match self {
            Self::Elf | Self::Other => Box::new(file),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(file)?;
                // As `zstd --long=31` writes it.
                decoder.window_log_max(31)?;
                Box::new(decoder)
            }
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
            Self::Xz => Box::new(liblzma::read::XzDecoder::new_multi_decoder(file)),
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(file)),
            Self::Apport => {
                let mut field = Field::find(BufReader::new(file), b"CoreDump:")?;
                let mut start = [0; 6];
                let read = fill(&mut field, &mut start)?;
                let start = start.get(..read).unwrap_or_default().to_vec();
                let inner = Self::of(&start);
                let whole = io::Cursor::new(start).chain(field);
                match inner {
                    Self::Zstd => Box::new(zstd::stream::read::Decoder::new(whole)?),
                    _ => Box::new(flate2::read::MultiGzDecoder::new(whole)),
                }
            }
        })
    }
}

/// A field of apport's report that is kept as base64: lines that begin with a blank, each encoded
/// by itself.
struct Field<R> {
    lines: R,
    decoded: Vec<u8>,
    at: usize,
}

/// Longer lines are no base64 of apport's, which writes a piece of 1 MiB a line.
const LONGEST_LINE: u64 = 16 << 20;

impl<R: BufRead> Field<R> {
    fn find(mut lines: R, name: &[u8]) -> io::Result<Self> {
        loop {
            let line = line(&mut lines)?;
            if line.is_empty() {
                let words = "the report holds no core (no field CoreDump)";
                return Err(io::Error::new(io::ErrorKind::InvalidData, words));
            }
            if line.starts_with(name) {
                return Ok(Self { lines, decoded: Vec::new(), at: 0 });
            }
        }
    }
}

fn line(lines: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    lines.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    Ok(line)
}

impl<R: BufRead> Read for Field<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.decoded.len() {
            let line = line(&mut self.lines)?;
            let Some(text) = line.strip_prefix(b" ") else { return Ok(0) };
            self.decoded = base64(text);
            self.at = 0;
        }
        let rest = self.decoded.get(self.at..).unwrap_or_default();
        let length = rest.len().min(into.len());
        for (to, from) in into.iter_mut().zip(rest) {
            *to = *from;
        }
        self.at = self.at.saturating_add(length);
        Ok(length)
    }
}

/// Decodes what is base64 of a line; the rest is left out.
fn base64(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let (mut bits, mut count) = (0_u32, 0_u32);
    for letter in text {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = (bits << 6 | u32::from(value)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.extend(u8::try_from(bits >> count & 0xff));
        }
    }
    bytes
}

/// Reads until the buffer is full or the input ends.
pub(super) fn fill(reader: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0_usize;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match reader.read(room) {
            Ok(0) => break,
            Ok(read) => filled = filled.saturating_add(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// What the name of a file below `/var/lib/systemd/coredump` says:
/// `core.COMM.UID.BOOT.PID.MICROSECONDS` and the ending of its compression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SystemdName {
    /// The kernel's short name of the process, as systemd escapes it.
    pub(crate) name: String,
    /// As the host counts it.
    pub(crate) pid: u32,
    /// Microseconds since 1970.
    pub(crate) time: u64,
}

impl SystemdName {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("core.")?;
        let rest =
            [".zst", ".lz4", ".xz"].iter().find_map(|end| rest.strip_suffix(end)).unwrap_or(rest);
        let mut fields = rest.rsplitn(5, '.');
        let time = fields.next()?.parse().ok()?;
        let pid = fields.next()?.parse().ok()?;
        let boot = fields.next()?;
        let user = fields.next()?;
        let known = boot.len() == 32 && boot.bytes().all(|byte| byte.is_ascii_hexdigit());
        let user = user.parse::<u32>().is_ok();
        let name = fields.next()?.to_owned();
        (known && user).then_some(Self { name, pid, time })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn systemds_names_are_read_from_their_end() {
        let boot = "0123456789abcdef0123456789abcdef";
        let name = format!("core.kamailio.108.{boot}.4711.1700000000123456.zst");
        let expected =
            SystemdName { name: "kamailio".into(), pid: 4711, time: 1_700_000_000_123_456 };
        assert_eq!(SystemdName::parse(&name), Some(expected));
        assert_eq!(SystemdName::parse("core.4711"), None);
        assert_eq!(SystemdName::parse(&format!("core.a.b.{boot}.1.2")), None);
        let dotted = SystemdName::parse(&format!("core.a.b.0.{boot}.1.2")).unwrap();
        assert_eq!(dotted.name, "a.b");
    }

    fn encoded(bytes: &[u8]) -> String {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for piece in bytes.chunks(3) {
            let mut word = [0; 4];
            word[1..=piece.len()].copy_from_slice(piece);
            let word = u32::from_be_bytes(word);
            for place in 0..4 {
                let letter = LETTERS[usize::try_from(word >> (18 - 6 * place) & 63).unwrap()];
                text.push(if place <= piece.len() { char::from(letter) } else { '=' });
            }
        }
        text
    }

    #[test]
    fn a_core_in_apports_report_is_decoded_line_by_line() {
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&content).unwrap();
        let gzip = gzip.finish().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        write!(file, "ProblemType: Crash\nCoreDump: base64\n").unwrap();
        for piece in gzip.chunks(1000) {
            writeln!(file, " {}", encoded(piece)).unwrap();
        }
        writeln!(file, "Date: today").unwrap();
        let mut found = Vec::new();
        Form::Apport.open(&file).unwrap().read_to_end(&mut found).unwrap();
        assert!(found == content);
    }

    #[test]
    fn a_report_without_a_core_is_an_error_in_words() {
        let mut file = tempfile::tempfile().unwrap();
        write!(file, "ProblemType: Crash\nDate: today\n").unwrap();
        let error = Form::Apport.open(&file).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "the report holds no core (no field CoreDump)");
    }
}
