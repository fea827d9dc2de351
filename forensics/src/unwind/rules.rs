//! A caller's registers by the rules of call frame information.

use thiserror::Error;

use super::end::Mark;
use super::expression::{Context, evaluate};
use super::registers::{RIP, RSP, Registers, name};
use crate::addr::Addr;
use crate::memory::{Absent, Cursor, Known};
use crate::modules::{CfaRule, FrameRules, RegisterRule};

/// Why rules did not lead to a caller.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Trouble {
    /// There is none.
    #[error("{0}")]
    Outermost(Mark),
    /// A byte that they need is not known.
    #[error("{0}")]
    Absent(Absent),
    /// A register that they need is not known.
    #[error("its unwind information needs {0}, which is not known")]
    Unknown(&'static str),
    /// The rules cannot be followed, or contradict the stack.
    #[error("its unwind information is damaged: {0}")]
    Damaged(String),
    /// The frame's address that they give cannot be.
    #[error("its frame would be at {0}, below its stack pointer")]
    BelowStackPointer(Addr),
}

/// A frame whose caller is looked for.
pub(super) struct Callee<'a, 'm> {
    pub(super) rules: &'a FrameRules,
    pub(super) registers: &'a Registers,
    pub(super) memory: &'a mut Cursor<'m>,
    /// Added to an address in the file to get one in memory.
    pub(super) bias: u64,
}

impl<'m> Callee<'_, 'm> {
    /// The frame's address (CFA).
    pub(super) fn frame_address(&mut self) -> Result<Addr, Trouble> {
        let address = match &self.rules.cfa {
            CfaRule::Register(number, offset) => {
                let base = self.registers.get(*number).ok_or(Trouble::Unknown(name(*number)))?;
                Addr(base.wrapping_add_signed(*offset))
            }
            CfaRule::Expression(expression) => {
                Addr(evaluate(expression, None, &mut self.context())?)
            }
        };
        // Frames lie above the stack pointer, or at it where the return address is in a register; a
        // signal may change stacks.
        match self.registers.get(RSP) {
            Some(pointer) if address.0 < pointer && !self.rules.is_signal_frame => {
                Err(Trouble::BelowStackPointer(address))
            }
            _ => Ok(address),
        }
    }

    /// The caller's registers. Those that cannot be recovered are not known; without a return
    /// address there is no caller.
    pub(super) fn caller(&mut self, frame: Addr) -> Result<Registers, Trouble> {
        let mut caller = self.registers.kept();
        caller.set(RSP, Some(frame.0));
        let mut target = Err(Trouble::Damaged("it has no rule for the return address".to_owned()));
        for (number, rule) in &self.rules.registers {
            let value = self.value(*number, rule, frame);
            if *number == self.rules.return_address {
                target = match rule {
                    RegisterRule::Undefined => Err(Trouble::Outermost(Mark::CallFrameInfo)),
                    _ => value,
                };
            } else {
                caller.set(*number, value.ok());
            }
        }
        match target? {
            // Code that a signal interrupted may have called a null pointer.
            0 if !self.rules.is_signal_frame => Err(Trouble::Outermost(Mark::NullReturn)),
            target => Ok(caller.with(RIP, target)),
        }
    }

    fn value(&mut self, number: u16, rule: &RegisterRule, frame: Addr) -> Result<u64, Trouble> {
        let known =
            |number: u16| self.registers.get(number).ok_or_else(|| Trouble::Unknown(name(number)));
        let at = |offset: i64| Addr(frame.0.wrapping_add_signed(offset));
        match rule {
            RegisterRule::Undefined => Err(Trouble::Unknown(name(number))),
            RegisterRule::Same => known(number),
            RegisterRule::In(other) => known(*other),
            RegisterRule::Is(offset) => Ok(at(*offset).0),
            RegisterRule::At(offset) => word(self.memory, at(*offset)).map_err(Trouble::Absent),
            RegisterRule::IsExpression(expression) => {
                evaluate(expression, Some(frame), &mut self.context())
            }
            RegisterRule::AtExpression(expression) => {
                let place = evaluate(expression, Some(frame), &mut self.context())?;
                word(self.memory, Addr(place)).map_err(Trouble::Absent)
            }
        }
    }

    fn context(&mut self) -> Context<'_, 'm> {
        Context {
            registers: self.registers,
            memory: self.memory,
            bias: self.bias,
            encoding: self.rules.encoding,
        }
    }
}

/// A word of the stack.
pub(super) fn word(memory: &mut Cursor<'_>, at: Addr) -> Known<u64> {
    let bytes = memory.bytes(at, 8)?;
    Ok(bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)))
}
