//! Threads put together by hand, for tests.

use super::{NamedFrame, ThreadView};
use crate::activity::SystemCall;
use crate::addr::Addr;
use crate::core::Thread;
use crate::symbols::{CodePlace, NameSource};
use crate::unwind::{End, Frame, FrameTrust, Registers};

/// Its thread ID.
pub(crate) const TID: u32 = 4711;

/// A frame of a module; no name for `""`; `<signal>` is the handler's return.
pub(crate) fn frame(module: &str, function: &str, registers: Registers) -> NamedFrame {
    let place = CodePlace {
        function: Some(function.to_owned()),
        offset: Some(1),
        file: None,
        line: None,
        is_inlined: false,
        source: NameSource::SymbolTable,
    };
    NamedFrame {
        frame: Frame {
            pc: Addr(0x1002),
            is_return_address: true,
            cfa: None,
            registers,
            trust: FrameTrust::CallFrameInfo,
            is_signal_frame: function == "<signal>",
        },
        module: Some(module.to_owned()),
        address_in_file: None,
        places: if function.is_empty() { Vec::new() } else { vec![place] },
    }
}

/// Registers of a thread stopped in a system call, by their places in `pr_reg`.
pub(crate) fn registers(values: &[(usize, u64)]) -> Registers {
    Registers::of_thread(&thread(values), "x86-64")
}

fn thread(values: &[(usize, u64)]) -> Thread {
    let mut registers = vec![0; 27];
    for (place, value) in values {
        registers[*place] = *value;
    }
    Thread { tid: TID, signal: 0, registers, record: None }
}

/// A call with its first two arguments, in which a thread waits (`-ERESTARTSYS`).
pub(crate) fn call(number: u64, [first, second]: [u64; 2]) -> SystemCall {
    let restart = (-512_i64).cast_unsigned();
    let values = [(10, restart), (13, second), (14, first), (15, number), (16, 0x1000)];
    SystemCall::of_thread(&thread(&values), "x86-64").unwrap()
}

/// A thread with these frames, innermost first: module and function.
pub(crate) fn view(frames: &[(&str, &str)]) -> ThreadView {
    let frames = frames.iter().map(|(module, name)| frame(module, name, Registers::default()));
    ThreadView {
        member: 0,
        tid: TID,
        own_id: None,
        name: None,
        signal: 0,
        frames: frames.collect(),
        end: End::NotSupported("none"),
        call: None,
        activity: None,
        between: None,
    }
}
