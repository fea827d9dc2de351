//! The spool file: what memory has no room for, until it is compressed. It has no name. For an
//! encrypted bundle it is encrypted, too, with a key that is only ever in this process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file without a name, plain or encrypted. Each byte of it is written once.
#[derive(Debug)]
pub struct SpoolFile {
    file: File,
    cipher: Option<Cipher>,
}

impl SpoolFile {
    /// What is written lies on the disk as it is.
    pub fn plain(file: File) -> Self {
        Self { file, cipher: None }
    }

    /// What is written is encrypted with a new key.
    ///
    /// # Errors
    /// No random numbers are to be had, or this build cannot encrypt.
    pub fn encrypted(file: File) -> io::Result<Self> {
        Ok(Self { file, cipher: Some(Cipher::new()?) })
    }

    /// Writes `content` at `offset`; what is in it afterwards is of no use to the caller.
    ///
    /// # Errors
    /// The disk is full, or worse.
    pub fn write_at(&self, content: &mut [u8], offset: u64) -> io::Result<()> {
        if let Some(cipher) = &self.cipher {
            cipher.apply(content, offset)?;
        }
        self.file.write_all_at(content, offset)
    }

    /// Reads what was written.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(into, offset)?;
        match &self.cipher {
            Some(cipher) => cipher.apply(into, offset),
            None => Ok(()),
        }
    }
}

#[cfg(feature = "encrypt")]
mod cipher {
    use std::fs::File;
    use std::io::{self, Read};

    use chacha20::ChaCha20;
    use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};

    /// ChaCha20 with a key that is used for one file, where each offset is written once: a nonce of
    /// zeroes never meets the same key stream twice. Good for 256 GiB.
    pub(super) struct Cipher([u8; 32]);

    impl std::fmt::Debug for Cipher {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Cipher")
        }
    }

    impl Cipher {
        pub(super) fn new() -> io::Result<Self> {
            let mut key = [0; 32];
            File::open("/dev/urandom")?.read_exact(&mut key)?;
            Ok(Self(key))
        }

        /// Encrypts or decrypts.
        pub(super) fn apply(&self, content: &mut [u8], offset: u64) -> io::Result<()> {
            let mut stream = ChaCha20::new(&self.0.into(), &[0; 12].into());
            stream.try_seek(offset).map_err(io::Error::other)?;
            stream.try_apply_keystream(content).map_err(io::Error::other)
        }
    }
}

#[cfg(not(feature = "encrypt"))]
mod cipher {
    use std::io;

    use bundle::encrypted::KeyError;

    #[derive(Debug)]
    pub(super) struct Cipher {}

    impl Cipher {
        pub(super) fn new() -> io::Result<Self> {
            Err(io::Error::other(KeyError::NotBuilt))
        }

        pub(super) fn apply(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            Err(io::Error::other(KeyError::NotBuilt))
        }
    }
}

use cipher::Cipher;

#[cfg(test)]
#[cfg(feature = "encrypt")]
mod tests {
    use super::*;

    #[test]
    fn an_encrypted_spool_file_gives_back_what_it_hides() {
        let file = tempfile::tempfile().unwrap();
        let spool = SpoolFile::encrypted(file.try_clone().unwrap()).unwrap();
        let secret = b"Proxy-Authorization: Digest".repeat(400);
        for offset in [0, 65_536, 1_000_003] {
            spool.write_at(&mut secret.clone(), offset).unwrap();
        }
        for offset in [0, 65_536, 1_000_003] {
            let mut read = vec![0; secret.len() - 5];
            spool.read_at(&mut read, offset + 5).unwrap();
            assert!(read == secret[5..]);
            let mut raw = vec![0; secret.len()];
            file.read_exact_at(&mut raw, offset).unwrap();
            assert!(!raw.windows(6).any(|window| window == b"Digest"));
        }
    }
}
