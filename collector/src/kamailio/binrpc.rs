//! The packets of the ctl module's binary RPC.
//!
//! ```text
//! 0xA1 | type << 4 | LL << 2 | CL | payload length, LL + 1 bytes | cookie, CL + 1 bytes | payload
//! ```
//! All numbers are big-endian. The type is 0 (request), 1 (reply) or 3 (fault); the payload is a
//! row of records, each `S << 7 | size << 4 | type`: without S the value has `size` bytes, with S
//! the next `size` bytes hold its length. Structures and lists end with an empty record of their
//! type that has S set.
//!
//! Decoding believes nothing: lengths are compared with what is there, values are counted, nesting
//! is limited, and what is wrong is an [`Error`].

use super::value::{DEEPEST, MOST_VALUES, Value};

const MAGIC: u8 = 0xA1;
const REQUEST: u8 = 0;
const REPLY: u8 = 1;
const FAULT: u8 = 3;

const INTEGER: u8 = 0;
const TEXT: u8 = 1;
const REAL: u8 = 2;
const STRUCT: u8 = 3;
const LIST: u8 = 4;
const NAME: u8 = 5;
const BYTES: u8 = 6;

/// Bytes of the longest header.
pub(super) const LONGEST_HEADER: usize = 10;

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("it does not begin like a packet of the ctl module")]
    NoPacket,
    #[error("it is of type {0}, neither a reply nor a fault")]
    Type(u8),
    #[error("its cookie is not that of the request")]
    Cookie,
    #[error("it ends in the middle of a record")]
    CutShort,
    #[error("a record of type {0} where none may be")]
    Record(u8),
    #[error("a number of {0} bytes")]
    Number(usize),
    #[error("values are nested too deeply")]
    Depth,
    #[error("too many values")]
    TooMany,
}

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// It says why there is no answer.
    pub(super) fault: bool,
    /// Bytes of the header itself.
    pub(super) length: usize,
    /// Bytes that follow, as the sender says.
    pub(super) payload: usize,
    cookie: u32,
}

/// A request in a packet; the arguments are texts.
pub(super) fn request(method: &str, arguments: &[&str], cookie: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    put_text(&mut payload, TEXT, method);
    for argument in arguments {
        put_text(&mut payload, TEXT, argument);
    }
    let mut length = shortest(crate::number::bytes(payload.len()));
    if length.is_empty() {
        length.push(0);
    }
    let length_bits = u8::try_from(length.len().saturating_sub(1)).unwrap_or(3) << 2;
    let mut packet = vec![MAGIC, REQUEST << 4 | length_bits | 3];
    packet.extend(length);
    packet.extend(cookie.to_be_bytes());
    packet.extend(payload);
    packet
}

fn put_text(into: &mut Vec<u8>, kind: u8, text: &str) {
    let length = text.len() + 1;
    if length < 8 {
        into.push(head(length, kind));
    } else {
        let bytes = shortest(crate::number::bytes(length));
        into.push(0x80 | head(bytes.len(), kind));
        into.extend(bytes);
    }
    into.extend(text.bytes());
    into.push(0);
}

fn head(size: usize, kind: u8) -> u8 {
    (u8::try_from(size).unwrap_or(7) & 7) << 4 | kind
}

/// Big-endian without leading zeroes; 0 has no bytes.
fn shortest(number: u64) -> Vec<u8> {
    number.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect()
}

