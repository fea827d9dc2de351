//! The kinds of content, and their words.

use std::fmt;
use std::sync::Arc;

use crate::places::Place;

/// Something that a payload holds. The order is that of interest to a person.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A SIP request: its start line is there.
    SipRequest(&'static str),
    /// A SIP reply: its start line is there.
    SipReply(u16),
    /// A header line `Call-ID: …`, or `i: …` within a message.
    CallIdHeader,
    /// A text by itself that looks as Call-IDs do, a generated word and a host: `7-4242@192.0.2.1`.
    CallIdShape,
    /// Header lines or parameters of SIP without a start line.
    SipPart,
    /// Lines of a session description.
    Sdp,
    /// `user@host` by itself: an address of record, or a Call-ID of a form that users have too.
    UserAtHost,
    /// A URI of this scheme.
    Uri(&'static str),
    /// A UUID by itself.
    Uuid,
    /// A word that only a generator writes, without a host.
    Token,
    /// Any other text of at least eight characters.
    Text,
    /// Nothing but zeroes.
    Zeroes,
    /// Nothing but one byte.
    Repeated(u8),
    /// Pointers.
    Pointers(Target),
    /// Its bytes are not known, for this reason.
    NotKnown(String),
    /// None of these.
    Nothing,
}

/// What pointers lead to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// The payload that holds them: a structure that carries its own texts.
    Itself,
    /// The pool of the payload, where a payload's pool alone is known.
    ThisPool,
    /// The shared pool.
    Shm,
    /// A private pool.
    Pkg,
    /// Memory of the C library's `malloc`.
    CHeap,
    /// A stack.
    Stack,
    /// The executable or a library.
    Module {
        /// Its file name.
        module: Arc<str>,
        /// The symbol that covers the address.
        symbol: Option<Arc<str>>,
    },
    /// Anything else that was mapped, in words.
    Other(Arc<str>),
}

impl Target {
    /// Of the place of a word; `None` for what is no address.
    pub fn of(place: Place) -> Option<Self> {
        Some(match place {
            Place::Null { .. } | Place::Pattern(_) => return None,
            Place::Shm => Self::Shm,
            Place::Pkg { .. } => Self::Pkg,
            Place::CHeap => Self::CHeap,
            Place::Stack { .. } => Self::Stack,
            Place::Module(place) => Self::Module {
                module: place.module.into(),
                symbol: place.symbol.map(|symbol| symbol.name.into()),
            },
            Place::Vdso | Place::Shared | Place::File { .. } | Place::Unknown => {
                Self::Other(place.to_string().into())
            }
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Itself => f.write_str("itself"),
            Self::ThisPool => f.write_str("this pool"),
            Self::Shm => f.write_str("SHM"),
            Self::Pkg => f.write_str("PKG"),
            Self::CHeap => f.write_str("the C heap"),
            Self::Stack => f.write_str("a stack"),
            Self::Module { module, symbol: Some(symbol) } => write!(f, "{module} ({symbol})"),
            Self::Module { module, symbol: None } => f.write_str(module),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl Kind {
    /// A stable name for scripts.
    pub fn id(&self) -> &'static str {
        match self {
            Self::SipRequest(_) => "sip-request",
            Self::SipReply(_) => "sip-reply",
            Self::CallIdHeader => "call-id-header",
            Self::CallIdShape => "call-id-shape",
            Self::SipPart => "sip-part",
            Self::Sdp => "sdp",
            Self::UserAtHost => "user-at-host",
            Self::Uri(_) => "uri",
            Self::Uuid => "uuid",
            Self::Token => "token",
            Self::Text => "text",
            Self::Zeroes => "zeroes",
            Self::Repeated(_) => "repeated-byte",
            Self::Pointers(_) => "pointers",
            Self::NotKnown(_) => "not-known",
            Self::Nothing => "nothing-recognised",
        }
    }

    /// Whether it is told by a text that can be shown.
    pub fn is_text(&self) -> bool {
        *self <= Self::Text
    }
}

/// `SIP request INVITE`, `pointers into tm.so`, …
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SipRequest(method) => write!(f, "SIP request {method}"),
            Self::SipReply(status) => write!(f, "SIP reply {status}"),
            Self::CallIdHeader => f.write_str("Call-ID header"),
            Self::CallIdShape => f.write_str("Call-ID (by its form)"),
            Self::SipPart => f.write_str("part of a SIP message"),
            Self::Sdp => f.write_str("part of an SDP body"),
            Self::UserAtHost => f.write_str("user@host (an address or a Call-ID)"),
            Self::Uri(scheme) => write!(f, "{scheme} URI"),
            Self::Uuid => f.write_str("UUID"),
            Self::Token => f.write_str("generated word (a Call-ID, tag or branch)"),
            Self::Text => f.write_str("text"),
            Self::Zeroes => f.write_str("zeroes"),
            Self::Repeated(byte) => write!(f, "one byte repeated ({byte:#04x})"),
            Self::Pointers(target) => write!(f, "pointers into {target}"),
            Self::NotKnown(why) => write!(f, "not known: {why}"),
            Self::Nothing => f.write_str("nothing recognised"),
        }
    }
}
