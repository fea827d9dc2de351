//! Rotated logs that were packed: `.gz`, `.xz`, `.zst`.
//!
//! They are unpacked from front to back within limits on the output, the memory and the time, so
//! that a bomb costs no more than a long log.

use std::fs::File;
use std::io::{self, BufReader};

use super::slice::{Limits, Slice, Window};
use super::time::Clock;

/// Memory that unpacking one file may take, in bytes; what needs more was made to.
const MEMORY: u64 = 128 << 20;

/// How a log is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Gzip,
    Xz,
    Zstd,
}

impl Packing {
    /// By the file's name.
    pub(crate) fn of(path: &str) -> Option<(Self, &str)> {
        let known = [(".gz", Self::Gzip), (".xz", Self::Xz), (".zst", Self::Zstd)];
        known.into_iter().find_map(|(end, packing)| Some((packing, path.strip_suffix(end)?)))
    }
}

/// The slice of a packed file.
pub(crate) fn of_packed(
    packing: Packing,
    file: &File,
    clock: &Clock,
    limits: &Limits,
) -> io::Result<Slice> {
    let mut window = Window::new(clock, limits, true);
    let from = BufReader::with_capacity(256 << 10, file);
    match packing {
        Packing::Gzip => window.fill(&mut flate2::bufread::MultiGzDecoder::new(from))?,
        Packing::Xz => {
            let decoder =
                liblzma::stream::Stream::new_stream_decoder(MEMORY, liblzma::stream::CONCATENATED)
                    .map_err(io::Error::other)?;
            window.fill(&mut liblzma::bufread::XzDecoder::new_stream(from, decoder))?;
        }
        Packing::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(from)?;
            decoder.window_log_max(27)?;
            window.fill(&mut decoder)?;
        }
    }
    Ok(window.finish())
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};
    use std::time::{Duration, Instant};

    use jiff::tz::TimeZone;

    use super::*;

    const LOG: &[u8] = b"Jun  1 09:00:00 h old\nJun  1 11:00:00 h young\n";

    fn slice(packing: Packing, packed: &[u8], most: u64) -> io::Result<Slice> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(packed).unwrap();
        file.rewind().unwrap();
        let clock = Clock::new("2026-06-01T12:00:00Z".parse().unwrap(), TimeZone::UTC);
        let since = "2026-06-01T10:00:00Z".parse().unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        of_packed(packing, &file, &clock, &Limits { since, cap: 1000, most, until })
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_packing_is_undone() {
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(LOG).unwrap();
        let packed = [
            (Packing::Gzip, gzip(LOG)),
            (Packing::Xz, xz.finish().unwrap()),
            (Packing::Zstd, zstd::encode_all(LOG, 1).unwrap()),
        ];
        for (packing, packed) in packed {
            let slice = slice(packing, &packed, 1 << 30).unwrap();
            assert_eq!(slice.text, b"Jun  1 11:00:00 h young\n", "{packing:?}");
        }
    }

    #[test]
    fn a_bomb_is_left_at_the_limit() {
        let bomb = gzip(&vec![b'x'; 64 << 20]);
        let slice = slice(Packing::Gzip, &bomb, 8 << 20).unwrap();
        assert_eq!(slice.text.len(), 1000);
        assert!(slice.cut.unwrap().contains("reading ended after 8.0 MiB"));
    }

    #[test]
    fn a_damaged_file_gives_its_good_part_or_an_error() {
        let mut many = LOG.to_vec();
        for number in 0..200_000_u32 {
            many.extend_from_slice(
                format!("more {}\n", number.wrapping_mul(2_654_435_761)).as_bytes(),
            );
        }
        let mut packed = gzip(&many);
        packed.truncate(packed.len() / 2);
        let slice = slice(Packing::Gzip, &packed, 1 << 30).unwrap();
        assert!(slice.cut.unwrap().contains("with an error"));
        for packing in [Packing::Gzip, Packing::Xz, Packing::Zstd] {
            assert!(self::slice(packing, b"no such thing at all", 1 << 30).is_err(), "{packing:?}");
        }
    }

    #[test]
    fn the_name_tells_the_packing() {
        assert_eq!(Packing::of("/var/log/syslog.2.gz"), Some((Packing::Gzip, "/var/log/syslog.2")));
        assert_eq!(Packing::of("/var/log/syslog.1"), None);
    }
}
