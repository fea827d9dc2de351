//! What an RPC answer consists of, the same over every transport, and its form in JSON.
//!
//! Names of members may repeat and may be missing: Kamailio writes lists as structures without
//! names, and some methods add the same name many times. Nothing of that is lost: a structure is an
//! object only if every member has a name of its own, a list if none has a name, and otherwise a
//! list of objects of one member each.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// Values within values that are followed; Kamailio's own answers need about five.
pub(super) const DEEPEST: u32 = 32;
/// Values in one answer, so that a small answer cannot become a large structure in memory.
pub(super) const MOST_VALUES: u32 = 200_000;

/// A value in an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Nothing, which only JSON has.
    Null,
    /// True or false, which only JSON has.
    Truth(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Real(f64),
    /// A text; bytes that are no UTF-8 are shown as U+FFFD.
    Text(String),
    /// Bytes, in hexadecimal in JSON.
    Bytes(Vec<u8>),
    /// A structure.
    Struct(Vec<(Option<String>, Value)>),
    /// A list.
    List(Vec<Value>),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Truth(truth) => serializer.serialize_bool(*truth),
            Self::Integer(number) => serializer.serialize_i64(*number),
            Self::Real(number) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                serializer.serialize_str(&hex)
            }
            Self::List(values) => serializer.collect_seq(values),
            Self::Struct(members) => structure(members, serializer),
        }
    }
}

fn structure<S: Serializer>(
    members: &[(Option<String>, Value)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let names: BTreeSet<&String> = members.iter().filter_map(|(name, _)| name.as_ref()).collect();
    if names.len() == members.len() {
        let mut map = serializer.serialize_map(Some(members.len()))?;
        for (name, value) in members {
            map.serialize_entry(name.as_deref().unwrap_or_default(), value)?;
        }
        return map.end();
    }
    let mut list = serializer.serialize_seq(Some(members.len()))?;
    for (name, value) in members {
        match name {
            None => list.serialize_element(value)?,
            Some(_) => list.serialize_element(&Member(name.as_deref(), value))?,
        }
    }
    list.end()
}

/// One member as an object of its own.
struct Member<'a>(Option<&'a str>, &'a Value);

impl Serialize for Member<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0.unwrap_or_default(), self.1)?;
        map.end()
    }
}

/// Reads a value from JSON; repeated names are kept.
///
/// # Errors
/// It is no JSON, too deep, or too much.
pub(super) fn from_json(text: &[u8]) -> serde_json::Result<Value> {
    let left = Cell::new(MOST_VALUES);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Reader { left: &left, depth: 0 }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// Reads one value and what is in it.
#[derive(Clone, Copy)]
struct Reader<'a> {
    left: &'a Cell<u32>,
    depth: u32,
}

impl Reader<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.saturating_add(1);
        if depth > DEEPEST {
            return Err(E::custom("values are nested too deeply"));
        }
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => return Err(D::Error::custom("too many values")),
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of an RPC answer")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Truth(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or_else(|_| Value::Text(number.to_string()), Value::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Real(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut members = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            members.push((Some(name), map.next_value_seed(inner)?));
        }
        Ok(Value::Struct(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &Value) -> String {
        serde_json::to_string(value).unwrap()
    }

    fn named(name: &str, number: i64) -> (Option<String>, Value) {
        (Some(name.to_owned()), Value::Integer(number))
    }

    #[test]
    fn repeated_and_missing_names_lose_nothing() {
        let unique = Value::Struct(vec![named("a", 1), named("b", 2)]);
        assert_eq!(json(&unique), r#"{"a":1,"b":2}"#);
        let repeated = Value::Struct(vec![named("a", 1), named("a", 2)]);
        assert_eq!(json(&repeated), r#"[{"a":1},{"a":2}]"#);
        let mixed = Value::Struct(vec![named("a", 1), (None, Value::Text("x".into()))]);
        assert_eq!(json(&mixed), r#"[{"a":1},"x"]"#);
        let list = Value::Struct(vec![(None, Value::Integer(7))]);
        assert_eq!(json(&list), "[7]");
        assert_eq!(json(&Value::Struct(Vec::new())), "{}");
        assert_eq!(json(&Value::Bytes(vec![0, 255])), r#""00ff""#);
    }

    #[test]
    fn json_is_read_with_its_repeated_names() {
        let text = br#"{"a": 1, "a": [2.5, null, true, "x"], "b": -3}"#;
        let list = vec![Value::Real(2.5), Value::Null, Value::Truth(true), Value::Text("x".into())];
        let members = vec![named("a", 1), (Some("a".into()), Value::List(list)), named("b", -3)];
        assert_eq!(from_json(text).unwrap(), Value::Struct(members));
    }

    #[test]
    fn deep_and_endless_json_is_refused() {
        let deep = "[".repeat(33) + &"]".repeat(33);
        assert!(from_json(deep.as_bytes()).unwrap_err().to_string().contains("too deeply"));
        let long = format!("[{}0]", "0,".repeat(200_000));
        assert!(from_json(long.as_bytes()).unwrap_err().to_string().contains("too many"));
        for wrong in ["", "{", "[1,]", "1 2", "\"\\ud800\"", "nul"] {
            assert!(from_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
