//! Which names are those of secrets.
//!
//! A name is cut into its parts (`db_password2` is `db`, `password`). The part that says "secret"
//! must be the last one, or be followed by parts that do not turn it into something else:
//! `password_2` is a password, `password_column` a column's name, `token_expiry` a time.

/// How sure a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// A password, whatever the value.
    Password,
    /// `pass` or `token` alone: often a count, or a word of a language.
    Weak,
    /// A key; where the value is a path, the path of one.
    Key,
}

/// Parts that are a secret by themselves.
const WORDS: [&str; 17] = [
    "password",
    "passwd",
    "passwort",
    "passphrase",
    "passwords",
    "pwd",
    "secret",
    "psk",
    "apikey",
    "authkey",
    "secretkey",
    "accesskey",
    "aeskey",
    "sharedkey",
    "rootpw",
    "bindpw",
    "passcode",
];
/// Ends of parts: `mysqlpassword`, `odbcpass`.
const ENDS: [&str; 8] =
    ["password", "passwd", "passphrase", "secret", "token", "pass", "pwd", "apikey"];
/// Words of English that end so.
const WORDS_OF_ENGLISH: [&str; 16] = [
    "bypass",
    "compass",
    "encompass",
    "trespass",
    "surpass",
    "overpass",
    "underpass",
    "lowpass",
    "highpass",
    "bandpass",
    "allpass",
    "multipass",
    "onepass",
    "twopass",
    "singlepass",
    "firstpass",
];
/// What comes before `key` where it is a secret.
const KEYS_OF: [&str; 34] = [
    "aes",
    "api",
    "secret",
    "auth",
    "access",
    "mask",
    "shared",
    "enc",
    "encrypt",
    "encryption",
    "crypt",
    "crypto",
    "cipher",
    "master",
    "license",
    "licence",
    "signing",
    "sign",
    "hmac",
    "jwt",
    "cookie",
    "private",
    "priv",
    "ssl",
    "tls",
    "ssh",
    "account",
    "subscription",
    "storage",
    "decryption",
    "client",
    "server",
    "admin",
    "x",
];
/// Parts behind the secret one that say that the value is something about it.
const ABOUT: [&str; 63] = [
    "column",
    "columns",
    "col",
    "field",
    "avp",
    "path",
    "dir",
    "file",
    "filename",
    "name",
    "length",
    "len",
    "size",
    "min",
    "max",
    "type",
    "mode",
    "format",
    "policy",
    "timeout",
    "expire",
    "expires",
    "expired",
    "expiry",
    "ttl",
    "count",
    "limit",
    "interval",
    "url",
    "prompt",
    "check",
    "required",
    "enabled",
    "enable",
    "bucket",
    "rate",
    "per",
    "algorithm",
    "alg",
    "encoding",
    "callback",
    "param",
    "header",
    "var",
    "table",
    "change",
    "changed",
    "status",
    "attempts",
    "retries",
    "index",
    "id",
    "pos",
    "prefix",
    "user",
    "users",
    "host",
    "through",
    "failed",
    "failures",
    "time",
    "lifetime",
    "age",
];
/// Parts behind `key` that leave it one.
const OF_A_KEY: [&str; 6] = ["value", "base64", "b64", "hex", "data", "pem"];
/// Parts before it that make it a question or a count.
const ASKS: [&str; 16] = [
    "use", "no", "is", "has", "min", "max", "num", "count", "need", "require", "allow", "show",
    "hide", "skip", "ask", "first",
];

/// What a name says of its value.
pub(super) fn sort(name: &[u8]) -> Option<Sort> {
    let parts = parts(name);
    for (index, part) in parts.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| parts.get(index));
        let before = before.map_or("", String::as_str);
        let Some(sort) = sort_of_part(part, before, name) else { continue };
        let rest = parts.get(index + 1..).unwrap_or_default();
        let about = rest.iter().any(|part| ABOUT.contains(&part.as_str()));
        // `ssl_key_exchange` is no key.
        let of_a_key = |part: &String| {
            OF_A_KEY.contains(&part.as_str()) || part.bytes().all(|byte| byte.is_ascii_digit())
        };
        let about = about || (sort == Sort::Key && !rest.iter().all(of_a_key));
        // `ssl_key_password`: a part behind it may be the secret.
        if about || ASKS.contains(&before) {
            continue;
        }
        return Some(sort);
    }
    None
}

