//! Encryption through the `age` crate.

use std::io::{self, Read, Write};

use age::DecryptError;
use age::stream::{StreamReader, StreamWriter};
use age::x25519;

use super::{KeyError, OpenError, SECRET, keys};

/// For whom a bundle is encrypted.
#[derive(Clone, Default)]
pub struct Recipients(Vec<x25519::Recipient>);

impl std::fmt::Debug for Recipients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(ToString::to_string)).finish()
    }
}

impl Recipients {
    /// Adds one: `age1…`.
    ///
    /// # Errors
    /// [`KeyError::NotARecipient`], [`KeyError::Secret`]
    pub fn add(&mut self, text: &str) -> Result<(), KeyError> {
        let text = text.trim();
        if text.to_ascii_uppercase().contains(SECRET) {
            return Err(KeyError::Secret);
        }
        let recipient = text.parse().map_err(|_| KeyError::NotARecipient(text.to_owned()))?;
        self.0.push(recipient);
        Ok(())
    }

    /// Adds those of a recipients file: one a line, `#` begins a comment.
    ///
    /// # Errors
    /// Those of [`Recipients::add`] for the first bad line, and [`KeyError::Empty`].
    pub fn add_file(&mut self, text: &str) -> Result<(), KeyError> {
        let before = self.0.len();
        for (_, line) in keys(text) {
            self.add(line)?;
        }
        if self.0.len() == before { Err(KeyError::Empty) } else { Ok(()) }
    }

    /// Whether nobody was named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes the age header and encrypts what is written from then on.
    ///
    /// # Errors
    /// Those of the writer below; there is no recipient.
    pub fn encrypt<W: Write>(&self, out: W) -> io::Result<Encrypted<W>> {
        let recipients = self.0.iter().map(|recipient| -> &dyn age::Recipient { recipient });
        let encryptor = age::Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        Ok(Encrypted(encryptor.wrap_output(out)?))
    }
}

/// Encrypts what is written to it. The last chunk is only there after [`Encrypted::finish`].
pub struct Encrypted<W: Write>(StreamWriter<W>);

impl<W: Write> std::fmt::Debug for Encrypted<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encrypted")
    }
}

impl<W: Write> Encrypted<W> {
    /// Writes the last chunk, and gives the writer back.
    ///
    /// # Errors
    /// Those of the writer below.
    pub fn finish(self) -> io::Result<W> {
        self.0.finish()
    }
}

impl<W: Write> Write for Encrypted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Secret keys.
#[derive(Clone, Default)]
pub struct Identities(Vec<x25519::Identity>);

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} identities", self.0.len())
    }
}

impl Identities {
    /// Adds those of an identity file, as `age-keygen` writes it.
    ///
    /// # Errors
    /// [`KeyError::NotAnIdentity`] with its line, [`KeyError::EncryptedIdentity`],
    /// [`KeyError::Empty`].
    pub fn add_file(&mut self, text: &str) -> Result<(), KeyError> {
        if super::is_encrypted(text.as_bytes()) || super::is_armored(text.as_bytes()) {
            return Err(KeyError::EncryptedIdentity);
        }
        let before = self.0.len();
        for (number, line) in keys(text) {
            self.0.push(line.parse().map_err(|_| KeyError::NotAnIdentity(number))?);
        }
        if self.0.len() == before { Err(KeyError::Empty) } else { Ok(()) }
    }

    /// Reads the header of an encrypted file, and gives what is inside as a stream. Where the file
    /// was cut, every whole chunk before the cut is read, and then an error.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn decrypt<R: Read>(&self, file: R) -> Result<Decrypted<R>, OpenError> {
        if self.0.is_empty() {
            return Err(OpenError::NoIdentity);
        }
        let failed = |error| match error {
            DecryptError::NoMatchingKeys | DecryptError::KeyDecryptionFailed => {
                OpenError::WrongIdentity
            }
            DecryptError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                OpenError::Io(error)
            }
            other => OpenError::Damaged(other.to_string()),
        };
        let decryptor = age::Decryptor::new(file).map_err(failed)?;
        let identities = self.0.iter().map(|identity| -> &dyn age::Identity { identity });
        Ok(Decrypted(decryptor.decrypt(identities).map_err(failed)?))
    }
}

/// What is inside an encrypted file.
pub struct Decrypted<R: Read>(StreamReader<R>);

impl<R: Read> std::fmt::Debug for Decrypted<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decrypted")
    }
}