/// Reads the head of an answer; `None` until enough of it is there.
///
/// # Errors
/// It is no answer.
pub(super) fn header(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let mut reader = Reader { rest: bytes, left: 0 };
    let Some(magic) = bytes.first() else { return Ok(None) };
    if *magic != MAGIC {
        return Err(Error::NoPacket);
    }
    let Some(flags) = bytes.get(1) else { return Ok(None) };
    let kind = flags >> 4;
    if kind != REPLY && kind != FAULT {
        return Err(Error::Type(kind));
    }
    let (length_size, cookie_size) = (usize::from(flags >> 2 & 3) + 1, usize::from(flags & 3) + 1);
    let length = 2 + length_size + cookie_size;
    if bytes.len() < length {
        return Ok(None);
    }
    reader.take(2)?;
    let payload = crate::number::size(number(reader.take(length_size)?)?);
    let cookie = u32::try_from(number(reader.take(cookie_size)?)?).unwrap_or(u32::MAX);
    Ok(Some(Header { fault: kind == FAULT, length, payload, cookie }))
}

impl Header {
    /// Whether the answer belongs to the request with this cookie.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn belongs_to(&self, cookie: u32) -> Result<(), Error> {
        if self.cookie == cookie { Ok(()) } else { Err(Error::Cookie) }
    }
}

/// The values of a payload.
///
/// # Errors
/// It is damaged, or made to do harm.
pub(super) fn values(payload: &[u8]) -> Result<Vec<Value>, Error> {
    let mut reader = Reader { rest: payload, left: MOST_VALUES };
    let mut values = Vec::new();
    while let Some(record) = reader.record()? {
        values.push(reader.value(record, 0)?);
    }
    Ok(values)
}

/// The head of a record: its type, whether S was set, and its length.
#[derive(Clone, Copy)]
struct Record {
    kind: u8,
    marked: bool,
    length: usize,
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Values that may still come.
    left: u32,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Error::CutShort)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next record's head; `None` at the end.
    fn record(&mut self) -> Result<Option<Record>, Error> {
        let Some((first, rest)) = self.rest.split_first() else { return Ok(None) };
        self.rest = rest;
        let (kind, marked) = (first & 0xF, first & 0x80 != 0);
        let mut length = usize::from(first >> 4 & 7);
        if marked {
            let bytes = self.take(length)?;
            length = crate::number::size(number(bytes)?);
        }
        Ok(Some(Record { kind, marked, length }))
    }

    fn value(&mut self, record: Record, depth: u32) -> Result<Value, Error> {
        self.left = self.left.checked_sub(1).ok_or(Error::TooMany)?;
        match record.kind {
            INTEGER => Ok(Value::Integer(signed(self.take(record.length)?)?)),
            REAL => Ok(real(signed(self.take(record.length)?)?)),
            TEXT => Ok(Value::Text(text(self.take(record.length)?))),
            BYTES => Ok(Value::Bytes(self.take(record.length)?.to_vec())),
            STRUCT | LIST if record.marked => Err(Error::Record(record.kind)),
            STRUCT | LIST => self.members(record, depth),
            other => Err(Error::Record(other)),
        }
    }

    /// What stands between the start of a structure or list and its end.
    fn members(&mut self, start: Record, depth: u32) -> Result<Value, Error> {
        let depth = depth + 1;
        if depth > DEEPEST {
            return Err(Error::Depth);
        }
        self.take(start.length)?;
        let mut members = Vec::new();
        let mut name = None;
        loop {
            let record = self.record()?.ok_or(Error::CutShort)?;
            if record.kind == start.kind && record.marked {
                break;
            }
            if record.kind == NAME && start.kind == STRUCT && name.is_none() {
                name = Some(text(self.take(record.length)?));
                continue;
            }
            members.push((name.take(), self.value(record, depth)?));
        }
        if name.is_some() {
            return Err(Error::Record(NAME));
        }
        if start.kind == STRUCT {
            return Ok(Value::Struct(members));
        }
        Ok(Value::List(members.into_iter().map(|(_, value)| value).collect()))
    }
}

fn number(bytes: &[u8]) -> Result<u64, Error> {
    if bytes.len() > 8 {
        return Err(Error::Number(bytes.len()));
    }
    Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Kamailio writes an `int` in its shortest form: only one of four bytes can be negative.
fn signed(bytes: &[u8]) -> Result<i64, Error> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(i64::from(i32::from_be_bytes(four)));
    }
    if let Ok(eight) = <[u8; 8]>::try_from(bytes) {
        return Ok(i64::from_be_bytes(eight));
    }
    number(bytes).map(|number| i64::try_from(number).unwrap_or(i64::MAX))
}