fn sort_of_part(part: &str, before: &str, name: &[u8]) -> Option<Sort> {
    let word = part.trim_end_matches(|letter: char| letter.is_ascii_digit());
    match word {
        "pass" | "token" if before.is_empty() => return Some(Sort::Weak),
        "key" if KEYS_OF.contains(&before) => return Some(Sort::Key),
        "iv" if before == "aes" => return Some(Sort::Key),
        "vector" if before == "init" => return Some(Sort::Key),
        "privatekey" | "private" if before == "ssl" => return Some(Sort::Key),
        "ha" if part == "ha1" && before != "calculate" => return Some(Sort::Weak),
        "ha1b" => return Some(Sort::Weak),
        "pw" => return Some(Sort::Password),
        _ => {}
    }
    let upper = !name.iter().any(u8::is_ascii_lowercase);
    let known = WORDS.contains(&word)
        || (ENDS.iter().any(|end| word.ends_with(end)) && !WORDS_OF_ENGLISH.contains(&word))
        || (upper && word.len() > 3 && word.ends_with("pw"));
    known.then_some(Sort::Password)
}

/// The parts of a name, in lower case.
fn parts(name: &[u8]) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut last = b'_';
    for &byte in name {
        let humps =
            byte.is_ascii_uppercase() && (last.is_ascii_lowercase() || last.is_ascii_digit());
        if matches!(byte, b'_' | b'-' | b'.') || humps {
            parts.push(String::new());
        }
        if byte.is_ascii_alphanumeric()
            && let Some(part) = parts.last_mut()
        {
            part.push(char::from(byte.to_ascii_lowercase()));
        }
        last = byte;
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_by_their_parts() {
        for name in [
            "mysqlpassword",
            "mysqlpassword_2",
            "database_backup_from_mysqlpassword",
            "get_customer_by_ip_odbc_password",
            "get_customer_by_pn_odbc_password",
            "get_radius_ip_password",
            "odbcpass",
            "manager_sshpassword",
            "server_password",
            "cloud_token",
            "DBRWPW",
            "DBROPW",
            "MYSQL_PASSWORD",
            "dbPassword",
            "auth_password",
            "flow_token_secret",
            "requirepass",
            "sasl.password",
            "domain_password",
            "Secret",
            "X-Auth-Token",
            "client_secret",
            "ice-pwd",
            "db_pass2",
            "PASSWD",
            "AccessToken",
        ] {
            assert_eq!(sort(name.as_bytes()), Some(Sort::Password), "{name}");
        }
        for name in ["manager_aes_key", "manager_aes_iv", "api_key", "mask_key", "private_key"] {
            assert_eq!(sort(name.as_bytes()), Some(Sort::Key), "{name}");
        }
        for name in ["pass", "token", "PASS", "ha1"] {
            assert_eq!(sort(name.as_bytes()), Some(Sort::Weak), "{name}");
        }
    }

    #[test]
    fn names_about_secrets_and_other_words_are_not() {
        for name in [
            "password_column",
            "pass_column",
            "passthrough",
            "compass",
            "bypass",
            "passive",
            "passed",
            "passport",
            "hash_key",
            "key",
            "key_size",
            "keyframe",
            "monkey",
            "tokens",
            "token-bucket",
            "token_bucket_size",
            "tokenize",
            "secretary",
            "use_password",
            "calculate_ha1",
            "password_length",
            "private_keyfile_path",
            "first_pass",
            "key_name",
            "auth_password_avp",
            "keys",
            "keepalive",
            "max_pass",
            "public_key",
            "keyring",
        ] {
            assert_eq!(sort(name.as_bytes()), None, "{name}");
        }
    }
}
