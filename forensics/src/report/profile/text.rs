//! A profile for a person: which functions, and which threads burn CPU.

use std::io::{self, Write};

use super::Profile;
use super::costs::{FunctionCost, weight};
use crate::report::Tame;
use crate::units::{count, share};

/// A thread below this share of a CPU does not burn it.
const BURNS: f64 = 5.0;
/// Of one thread so many functions are shown.
const OF_THREAD: usize = 5;

impl Profile {
    /// The text, with so many functions.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn text(&self, top: usize, out: &mut dyn Write) -> io::Result<()> {
        let mut out = Tame(out);
        let all = weight(self.samples.iter());
        let threads = self.threads();
        writeln!(
            out,
            "{}: {} stacks of {} threads in {} snapshots",
            self.name,
            count(all),
            count(crate::num::wide(threads.len())),
            count(crate::num::wide(self.snapshots)),
        )?;
        if self.without_stack > 0 {
            let missing = count(crate::num::wide(self.without_stack));
            writeln!(out, "stacks that could not be read: {missing}")?;
        }
        writeln!(out, "\nFunctions, by the samples in which they were innermost")?;
        functions(&self.functions(), all, top, &mut out)?;
        let burning = threads.iter().filter_map(|thread| Some((thread, thread.cpu_percent?)));
        for (thread, percent) in burning.filter(|(_, percent)| *percent >= BURNS) {
            let (name, process) = (&thread.thread, &thread.process);
            writeln!(out, "\nThread {name} of {process}: {percent:.1} % of a CPU")?;
            functions(&thread.functions, thread.weight, OF_THREAD, &mut out)?;
        }
        Ok(())
    }
}

fn functions(costs: &[FunctionCost], all: u64, top: usize, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:>9} {:>8}  {:>9} {:>8}  function", "self", "", "total", "")?;
    for cost in costs.iter().take(top) {
        let (own, total) = (share(cost.own, all), share(cost.total, all));
        let (own_count, total_count) = (count(cost.own), count(cost.total));
        writeln!(out, "{own_count:>9} {own:>8}  {total_count:>9} {total:>8}  {}", cost.function)?;
    }
    match costs.len().saturating_sub(top) {
        0 => Ok(()),
        more => writeln!(out, "and {} more", count(crate::num::wide(more))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::profile;

    #[test]
    fn the_text_shows_functions_and_the_threads_that_burn() {
        let mut profile = profile();
        profile.samples[0].cpu_percent = Some(99.96);
        profile.samples[1].cpu_percent = Some(0.1);
        let mut out = Vec::new();
        profile.text(3, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "kamailio on proxy1: 5 stacks of 2 threads in 3 snapshots
stacks that could not be read: 1

Functions, by the samples in which they were innermost
     self               total           function
        3   60.0 %          3   60.0 %  spin
        2   40.0 %          2   40.0 %  recvfrom
        0    0.0 %          5  100.0 %  main
and 1 more

Thread 11 kamailio of 11 udp receiver: 100.0 % of a CPU
     self               total           function
        3  100.0 %          3  100.0 %  spin
        0    0.0 %          3  100.0 %  loop
        0    0.0 %          3  100.0 %  main
"
        );
    }
}