/// A number that was sent in thousandths.
fn real(thousandths: i64) -> Value {
    match i32::try_from(thousandths) {
        Ok(thousandths) => Value::Real(f64::from(thousandths) / 1000.0),
        Err(_) => Value::Text(format!("{thousandths}/1000")),
    }
}

/// Without the zero that ends it.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `kamcmd core.uptime` was answered by Kamailio 5.6.3, its cookie 0x01020304.
    const UPTIME: &[u8] = b"\xa1\x13R\x01\x02\x03\x04\x03Enow\x00\x91\x19Mon Nov 23 06:01:16 2026\
        \x00\x95\tup_since\x00\x91\x19Mon Nov 23 06:00:42 2026\x00uuptime\x00\x10\x22\x83";

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    fn named(name: &str, value: Value) -> (Option<String>, Value) {
        (Some(name.to_owned()), value)
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let byte = |pair: &str| u8::from_str_radix(pair, 16).unwrap();
        hex.split_whitespace().map(byte).collect()
    }

    #[test]
    fn a_request_is_the_one_that_kamcmd_sends() {
        let packet = request("core.psx", &[], 0x0102_0304);
        assert_eq!(packet, b"\xa1\x03\x0b\x01\x02\x03\x04\x91\x09core.psx\x00");
        let packet = request("x", &["all", "shm"], 7);
        assert_eq!(packet, b"\xa1\x03\x0d\x00\x00\x00\x07\x21x\x00\x41all\x00\x41shm\x00");
    }

    #[test]
    fn a_recorded_answer_is_read() {
        let header = header(UPTIME).unwrap().unwrap();
        assert_eq!((header.fault, header.length, header.payload), (false, 7, 0x52));
        assert_eq!(header.belongs_to(0x0102_0304), Ok(()));
        assert_eq!(header.belongs_to(5), Err(Error::Cookie));
        let members = vec![
            named("now", text("Mon Nov 23 06:01:16 2026")),
            named("up_since", text("Mon Nov 23 06:00:42 2026")),
            named("uptime", Value::Integer(34)),
        ];
        assert_eq!(values(&UPTIME[7..]).unwrap(), [Value::Struct(members)]);
    }

    #[test]
    fn a_recorded_fault_says_its_code_and_why() {
        let answer = b"\xa13\x1f\x01\x02\x03\x04 \x01\xf4\x91\x1acommand no.such not found\x00";
        let header = header(answer).unwrap().unwrap();
        assert_eq!((header.fault, header.payload), (true, 31));
        let why = text("command no.such not found");
        assert_eq!(values(&answer[7..]).unwrap(), [Value::Integer(500), why]);
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let one = |hex: &str| values(&bytes(hex)).map(|values| values.into_iter().next().unwrap());
        for zero in ["00", "10 00"] {
            assert_eq!(one(zero), Ok(Value::Integer(0)), "{zero}");
        }
        for number in ["20 12 34", "90 02 12 34", "A0 00 02 12 34"] {
            assert_eq!(one(number), Ok(Value::Integer(0x1234)), "{number}");
        }
        assert_eq!(one("40 ff ff ff fe"), Ok(Value::Integer(-2)));
        assert_eq!(one("50 01 00 00 00 00"), Ok(Value::Integer(1 << 32)));
        assert_eq!(one("41 61 62 63 00"), Ok(text("abc")));
        assert_eq!(one("91 0A 61 62 63 64 65 66 68 69 6a 00"), Ok(text("abcdefhij")));
        assert_eq!(one("22 05 dc"), Ok(Value::Real(1.5)));
        assert_eq!(one("26 00 ff"), Ok(Value::Bytes(vec![0, 255])));
        let list = Value::List(vec![Value::Integer(7), text("abc")]);
        assert_eq!(one("04 10 07 41 61 62 63 00 84"), Ok(list));
        let members = vec![named("s", text("abc")), (None, Value::Struct(Vec::new()))];
        assert_eq!(one("03 25 73 00 41 61 62 63 00 03 83 83"), Ok(Value::Struct(members)));
    }

    #[test]
    fn lies_are_found_out() {
        let wrong = |hex: &str| values(&bytes(hex)).unwrap_err();
        assert_eq!(wrong("B1 ff ff ff 61"), Error::CutShort, "a length beyond the packet");
        assert_eq!(wrong("F1 ff ff ff ff ff ff ff 61"), Error::CutShort, "2^56 bytes");
        assert_eq!(wrong("03 25 73 00 83"), Error::Record(NAME), "a name without a value");
        assert_eq!(wrong("25 73 00"), Error::Record(NAME), "a name outside a structure");
        assert_eq!(wrong("03 84 83"), Error::Record(LIST), "the wrong end");
        assert_eq!(wrong("83"), Error::Record(STRUCT), "an end without a start");
        assert_eq!(wrong("03 10 07"), Error::CutShort, "no end");
        assert_eq!(wrong("17 00"), Error::Record(7), "no such type");
        assert_eq!(wrong("90 09 1 2 3 4 5 6 7 8 9"), Error::Number(9));
        assert_eq!(values(&[3; 33]), Err(Error::Depth), "no end of starts");
        assert_eq!(values(&vec![0; 300_000]), Err(Error::TooMany), "zeroes of one byte each");
        assert_eq!(header(b"HTTP/1.1"), Err(Error::NoPacket));
        assert_eq!(header(b"\xa1\x03\x00"), Err(Error::Type(0)));
        assert_eq!(header(&UPTIME[..6]), Ok(None), "more is to come");
    }

    fn put(into: &mut Vec<u8>, value: &Value) {
        match value {
            Value::Integer(number) => {
                let bytes = shortest(u64::try_from(*number).unwrap());
                into.push(head(bytes.len(), INTEGER));
                into.extend(bytes);
            }
            Value::Text(text) => put_text(into, TEXT, text),
            Value::List(values) => {
                into.push(LIST);
                values.iter().for_each(|value| put(into, value));
                into.push(0x80 | LIST);
            }
            Value::Struct(members) => {
                into.push(STRUCT);
                for (name, value) in members {
                    name.iter().for_each(|name| put_text(into, NAME, name));
                    put(into, value);
                }
                into.push(0x80 | STRUCT);
            }
            other => panic!("{other:?}"),
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            (0..=i64::from(i32::MAX)).prop_map(Value::Integer),
            "[ -~é]{0,40}".prop_map(Value::Text),
        ];
        leaf.prop_recursive(5, 60, 6, |inner| {
            let member = (prop::option::of("[a-z_]{1,12}"), inner.clone());
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(Value::List),
                prop::collection::vec(member, 0..6).prop_map(Value::Struct),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(values in prop::collection::vec(any_value(), 0..5)) {
            let mut payload = Vec::new();
            values.iter().for_each(|value| put(&mut payload, value));
            prop_assert_eq!(super::values(&payload), Ok(values));
        }

        #[test]
        fn anything_is_read_or_refused(packet in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = header(&packet);
            let _ = values(&packet);
        }

        #[test]
        fn a_damaged_answer_is_read_or_refused(at in 0..UPTIME.len(), byte: u8, end in 0..UPTIME.len()) {
            let mut packet = UPTIME.to_vec();
            packet[at] = byte;
            packet.truncate(end);
            if let Ok(Some(header)) = header(&packet) {
                let _ = values(&packet[header.length.min(end)..]);
            }
        }
    }
}
