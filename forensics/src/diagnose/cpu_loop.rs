//! Threads that burn a whole CPU without asking the kernel for anything.

use super::waiting::{innermost, stands, thread_name};
use super::{Confidence, Finding, Rule, Severity, fact};
use crate::case::{Case, Doing};
use crate::threads::{PEGGED_PERCENT, SWITCHES_OF_FREEZE, ThreadView};

pub(super) struct CpuLoop;

/// Functions of its stack that are shown: which of them is the loop, the innermost ones do not say.
const SHOWN: usize = 16;
/// A loop spends no more of its time in the kernel; a busy worker receives and sends, which takes a
/// fifth at least.
const KERNEL_PERCENT: f64 = 5.0;

impl Rule for CpuLoop {
    fn id(&self) -> &'static str {
        "cpu-loop"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let threads = case.threads.iter().enumerate();
        threads.filter_map(|(index, thread)| self.finding(case, index, thread)).collect()
    }
}

impl CpuLoop {
    fn finding(&self, case: &Case, index: usize, thread: &ThreadView) -> Option<Finding> {
        if matches!(case.doing(index), Doing::SpinningOnLock { .. }) {
            return None;
        }
        let activity = thread.activity.as_ref()?;
        let (percent, kernel) = (activity.cpu.percent?, activity.cpu.system_percent?);
        // On a busy host it runs when it gets a CPU.
        let wanted = activity.cpu.wanted_percent()?;
        let sleeps = activity.switches?.voluntary > SWITCHES_OF_FREEZE;
        if wanted < PEGGED_PERCENT || kernel > KERNEL_PERCENT || sleeps {
            return None;
        }
        let name = thread_name(case, index);
        let at = stands(thread).unwrap_or_else(|| "code of no module".to_owned());
        Some(Finding {
            rule: self.id(),
            severity: Severity::Error,
            confidence: Confidence::Likely,
            summary: format!(
                "{name} burns {:.0} % of a CPU in {at} and never sleeps: it runs in a loop",
                percent
            ),
            facts: vec![
                fact(format!("its stack: {}", innermost(thread, SHOWN))),
                fact(format!(
                    "of its CPU time {kernel:.1} % of a CPU were in the kernel, and it gave up \
                     its CPU 0 times of its own accord"
                )),
            ],
            advice: "Several captures of its stack show where the loop is: collect-evidence \
                     --stacks-only --samples 20 --every 200ms, then forensics profile. A loop in \
                     the routing script stands in run_actions; one in a list that leads back to \
                     itself stands in one function, with the same pointers again and again."
                .to_owned(),
        })
    }
}
