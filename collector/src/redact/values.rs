//! Values that are no secret, whatever their name says: numbers and words of settings, references
//! to variables, masks of others.

use super::names::Sort;

/// Words that settings are made of.
const WORDS: [&str; 61] = [
    "yes",
    "no",
    "true",
    "false",
    "on",
    "off",
    "null",
    "none",
    "nil",
    "undefined",
    "default",
    "enabled",
    "disabled",
    "enable",
    "disable",
    "required",
    "optional",
    "ok",
    "fail",
    "failed",
    "failure",
    "success",
    "invalid",
    "missing",
    "empty",
    "unset",
    "set",
    "md5",
    "sha1",
    "sha256",
    "plain",
    "files",
    "compat",
    "systemd",
    "string",
    "int",
    "varchar",
    "unknown",
    "expired",
    "wrong",
    "incorrect",
    "rejected",
    "denied",
    "accepted",
    "changed",
    "mismatch",
    "(null)",
    "<null>",
    "n/a",
    "-",
    // Behind the name of a package.
    "all",
    "any",
    "amd64",
    "arm64",
    "armel",
    "armhf",
    "i386",
    "mips64el",
    "ppc64el",
    "riscv64",
    "s390x",
];

/// Whether a value stays although it stands where a secret would.
pub(super) fn is_harmless(value: &[u8], sort: Sort) -> bool {
    let digits = value.iter().all(u8::is_ascii_digit);
    let lower = value.to_ascii_lowercase();
    value.is_empty()
        || WORDS.iter().any(|word| word.as_bytes() == lower)
        || (digits && (value.len() == 1 || sort != Sort::Password))
        || value.iter().all(|byte| matches!(byte, b'*' | b'?' | b'.'))
        || (value.len() > 2 && lower.iter().all(|byte| *byte == b'x'))
        || is_reference(value)
        || is_address(value)
        || (sort == Sort::Key && is_path(value))
        || (sort == Sort::Weak && is_amount(value))
}

/// `${PASS}`, `$PASS`, `$var(x)`, `@RUN@`, `%s`, `%{PASS}`, `<password>`.
fn is_reference(value: &[u8]) -> bool {
    let name = |bytes: &[u8]| {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-. ".contains(byte);
        !bytes.is_empty() && bytes.iter().all(plain)
    };
    let upper = |bytes: &[u8]| name(bytes) && !bytes.iter().any(u8::is_ascii_lowercase);
    match value {
        [b'$' | b'%', b'{', inner @ .., b'}'] | [b'<', inner @ .., b'>'] => name(inner),
        [b'@', inner @ .., b'@'] => upper(inner),
        [b'$', inner @ .., b')'] => {
            let mut halves = inner.splitn(2, |byte| *byte == b'(');
            halves.next().is_some_and(name) && halves.next().is_some()
        }
        [b'$', inner @ ..] => upper(inner) && !inner.iter().any(u8::is_ascii_digit),
        [b'%', inner @ .., last] if last.is_ascii_alphabetic() => {
            inner.len() < 4 && inner.iter().all(|byte| b"0123456789.*-lzu".contains(byte))
        }
        _ => false,
    }
}

/// `0x7f03`, as debuggers print arguments.
fn is_address(value: &[u8]) -> bool {
    value.strip_prefix(b"0x").is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// The path of a key, not the key.
fn is_path(value: &[u8]) -> bool {
    let plain = value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-/~@".contains(byte));
    let rooted = value.starts_with(b"/") && value.iter().filter(|byte| **byte == b'/').count() > 1;
    let named = [&b".pem"[..], b".key", b".crt", b".cert", b".der"];
    let extended = named.iter().any(|end| value.ends_with(end));
    plain && (rooted || extended || value.starts_with(b"./") || value.starts_with(b"~/"))
}

/// `12`, `3.5%`, `1.2MB`, `20/s`: a count of passes or tokens.
fn is_amount(value: &[u8]) -> bool {
    let number = |byte: &u8| byte.is_ascii_digit() || b".,:/-+".contains(byte);
    let unit = value.iter().skip_while(|byte| number(byte)).count();
    value.first().is_some_and(u8::is_ascii_digit) && unit <= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_words_of_settings_are_no_secrets() {
        for value in [
            "",
            "yes",
            "NO",
            "1",
            "****",
            "${DBPASS}",
            "$DBPASS",
            "$var(pass)",
            "%s",
            "%.*s",
            "<password>",
            "@DBPASS@",
            "xxxx",
        ] {
            assert!(is_harmless(value.as_bytes(), Sort::Password), "{value}");
        }
        for value in ["$ecret1", "$2y$10$abc", "123456", "%pass", "hunter2", "/abc/def", "$A1"] {
            assert!(!is_harmless(value.as_bytes(), Sort::Password), "{value}");
        }
        assert!(is_harmless(b"/etc/kamailio/key.pem", Sort::Key));
        assert!(!is_harmless(b"/Ab3+x9Q==", Sort::Key));
        assert!(is_harmless(b"512", Sort::Weak) && is_harmless(b"20/s", Sort::Weak));
        assert!(!is_harmless(b"a1b2c3d4", Sort::Weak));
    }
}
