//! How many samples each function was in.

use std::collections::{BTreeMap, BTreeSet};

use super::{Profile, ProfileSample};

/// A function's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionCost {
    /// The function.
    pub function: String,
    /// Weight of the samples in which it was the innermost.
    pub own: u64,
    /// Weight of the samples in which it was anywhere; once for each sample.
    pub total: u64,
}

/// The stacks of one thread.
#[derive(Clone, Debug, PartialEq)]
pub struct ThreadCost {
    /// Its process.
    pub process: String,
    /// The thread.
    pub thread: String,
    /// Weight of its samples.
    pub weight: u64,
    /// The mean of its CPU time, in percent of one CPU; `None` where none of its samples knows it.
    pub cpu_percent: Option<f64>,
    /// Its functions, those with the largest own weight first.
    pub functions: Vec<FunctionCost>,
}

impl Profile {
    /// The functions of all samples, those with the largest own weight first.
    pub fn functions(&self) -> Vec<FunctionCost> {
        functions(self.samples.iter())
    }

    /// Each thread by itself, those with most CPU time first.
    pub fn threads(&self) -> Vec<ThreadCost> {
        let mut threads: BTreeMap<(&str, &str), Vec<&ProfileSample>> = BTreeMap::new();
        for sample in &self.samples {
            threads.entry((&sample.process, &sample.thread)).or_default().push(sample);
        }
        let cost = |((process, thread), samples): ((&str, &str), Vec<&ProfileSample>)| ThreadCost {
            process: process.to_owned(),
            thread: thread.to_owned(),
            weight: weight(samples.iter().copied()),
            cpu_percent: mean(samples.iter().filter_map(|sample| sample.cpu_percent)),
            functions: functions(samples.iter().copied()),
        };
        let mut threads: Vec<ThreadCost> = threads.into_iter().map(cost).collect();
        let cpu = |thread: &ThreadCost| thread.cpu_percent.unwrap_or(-1.0);
        threads.sort_by(|one, other| cpu(other).total_cmp(&cpu(one)));
        threads
    }
}

/// Weight of some samples.
pub(super) fn weight<'a>(samples: impl Iterator<Item = &'a ProfileSample>) -> u64 {
    samples.map(|sample| sample.weight).fold(0, u64::saturating_add)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) =
        values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count.saturating_add(1)));
    (count > 0).then(|| sum / f64::from(count))
}

fn functions<'a>(samples: impl Iterator<Item = &'a ProfileSample>) -> Vec<FunctionCost> {
    let mut costs: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for sample in samples {
        // A recursive function is in a sample once.
        let names: BTreeSet<&str> = sample.frames.iter().map(|f| f.function.as_str()).collect();
        for name in names {
            let (_, total) = costs.entry(name).or_default();
            *total = total.saturating_add(sample.weight);
        }
        if let Some(innermost) = sample.frames.last() {
            let (own, _) = costs.entry(&innermost.function).or_default();
            *own = own.saturating_add(sample.weight);
        }
    }
    let cost = |(function, (own, total)): (&str, _)| FunctionCost {
        function: function.into(),
        own,
        total,
    };
    let mut costs: Vec<FunctionCost> = costs.into_iter().map(cost).collect();
    costs.sort_by_key(|cost| (std::cmp::Reverse((cost.own, cost.total)), cost.function.clone()));
    costs
}

#[cfg(test)]
mod tests {
    use super::super::tests::{profile, sample};
    use super::*;

    fn told(costs: &[FunctionCost]) -> Vec<(&str, u64, u64)> {
        costs.iter().map(|cost| (cost.function.as_str(), cost.own, cost.total)).collect()
    }

    #[test]
    fn a_recursive_function_counts_once_for_each_sample() {
        let costs = profile().functions();
        let expected = [("spin", 3, 3), ("recvfrom", 2, 2), ("main", 0, 5), ("loop", 0, 3)];
        assert_eq!(told(&costs), expected);
    }

    #[test]
    fn threads_stand_in_the_order_of_their_cpu_time() {
        let mut profile = profile();
        profile.samples[1].cpu_percent = Some(10.0);
        profile.samples[3].cpu_percent = Some(30.0);
        profile.samples.push(sample("13 timer", "13 kamailio", &[]));
        let threads = profile.threads();
        let told: Vec<_> = threads
            .iter()
            .map(|thread| (thread.thread.as_str(), thread.weight, thread.cpu_percent))
            .collect();
        let expected =
            [("12 kamailio", 2, Some(20.0)), ("11 kamailio", 3, None), ("13 kamailio", 1, None)];
        assert_eq!(told, expected);
        assert_eq!(self::told(&threads[0].functions), [("recvfrom", 2, 2), ("main", 0, 2)]);
    }
}
