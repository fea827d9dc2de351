//! What a run of bytes looks like: who wrote over a header is often told by what was written.

/// Words for a person; `None` where nothing is recognised.
pub fn looks_like(bytes: &[u8]) -> Option<String> {
    if bytes.iter().all(|&byte| byte == 0) {
        return Some("zeroes".to_owned());
    }
    if let Some((&first, rest)) = bytes.split_first()
        && rest.iter().all(|&byte| byte == first)
    {
        return Some(format!("one byte repeated ({first:#04x})"));
    }
    let text = longest_text(bytes);
    if text.len() < 8 {
        return None;
    }
    let text = String::from_utf8_lossy(text);
    const SIP: [&str; 12] = [
        "SIP/2.0",
        "INVITE ",
        "REGISTER ",
        "OPTIONS ",
        "Via:",
        "From:",
        "To:",
        "Call-ID:",
        "CSeq:",
        "Contact:",
        "sip:",
        "branch=",
    ];
    const SDP: [&str; 5] = ["v=0", "o=", "c=IN IP", "m=audio", "a=rtpmap"];
    let kind = if SIP.iter().any(|word| text.contains(word)) {
        "part of a SIP message"
    } else if SDP.iter().any(|word| text.contains(word)) {
        "part of an SDP body"
    } else {
        "text"
    };
    Some(format!("{kind}: {text:?}"))
}

/// The longest run of printable bytes and line ends.
fn longest_text(bytes: &[u8]) -> &[u8] {
    let printable = |byte: &u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\r' | b'\n');
    let runs = bytes.split(|byte| !printable(byte));
    runs.max_by_key(|run| run.len()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_described_by_what_was_written() {
        let kind = |bytes: &[u8]| looks_like(bytes);
        assert_eq!(kind(&[0; 16]).unwrap(), "zeroes");
        assert_eq!(kind(&[0x41; 16]).unwrap(), "one byte repeated (0x41)");
        assert_eq!(
            kind(b"\0\0;branch=z9hG4bK77\r\n\0").unwrap(),
            r#"part of a SIP message: ";branch=z9hG4bK77\r\n""#
        );
        assert_eq!(
            kind(b"m=audio 4000 RTP/AVP 0").unwrap(),
            r#"part of an SDP body: "m=audio 4000 RTP/AVP 0""#
        );
        assert_eq!(kind(b"\x01\x02abc\x03\x04"), None);
    }
}
