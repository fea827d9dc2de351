//! The text of `/proc/PID/task/TID/*` and `/proc/PID/*`, one function a file; formats as in
//! `proc(5)`. Parsing apart from reading: every text is hostile, and a line that its end is missing
//! of may have lost digits, so it is not read.

use std::collections::BTreeMap;

/// What is used of `stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// The name, `comm`, with line ends escaped by the kernel.
    pub(super) name: String,
    /// Its state letter.
    pub(super) state: char,
    /// Time in user mode, in clock ticks (`utime`).
    pub(super) user_ticks: u64,
    /// Time in the kernel, in clock ticks (`stime`).
    pub(super) system_ticks: u64,
    /// When it started, in clock ticks since boot: with the ID it names a thread for good.
    pub(super) started: u64,
    /// The CPU that it last ran on.
    pub(super) cpu: Option<u32>,
}

/// The lines of a text that are whole.
pub(super) fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'))
}

/// `stat`: one line. The name may hold spaces and parentheses: the last `)` ends it.
pub(super) fn stat(text: &str) -> Option<Stat> {
    let line = whole_lines(text).next()?;
    let (head, tail) = line.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    // Field 3 of proc(5) is the first behind the name.
    let number = |field: usize| fields.get(field.checked_sub(3)?)?.parse::<u64>().ok();
    Some(Stat {
        name: name.to_owned(),
        state: fields.first()?.chars().next()?,
        user_ticks: number(14)?,
        system_ticks: number(15)?,
        started: number(22)?,
        cpu: number(39).and_then(|cpu| u32::try_from(cpu).ok()),
    })
}

/// How often a thread left its CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// To wait for something (`voluntary_ctxt_switches`).
    pub voluntary: u64,
    /// Because its time was over or another was more urgent (`nonvoluntary_ctxt_switches`).
    pub involuntary: u64,
}

/// The context switches of `status`.
pub(super) fn switches(status: &str) -> Option<Switches> {
    let fields = fields(status);
    let number = |key: &str| fields.get(key)?.parse().ok();
    Some(Switches {
        voluntary: number("voluntary_ctxt_switches")?,
        involuntary: number("nonvoluntary_ctxt_switches")?,
    })
}

/// `KEY: VALUE` lines; of a key that comes twice the first.
pub(super) fn fields(text: &str) -> BTreeMap<&str, &str> {
    let mut fields = BTreeMap::new();
    for (key, value) in whole_lines(text).filter_map(|line| line.split_once(':')) {
        fields.entry(key.trim()).or_insert_with(|| value.trim());
    }
    fields
}

/// What is used of `schedstat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SchedStat {
    /// Time on a CPU, in nanoseconds.
    pub(super) run_ns: u64,
    /// Time ready to run without a CPU, in nanoseconds.
    pub(super) wait_ns: u64,
}

/// `schedstat`: three numbers; all zero where the kernel does not count them.
pub(super) fn sched_stat(text: &str) -> Option<SchedStat> {
    let mut fields = whole_lines(text).next()?.split_ascii_whitespace();
    let mut number = || fields.next()?.parse::<u64>().ok();
    let (run_ns, wait_ns, slices) = (number()?, number()?, number()?);
    let counted = run_ns != 0 || wait_ns != 0 || slices != 0;
    counted.then_some(SchedStat { run_ns, wait_ns })
}

/// `wchan`: the kernel's function in which the thread sleeps; `0` for none. It has no line end.
pub(super) fn wait_channel(text: &str) -> Option<String> {
    let is_symbol = |name: &str| name.chars().all(|c| c.is_ascii_graphic());
    let name = text.trim();
    (!name.is_empty() && name != "0" && is_symbol(name)).then(|| name.to_owned())
}

/// `stack`: a line `[<0>] FUNCTION+0xOFFSET/0xSIZE` for each frame of the kernel, innermost first.
pub(super) fn kernel_stack(text: &str) -> Vec<String> {
    /// Deeper ones are not the kernel's.
    const MOST: usize = 128;
    let frame = |line: &str| Some(line.trim().split_once("] ")?.1.to_owned());
    whole_lines(text).filter_map(frame).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `/proc/PID/task/TID/stat` of a thread that had named itself so (Linux 6.18).
    const ODD_NAME: &str = "4242 (a) b (c) R 1 19035 19035 0 -1 4194624 852 0 0 0 1234 56 0 0 20 0 \
                            1 0 3440183 90152960 2554 18446744073709551615 0 0 0 0 0 0 0 88579 1 0 0 \
                            0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n";

    #[test]
    fn a_name_may_hold_brackets_and_spaces() {
        let stat = stat(ODD_NAME).unwrap();
        assert_eq!((stat.name.as_str(), stat.state), ("a) b (c", 'R'));
        assert_eq!((stat.user_ticks, stat.system_ticks), (1234, 56));
        assert_eq!((stat.started, stat.cpu), (3_440_183, Some(1)));
    }

    #[test]
    fn a_line_that_was_cut_is_not_read() {
        for length in 0..ODD_NAME.len() {
            assert_eq!(stat(&ODD_NAME[..length]), None, "{length}");
        }
        assert_eq!(sched_stat("7185955 18649770 5"), None);
        assert_eq!(switches("voluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3"), None);
    }

    #[test]
    fn numbers_beyond_64_bits_are_refused() {
        assert_eq!(stat(&ODD_NAME.replace("1234", "99999999999999999999")), None);
        assert_eq!(sched_stat("99999999999999999999 1 1\n"), None);
        assert_eq!(sched_stat("-1 1 1\n"), None);
    }

    #[test]
    fn times_that_the_kernel_does_not_count_are_not_known() {
        assert_eq!(sched_stat("0 0 0\n"), None);
        let counted = Some(SchedStat { run_ns: 7_185_955, wait_ns: 18_649_770 });
        assert_eq!(sched_stat("7185955 18649770 5\n"), counted);
    }

    #[test]
    fn switches_are_read_by_name() {
        let status = "Name:\tkamailio\nState:\tS (sleeping)\nvoluntary_ctxt_switches:\t12\n\
                      nonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(switches(status), Some(Switches { voluntary: 12, involuntary: 3 }));
    }

    #[test]
    fn the_kernels_frames_lose_their_hidden_addresses() {
        let text = "[<0>] __do_sys_pause+0x2a/0x50\n[<0>] do_syscall_64+0x71/0x280\n[<0>] entry_SY";
        assert_eq!(kernel_stack(text), ["__do_sys_pause+0x2a/0x50", "do_syscall_64+0x71/0x280"]);
        assert_eq!(wait_channel("0"), None);
        assert_eq!(wait_channel("two\nlines"), None);
        assert_eq!(wait_channel("__do_sys_pause").as_deref(), Some("__do_sys_pause"));
    }
}
