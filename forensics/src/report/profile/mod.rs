//! A profile: stacks of the same threads at several moments, each with a weight.
//!
//! [`Profile::add`] takes the stacks of a case in; [`Profile::folded`] and [`Profile::speedscope`] write
//! it for other programs, [`Profile::text`] for a person. The order is that of the samples and of
//! names, so that the same samples give the same bytes.

mod costs;
mod folded;
mod of_case;
mod speedscope;
mod text;

pub use costs::{FunctionCost, ThreadCost};

/// Stacks at several moments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// What was sampled, for a person: the program and its host.
    pub name: String,
    /// How many snapshots were taken.
    pub snapshots: usize,
    /// The stacks, in the order of time.
    pub samples: Vec<ProfileSample>,
    /// How often a thread had no stack that could be read.
    pub without_stack: usize,
}

/// One stack of one thread.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProfileSample {
    /// Which process, for instance `kamailio 4711 (udp receiver)`.
    pub process: String,
    /// Which of its threads, for instance `4711 kamailio`.
    pub thread: String,
    /// Its frames, outermost first.
    pub frames: Vec<ProfileFrame>,
    /// How much it counts: 1 for each moment.
    pub weight: u64,
    /// CPU time of the thread around that moment, in percent of one CPU.
    pub cpu_percent: Option<f64>,
}

/// One frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProfileFrame {
    /// The function, or what is known instead of its name.
    pub function: String,
    /// Its source file.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Functions by name, outermost first.
    pub(super) fn sample(process: &str, thread: &str, functions: &[&str]) -> ProfileSample {
        let frame =
            |name: &&str| ProfileFrame { function: (*name).to_owned(), ..ProfileFrame::default() };
        ProfileSample {
            process: process.to_owned(),
            thread: thread.to_owned(),
            frames: functions.iter().map(frame).collect(),
            weight: 1,
            cpu_percent: None,
        }
    }

    /// Three snapshots of a worker that spins and of one that receives.
    pub(super) fn profile() -> Profile {
        Profile {
            name: "kamailio on proxy1".into(),
            snapshots: 3,
            without_stack: 1,
            samples: vec![
                sample("11 udp receiver", "11 kamailio", &["main", "loop", "spin"]),
                sample("12 udp receiver", "12 kamailio", &["main", "recvfrom"]),
                sample("11 udp receiver", "11 kamailio", &["main", "loop", "spin", "spin"]),
                sample("12 udp receiver", "12 kamailio", &["main", "recvfrom"]),
                sample("11 udp receiver", "11 kamailio", &["main", "loop", "spin"]),
            ],
        }
    }
}