impl<R: Read> Read for Decrypted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret as _;

    use super::*;

    /// A new identity file, and its recipient.
    fn new_key() -> (String, String) {
        let identity = x25519::Identity::generate();
        let text = format!("# a test's\n\n{}\n", identity.to_string().expose_secret());
        (text, identity.to_public().to_string())
    }

    fn identities(file: &str) -> Identities {
        let mut identities = Identities::default();
        identities.add_file(file).unwrap();
        identities
    }

    fn encrypted(recipients: &[&str], content: &[u8]) -> Vec<u8> {
        let mut all = Recipients::default();
        for recipient in recipients {
            all.add(recipient).unwrap();
        }
        let mut writer = all.encrypt(Vec::new()).unwrap();
        writer.write_all(content).unwrap();
        writer.finish().unwrap()
    }

    /// What could be read, and whether the end was reached.
    fn decrypted(identities: &Identities, file: &[u8]) -> (Vec<u8>, bool) {
        let mut content = Vec::new();
        let ended = identities.decrypt(file).unwrap().read_to_end(&mut content);
        (content, ended.is_ok())
    }

    #[test]
    fn each_recipient_opens_it_and_nobody_else() {
        let ((one, public_one), (two, public_two), (other, _)) = (new_key(), new_key(), new_key());
        let content = b"Contact: <sip:alice@192.0.2.1>".repeat(10_000);
        let file = encrypted(&[&public_one, &public_two], &content);
        assert!(super::super::is_encrypted(&file));
        assert!(!file.windows(7).any(|window| window == b"Contact"));
        for key in [&one, &two] {
            assert!(decrypted(&identities(key), &file) == (content.clone(), true));
        }
        assert!(matches!(identities(&other).decrypt(&file[..]), Err(OpenError::WrongIdentity)));
        assert!(matches!(Identities::default().decrypt(&file[..]), Err(OpenError::NoIdentity)));
    }

    #[test]
    fn a_cut_file_gives_its_whole_chunks() {
        const CHUNK: usize = 64 * 1024;
        let (key, public) = new_key();
        let content: Vec<u8> = (0..=250).cycle().take(5 * CHUNK + 100).collect();
        let file = encrypted(&[&public], &content);
        let body = file.len() - content.len() - 6 * 16;
        for (kept, chunks) in [(0, 0), (1, 0), (CHUNK + 15, 0), (CHUNK + 16, 1), (4 * CHUNK, 3)] {
            let (read, ended) = decrypted(&identities(&key), &file[..body + kept]);
            assert!(!ended && read == content[..chunks * CHUNK], "{kept} bytes of the body");
        }
        for header in [0, 10, 60, body - 17] {
            let opened = identities(&key).decrypt(&file[..header]);
            assert!(matches!(opened, Err(OpenError::Damaged(_))), "{header} bytes of the header");
        }
        let mut flipped = file;
        flipped[body + 2 * CHUNK] ^= 1;
        let (read, ended) = decrypted(&identities(&key), &flipped);
        assert!(!ended && read == content[..CHUNK]);
    }

    #[test]
    fn bad_keys_are_refused_without_repeating_a_secret() {
        let (key, public) = new_key();
        let mut recipients = Recipients::default();
        let secret = key.lines().last().unwrap();
        assert_eq!(recipients.add(secret), Err(KeyError::Secret));
        assert_eq!(recipients.add(&secret.to_lowercase()), Err(KeyError::Secret));
        let mut wrong = public.clone();
        wrong.pop();
        for bad in ["", "age1", "ssh-ed25519 AAAA", "age1pq1xyz", &wrong] {
            assert_eq!(recipients.add(bad), Err(KeyError::NotARecipient(bad.into())));
        }
        assert_eq!(recipients.add_file("# nobody\n"), Err(KeyError::Empty));
        assert!(recipients.is_empty());
        recipients.add_file(&format!("# me\n\n {public} \r\n")).unwrap();
        assert!(!recipients.is_empty());

        let mut identities = Identities::default();
        assert_eq!(identities.add_file(&public), Err(KeyError::NotAnIdentity(1)));
        assert_eq!(identities.add_file(""), Err(KeyError::Empty));
        let locked = "age-encryption.org/v1\n-> scrypt";
        assert_eq!(identities.add_file(locked), Err(KeyError::EncryptedIdentity));
        assert!(!format!("{:?}", self::identities(&key)).contains(SECRET));
    }
}
