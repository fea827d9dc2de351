//! DWARF expressions of call frame rules: they compute an address or a value from registers and
//! memory. Bounded: loops in them end after a fixed number of operations.

use gimli::{EndianSlice, EvaluationResult, LittleEndian, Value};

use super::registers::{Registers, name};
use super::rules::Trouble;
use crate::addr::Addr;
use crate::memory::Cursor;
use crate::modules::Expression;

/// The longest true ones, of signal trampolines and PLTs, have about ten operations.
const MOST_OPERATIONS: u32 = 256;

/// What an expression may ask for.
pub(super) struct Context<'a, 'm> {
    /// The frame's own registers.
    pub(super) registers: &'a Registers,
    pub(super) memory: &'a mut Cursor<'m>,
    /// Added to an address in the file.
    pub(super) bias: u64,
    pub(super) encoding: gimli::Encoding,
}

/// Evaluates with `initial` on the expression's stack: the frame's address, for registers' rules.
pub(super) fn evaluate(
    expression: &Expression,
    initial: Option<Addr>,
    context: &mut Context<'_, '_>,
) -> Result<u64, Trouble> {
    let words = |error: gimli::Error| Trouble::Damaged(error.to_string());
    let bytes = EndianSlice::new(&expression.0, LittleEndian);
    let mut evaluation = gimli::Evaluation::new(bytes, context.encoding);
    evaluation.set_max_iterations(MOST_OPERATIONS);
    if let Some(initial) = initial {
        evaluation.set_initial_value(initial.0);
    }
    let mut state = evaluation.evaluate().map_err(words)?;
    loop {
        state = match state {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register, .. } => {
                let value = context.registers.get(register.0);
                let value = value.ok_or_else(|| Trouble::Unknown(name(register.0)))?;
                evaluation.resume_with_register(Value::Generic(value))
            }
            EvaluationResult::RequiresMemory { address, size, .. } => {
                let value = number(context.memory, Addr(address), size)?;
                evaluation.resume_with_memory(Value::Generic(value))
            }
            EvaluationResult::RequiresRelocatedAddress(address) => {
                evaluation.resume_with_relocated_address(address.wrapping_add(context.bias))
            }
            other => return Err(Trouble::Damaged(format!("no frame rule may ask for {other:?}"))),
        }
        .map_err(words)?;
    }
    match evaluation.as_result() {
        [gimli::Piece { location: gimli::Location::Address { address }, .. }] => Ok(*address),
        _ => Err(Trouble::Damaged("an expression that gives no address".to_owned())),
    }
}

/// A little-endian number of at most 8 bytes.
fn number(memory: &mut Cursor<'_>, at: Addr, size: u8) -> Result<u64, Trouble> {
    let length = usize::from(size.min(8));
    let bytes = memory.bytes(at, length).map_err(Trouble::Absent)?;
    let mut word = [0; 8];
    word.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
    Ok(u64::from_le_bytes(word))
}
