//! The manager's encryption: `aes-128-cbc:` + ciphertext + `:sea` there, `aes:` + ciphertext back,
//! both with PKCS7 padding, under the key and the initialization vector of the configuration.
//!
//! That is all it is for. There is no authentication in it, so an answer that decrypts is not
//! thereby true; one that does not is said to be so and kept as it came.

use ::aes::Aes128;
use ::aes::cipher::block_padding::Pkcs7;
use ::aes::cipher::{BlockModeDecrypt as _, BlockModeEncrypt as _, KeyIvInit as _};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// What begins an answer that is encrypted.
const ANSWER: &[u8] = b"aes:";

/// Key and initialization vector.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    key: [u8; 16],
    vector: [u8; 16],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// From `manager_aes_key` and `manager_aes_iv`, base64. As OpenSSL does, the first 16 bytes of
    /// each are taken; with fewer there is no key.
    pub fn from_base64(key: &str, vector: &str) -> Option<Self> {
        let first = |text: &str| BASE64_STANDARD.decode(text.trim()).ok()?.first_chunk().copied();
        Some(Self { key: first(key)?, vector: first(vector)? })
    }

    /// What asks `text`.
    pub fn request(&self, text: &str) -> Vec<u8> {
        let cipher = cbc::Encryptor::<Aes128>::new(&self.key.into(), &self.vector.into());
        let text = cipher.encrypt_padded_vec::<Pkcs7>(text.as_bytes());
        [b"aes-128-cbc:", text.as_slice(), b":sea"].concat()
    }

    /// What an answer says; `None` if it was encrypted otherwise, or cut.
    pub fn open(&self, answer: &[u8]) -> Option<Vec<u8>> {
        let cipher = cbc::Decryptor::<Aes128>::new(&self.key.into(), &self.vector.into());
        cipher.decrypt_padded_vec::<Pkcs7>(answer.strip_prefix(ANSWER)?).ok()
    }
}

/// Whether an answer is encrypted.
pub fn is_encrypted(answer: &[u8]) -> bool {
    answer.starts_with(ANSWER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
    const VECTOR: &str = "ZmVkY2JhOTg3NjU0MzIxMA==";

    #[test]
    fn a_request_is_what_openssl_makes_of_it() {
        let key = Key::from_base64(KEY, VECTOR).unwrap();
        // printf 'totalcalls\r\n\r\n' | openssl enc -aes-128-cbc -K 3031…66 -iv 6665…30
        let openssl = [
            0xb4, 0x98, 0x96, 0xb8, 0xc8, 0x68, 0xc2, 0x52, 0xbf, 0xe0, 0x54, 0xbb, 0xdf, 0xaf,
            0x99, 0x40,
        ];
        let expected = [b"aes-128-cbc:", openssl.as_slice(), b":sea"].concat();
        assert_eq!(key.request("totalcalls\r\n\r\n"), expected);
    }

    #[test]
    fn an_answer_opens_only_with_its_key() {
        let key = Key::from_base64(KEY, VECTOR).unwrap();
        let request = key.request("5785");
        let answer = [b"aes:", &request[12..28]].concat();
        assert!(is_encrypted(&answer));
        assert_eq!(key.open(&answer), Some(b"5785".to_vec()));
        let other = Key::from_base64(VECTOR, KEY).unwrap();
        assert_ne!(other.open(&answer), Some(b"5785".to_vec()));
        assert_eq!(key.open(&answer[..19]), None);
        assert_eq!(key.open(b"aes:"), None);
        assert_eq!(key.open(b"need aes!\n"), None);
    }

    #[test]
    fn a_key_that_is_too_short_is_none() {
        assert_eq!(Key::from_base64("MDEy", VECTOR), None);
        assert_eq!(Key::from_base64("not base64!", VECTOR), None);
        assert!(Key::from_base64("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3", VECTOR).is_some());
    }
}
