//! The answer, and its words.

use std::fmt;

use serde::Serialize;

use crate::modules::NearSymbol;

/// What lies at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the first page, which is never mapped.
    Null {
        /// From address 0, in bytes.
        offset: u64,
    },
    /// No address: a word that an allocator writes to recognise it later.
    Pattern(Pattern),
    /// The shared pool.
    Shm,
    /// A private pool.
    Pkg {
        /// Whose, for a person; `None` where the value could be any process's.
        process: Option<String>,
    },
    /// A stack.
    Stack {
        /// The thread; `None` where the value could be any process's.
        thread: Option<u32>,
    },
    /// Memory that the C library's `malloc` manages.
    CHeap,
    /// The executable or a library.
    Module(ModulePlace),
    /// The code that the kernel maps into every process.
    Vdso,
    /// Memory that processes share without a file, and no pool.
    Shared,
    /// A mapped file that is no module.
    File {
        /// Its path.
        path: String,
    },
    /// Mapped; the snapshot does not tell what it is.
    Unknown,
}

/// A place in the executable or a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModulePlace {
    /// Its file name.
    pub module: String,
    /// The address in the file (`p_vaddr`, `st_value`), as addr2line wants it.
    pub address_in_file: u64,
    /// Name of the section; `None` without the file.
    pub section: Option<String>,
    /// The symbol that covers the address.
    pub symbol: Option<NearSymbol>,
}

/// Words that q_malloc and f_malloc write around each fragment in builds with memory debugging,
/// the same from 5.2 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// In the header.
    StartCheck,
    /// The first word behind the payload.
    FirstEndCheck,
    /// The second one.
    SecondEndCheck,
}

impl Pattern {
    /// The pattern that a word is.
    pub fn of(value: u64) -> Option<Self> {
        match value {
            0xf0f0_f0f0 => Some(Self::StartCheck),
            0xc0c0_c0c0 => Some(Self::FirstEndCheck),
            0xabcd_efed => Some(Self::SecondEndCheck),
            _ => None,
        }
    }
}

impl Place {
    /// Whether it says that a value is an address in memory: no null pointer, no pattern.
    pub fn is_memory(&self) -> bool {
        !matches!(self, Self::Null { .. } | Self::Pattern(_))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null { offset: 0 } => f.write_str("NULL"),
            Self::Null { offset } => write!(f, "NULL + {offset:#x}"),
            Self::Pattern(Pattern::StartCheck) => f.write_str("the allocator's start check"),
            Self::Pattern(Pattern::FirstEndCheck) => f.write_str("the allocator's first end check"),
            Self::Pattern(Pattern::SecondEndCheck) => {
                f.write_str("the allocator's second end check")
            }
            Self::Shm => f.write_str("SHM"),
            Self::Pkg { process: Some(process) } => write!(f, "PKG of {process}"),
            Self::Pkg { process: None } => f.write_str("PKG of one of the processes"),
            Self::Stack { thread: Some(thread) } => write!(f, "stack of thread {thread}"),
            Self::Stack { thread: None } => f.write_str("stack of one of the processes"),
            Self::CHeap => f.write_str("C heap"),
            Self::Module(place) => place.fmt(f),
            Self::Vdso => f.write_str("the kernel's vDSO"),
            Self::Shared => f.write_str("shared memory outside the pools"),
            Self::File { path } => write!(f, "mapped file {path}"),
            Self::Unknown => f.write_str("mapped, not known what"),
        }
    }
}

/// `module tm.so, .text, t_relay_to+0x1c`; without a symbol `module tm.so+0x2f10, .text`.
impl fmt::Display for ModulePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "module {}", self.module)?;
        if self.symbol.is_none() {
            write!(f, "+{:#x}", self.address_in_file)?;
        }
        if let Some(section) = &self.section {
            write!(f, ", {section}")?;
        }
        match &self.symbol {
            Some(NearSymbol { name, offset: 0 }) => write!(f, ", {name}"),
            Some(NearSymbol { name, offset }) => write!(f, ", {name}+{offset:#x}"),
            None => Ok(()),
        }
    }
}
