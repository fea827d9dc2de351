//! One question and its answer, without the way between: ctl packets or JSON-RPC objects.

use super::binrpc;
use super::value::{self, Value};

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// The values of a reply; several are a list.
    Value(Value),
    /// Why there are none.
    Fault {
        /// Kamailio's number for it, for instance 500 for a method that it does not have.
        code: i64,
        /// In its own words.
        message: String,
    },
}

/// The language of a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    /// Of the ctl module.
    Binary,
    /// Of the jsonrpcs module.
    Json,
}

/// A call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) method: &'a str,
    pub(super) arguments: &'a [&'static str],
    /// The answer repeats it. Not above `i32::MAX`: jsonrpcs has no larger numbers.
    pub(super) cookie: u32,
}

impl Question<'_> {
    /// In the words of the ctl module.
    pub(super) fn binary(&self) -> Vec<u8> {
        binrpc::request(self.method, self.arguments, self.cookie)
    }

    /// In those of jsonrpcs; the FIFO's server wants to know where to reply.
    pub(super) fn json(&self, reply_name: Option<&str>) -> Vec<u8> {
        let mut object = serde_json::Map::new();
        object.insert("jsonrpc".into(), "2.0".into());
        object.insert("method".into(), self.method.into());
        if !self.arguments.is_empty() {
            object.insert("params".into(), self.arguments.into());
        }
        object.insert("id".into(), self.cookie.into());
        if let Some(name) = reply_name {
            object.insert("reply_name".into(), name.into());
        }
        serde_json::Value::from(object).to_string().into_bytes()
    }

    /// A whole packet of the ctl module; `None` if it answers another question.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read_binary(&self, packet: &[u8]) -> Result<Option<Answer>, String> {
        let wrong = |error: binrpc::Error| error.to_string();
        let header = binrpc::header(packet).map_err(wrong)?;
        let header = header.ok_or_else(|| wrong(binrpc::Error::CutShort))?;
        if header.belongs_to(self.cookie).is_err() {
            return Ok(None);
        }
        let payload = packet.get(header.length..).unwrap_or_default();
        let payload =
            payload.get(..header.payload).ok_or_else(|| wrong(binrpc::Error::CutShort))?;
        let values = binrpc::values(payload).map_err(wrong)?;
        if !header.fault {
            return Ok(Some(Answer::Value(single(values))));
        }
        let mut values = values.into_iter();
        let code = match values.next() {
            Some(Value::Integer(code)) => code,
            _ => 0,
        };
        let message = match values.next() {
            Some(Value::Text(message)) => message,
            _ => String::new(),
        };
        Ok(Some(Answer::Fault { code, message }))
    }

    /// A whole JSON-RPC object; `None` if it answers another question.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read_json(&self, text: &[u8]) -> Result<Option<Answer>, String> {
        let text = String::from_utf8_lossy(text);
        let answer = value::from_json(text.as_bytes()).map_err(|error| error.to_string())?;
        let mut result = None;
        let mut fault = None;
        let mut ours = false;
        for (name, value) in members(answer) {
            match (name.as_str(), value) {
                ("id", Value::Integer(id)) => ours = id == i64::from(self.cookie),
                ("result", value) => result = Some(value),
                ("error", value) => fault = Some(value),
                _ => {}
            }
        }
        if !ours {
            return Ok(None);
        }
        if let Some(value) = result {
            return Ok(Some(Answer::Value(value)));
        }
        let (mut code, mut message) = (0, String::new());
        for (name, value) in members(fault.ok_or("it holds neither a result nor an error")?) {
            match (name.as_str(), value) {
                ("code", Value::Integer(number)) => code = number,
                ("message", Value::Text(text)) => message = text,
                _ => {}
            }
        }
        Ok(Some(Answer::Fault { code, message }))
    }
}

fn single(values: Vec<Value>) -> Value {
    match <[Value; 1]>::try_from(values) {
        Ok([value]) => value,
        Err(values) => Value::List(values),
    }
}

fn members(value: Value) -> impl Iterator<Item = (String, Value)> {
    let members = match value {
        Value::Struct(members) => members,
        _ => Vec::new(),
    };
    members.into_iter().filter_map(|(name, value)| Some((name?, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: Question<'_> =
        Question { method: "mod.stats", arguments: &["all", "shm"], cookie: 7 };

    #[test]
    fn a_question_in_json_is_one_object() {
        assert_eq!(
            String::from_utf8(QUESTION.json(Some("reply"))).unwrap(),
            r#"{"id":7,"jsonrpc":"2.0","method":"mod.stats","params":["all","shm"],"reply_name":"reply"}"#
        );
    }

    #[test]
    fn answers_of_kamailio_are_read() {
        // Recorded from Kamailio 5.6.3, but for the ID.
        let result = b"{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"result\":\t{\n\t\t\"uptime\":\t34\n\t},\n\t\"id\":\t7\n}";
        let uptime = Value::Struct(vec![(Some("uptime".into()), Value::Integer(34))]);
        assert_eq!(QUESTION.read_json(result), Ok(Some(Answer::Value(uptime))));
        let error = b"{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"error\":\t{\n\t\t\"code\":\t500,\n\t\t\"message\":\t\
            \"Method Not Found\"\n\t},\n\t\"id\":\t7\n}";
        let fault = Answer::Fault { code: 500, message: "Method Not Found".into() };
        assert_eq!(QUESTION.read_json(error), Ok(Some(fault.clone())));
        let packet = b"\xa1\x30\x16\x07\x20\x01\xf4\x91\x11Method Not Found\x00";
        assert_eq!(QUESTION.read_binary(packet), Ok(Some(fault)));
        let several = b"\xa1\x10\x05\x07\x21x\x00\x10\x01";
        let list = Value::List(vec![Value::Text("x".into()), Value::Integer(1)]);
        assert_eq!(QUESTION.read_binary(several), Ok(Some(Answer::Value(list))));
    }

    #[test]
    fn answers_to_others_are_not_ours() {
        assert_eq!(QUESTION.read_json(br#"{"result": 1, "id": 8}"#), Ok(None));
        assert_eq!(QUESTION.read_json(br#"[1, 2]"#), Ok(None));
        assert_eq!(QUESTION.read_binary(b"\xa1\x10\x00\x08"), Ok(None));
        assert!(QUESTION.read_json(br#"{"id": 7}"#).is_err());
        assert!(QUESTION.read_json(b"nonsense").is_err());
        assert!(QUESTION.read_binary(b"\xa1\x10\x09\x07\x00").is_err(), "shorter than it says");
    }
}
