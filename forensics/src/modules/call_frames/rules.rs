//! What one entry of a call frame table says about one address.

use gimli::{BaseAddresses, EndianSlice, LittleEndian, UnwindSection, X86_64};

pub(super) type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// No compiler writes a longer entry, in bytes; reading a hostile one for each frame would take
/// hours.
const LONGEST_ENTRY: usize = 1 << 20;
/// Longest expression, in bytes: linkers and hand-written code use some tens.
const LONGEST_EXPRESSION: usize = 4096;

/// Where a function keeps its caller's registers, at one of its addresses. Registers have DWARF's
/// numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameRules {
    /// How to find the frame's address (CFA): the stack pointer of the caller after the return.
    pub cfa: CfaRule,
    /// How to find the caller's registers; the machine's conventions hold for those without a rule.
    pub registers: Vec<(u16, RegisterRule)>,
    /// Number under which the return address is found.
    pub return_address: u16,
    /// Whether it is the code that a signal handler returns to: its caller was interrupted.
    pub is_signal_frame: bool,
    /// First address of the function, in the file.
    pub start: u64,
    /// First address behind it, in the file.
    pub end: u64,
    /// How expressions are written.
    pub encoding: gimli::Encoding,
    /// Bytes that were read to know this.
    pub cost: usize,
}

/// How to find the frame's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CfaRule {
    /// A register's value plus a number of bytes.
    Register(u16, i64),
    /// What an expression gives.
    Expression(Expression),
}

/// How to find a register's value in the caller. Offsets are from the frame's address, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterRule {
    /// It is lost; for the return address: there is no caller.
    Undefined,
    /// The function has not changed it.
    Same,
    /// It was saved at this offset.
    At(i64),
    /// It is the address at this offset.
    Is(i64),
    /// Another register holds it.
    In(u16),
    /// It was saved where an expression says.
    AtExpression(Expression),
    /// It is what an expression gives.
    IsExpression(Expression),
}

/// A DWARF expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression(pub Vec<u8>);

/// Room for reading an entry, to be used again for the next.
#[derive(Debug)]
pub struct Scratch(gimli::UnwindContext<usize, Room>);

impl Scratch {
    /// Empty.
    pub fn new() -> Self {
        Self(gimli::UnwindContext::new_in())
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Room for as many rules as x86-64 has registers, 16 states deep.
#[derive(Debug)]
struct Room;

impl gimli::UnwindContextStorage<usize> for Room {
    type Rules = [(gimli::Register, gimli::RegisterRule<usize>); 128];
    type Stack = Box<[gimli::UnwindTableRow<usize, Self>; 16]>;
}

/// What the entry at an offset says of an address; `None` if it does not cover it.
pub(super) fn read<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    bases: &BaseAddresses,
    offset: S::Offset,
    address: u64,
    scratch: &mut Scratch,
) -> Result<Option<FrameRules>, String> {
    let words = |error: gimli::Error| error.to_string();
    let entry = section.partial_fde_from_offset(bases, offset).map_err(words)?;
    let entry = entry.parse(S::cie_from_offset).map_err(words)?;
    if !entry.contains(address) {
        return Ok(None);
    }
    let cost = entry.entry_len().saturating_add(entry.cie().entry_len());
    if cost > LONGEST_ENTRY {
        return Err(format!("an entry of {cost} bytes is too long to be true"));
    }
    let row = entry.unwind_info_for_address(section, bases, &mut scratch.0, address);
    let row = row.map_err(words)?;
    let cfa = match row.cfa() {
        gimli::CfaRule::RegisterAndOffset { register, offset } => {
            CfaRule::Register(register.0, *offset)
        }
        gimli::CfaRule::Expression(place) => CfaRule::Expression(expression(section, place)?),
    };
    let mut registers = Vec::new();
    for (number, rule) in row.registers().filter(|(number, _)| number.0 <= X86_64::RA.0) {
        registers.push((number.0, register_rule(section, rule)?));
    }
    Ok(Some(FrameRules {
        cfa,
        registers,
        return_address: entry.cie().return_address_register().0,
        is_signal_frame: entry.is_signal_trampoline(),
        start: entry.initial_address(),
        end: entry.end_address(),
        encoding: entry.cie().encoding(),
        cost,
    }))
}

fn register_rule<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    rule: &gimli::RegisterRule<usize>,
) -> Result<RegisterRule, String> {
    Ok(match rule {
        gimli::RegisterRule::SameValue => RegisterRule::Same,
        gimli::RegisterRule::Offset(offset) => RegisterRule::At(*offset),
        gimli::RegisterRule::ValOffset(offset) => RegisterRule::Is(*offset),
        gimli::RegisterRule::Register(other) => RegisterRule::In(other.0),
        gimli::RegisterRule::Expression(place) => {
            RegisterRule::AtExpression(expression(section, place)?)
        }
        gimli::RegisterRule::ValExpression(place) => {
            RegisterRule::IsExpression(expression(section, place)?)
        }
        // The last two are of other machines.
        gimli::RegisterRule::Undefined
        | gimli::RegisterRule::Architectural
        | gimli::RegisterRule::Constant(_) => RegisterRule::Undefined,
    })
}

fn expression<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    place: &gimli::UnwindExpression<usize>,
) -> Result<Expression, String> {
    if place.length > LONGEST_EXPRESSION {
        return Err(format!("an expression of {} bytes is too long to be true", place.length));
    }
    let found = place.get(section).map_err(|error| error.to_string())?;
    Ok(Expression(found.0.slice().to_vec()))
}
