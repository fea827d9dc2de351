//! The same names in a build without encryption: each refuses.

use std::io::{self, Read, Write};

use super::{KeyError, OpenError};

/// Nobody.
#[derive(Clone, Debug, Default)]
pub struct Recipients {}

impl Recipients {
    /// Refuses.
    ///
    /// # Errors
    /// [`KeyError::NotBuilt`]
    pub fn add(&mut self, _: &str) -> Result<(), KeyError> {
        Err(KeyError::NotBuilt)
    }

    /// Refuses.
    ///
    /// # Errors
    /// [`KeyError::NotBuilt`]
    pub fn add_file(&mut self, _: &str) -> Result<(), KeyError> {
        Err(KeyError::NotBuilt)
    }

    /// Always.
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn encrypt<W: Write>(&self, _: W) -> io::Result<Encrypted<W>> {
        Err(io::Error::other(KeyError::NotBuilt))
    }
}

/// Never made.
#[derive(Debug)]
pub struct Encrypted<W: Write>(W);

impl<W: Write> Encrypted<W> {
    /// The writer below.
    ///
    /// # Errors
    /// None.
    pub fn finish(self) -> io::Result<W> {
        Ok(self.0)
    }
}

impl<W: Write> Write for Encrypted<W> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::other(KeyError::NotBuilt))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// None.
#[derive(Clone, Debug, Default)]
pub struct Identities {}

impl Identities {
    /// Refuses.
    ///
    /// # Errors
    /// [`KeyError::NotBuilt`]
    pub fn add_file(&mut self, _: &str) -> Result<(), KeyError> {
        Err(KeyError::NotBuilt)
    }

    /// Refuses.
    ///
    /// # Errors
    /// [`OpenError::NotBuilt`]
    pub fn decrypt<R: Read>(&self, _: R) -> Result<Decrypted<R>, OpenError> {
        Err(OpenError::NotBuilt)
    }
}

/// Never made.
#[derive(Debug)]
pub struct Decrypted<R: Read>(R);

impl<R: Read> Read for Decrypted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}
