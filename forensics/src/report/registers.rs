//! The registers of every thread, each with what it points at.

use rayon::prelude::*;
use serde::Serialize;

use crate::addr::Addr;
use crate::case::Case;
use crate::core::Thread;
use crate::places::Places;

/// One thread's registers.
#[derive(Clone, Debug, Serialize)]
pub struct ThreadRegisters {
    /// Its thread ID, as the core counts it.
    pub tid: u32,
    /// The registers that are known, in the kernel's order.
    pub values: Vec<RegisterReport>,
    /// Why some or all are not; null if all are.
    pub missing: Option<String>,
}

/// One register.
#[derive(Clone, Debug, Serialize)]
pub struct RegisterReport {
    /// Its name, for instance `rsp`.
    pub name: &'static str,
    /// What it holds.
    pub value: Addr,
    /// What that points at, for a person; null where it is no pointer.
    pub place: Option<String>,
}

/// Of every process of the case, in its order.
pub(super) fn registers(case: &Case) -> Vec<Vec<ThreadRegisters>> {
    let places = case.places();
    let of_process = |(index, member): (usize, &crate::case::Member)| {
        let core = &member.process.core;
        let threads = core.notes.threads.iter();
        threads.map(|thread| of_thread(thread, core.machine, index, &places)).collect()
    };
    case.members.par_iter().enumerate().map(of_process).collect()
}

fn of_thread(
    thread: &Thread,
    machine: &str,
    process: usize,
    places: &Places<'_>,
) -> ThreadRegisters {
    let Some(registers) = thread.general_registers(machine) else {
        let missing = format!("registers of {machine} are not supported, only those of x86-64");
        return ThreadRegisters { tid: thread.tid, values: Vec::new(), missing: Some(missing) };
    };
    let unstopped = thread
        .record
        .as_ref()
        .is_some_and(|record| record.registers != bundle::notes::RegisterSource::Stopped);
    let missing = match (registers.is_empty(), unstopped) {
        (true, _) => Some("its registers could not be read".to_owned()),
        (false, true) => Some("read without stopping it; the others are not known".to_owned()),
        (false, false) => None,
    };
    let report = |register: &crate::core::Register| RegisterReport {
        name: register.name,
        value: Addr(register.value),
        place: places
            .of(process, register.value)
            .filter(|_| register.may_point)
            .map(|place| place.to_string()),
    };
    ThreadRegisters { tid: thread.tid, values: registers.iter().map(report).collect(), missing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Evidence;

    fn report(machine: &str) -> ThreadRegisters {
        let thread = Thread { tid: 7, signal: 0, registers: vec![0x18; 34], record: None };
        of_thread(&thread, machine, 0, &Places::new(&Evidence::default(), Vec::new(), Vec::new()))
    }

    #[test]
    fn what_is_not_supported_is_said() {
        let report = report("aarch64");
        assert!(report.values.is_empty());
        let said = "registers of aarch64 are not supported, only those of x86-64";
        assert_eq!(report.missing.as_deref(), Some(said));
    }

    #[test]
    fn flags_and_selectors_point_nowhere() {
        let report = report("x86-64");
        let place = |name: &str| {
            let found = report.values.iter().find(|register| register.name == name).unwrap();
            found.place.as_deref()
        };
        assert_eq!(place("rdi"), Some("NULL + 0x18"));
        assert_eq!([place("eflags"), place("cs"), place("orig_rax")], [None; 3]);
        assert_eq!(report.missing, None);
    }
}
