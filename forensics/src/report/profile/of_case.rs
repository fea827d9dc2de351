//! The stacks of a case as samples of a profile.

use super::{Profile, ProfileFrame, ProfileSample};
use crate::case::{Case, Member};
use crate::threads::{NamedFrame, ThreadView};

impl Profile {
    /// Adds the stacks of one snapshot; only of threads that were on a CPU, if so wanted: that were
    /// not stopped in a system call in which they waited.
    pub fn add(&mut self, case: &Case, only_on_cpu: bool) {
        if self.name.is_empty() {
            self.name = name(case);
        }
        self.snapshots = self.snapshots.saturating_add(1);
        for thread in case.threads.iter().filter(|thread| !only_on_cpu || is_on_cpu(thread)) {
            let Some(member) = case.members.get(thread.member) else { continue };
            if thread.frames.is_empty() {
                self.without_stack = self.without_stack.saturating_add(1);
                continue;
            }
            self.samples.push(sample(member, thread));
        }
    }
}

fn is_on_cpu(thread: &ThreadView) -> bool {
    let last = thread.activity.as_ref().and_then(|activity| activity.last());
    let asleep = last.is_some_and(|sample| matches!(sample.state, Some('D' | 'T' | 't' | 'Z')));
    thread.call.is_none() && !asleep
}

/// `kamailio on proxy1`
fn name(case: &Case) -> String {
    let first = case.members.first().map_or("?", program);
    match &case.evidence.header {
        Some(header) => format!("{first} on {}", header.host),
        None => first.to_owned(),
    }
}

fn program(member: &Member) -> &str {
    let notes = &member.process.core.notes;
    notes.process.as_ref().map_or("?", |process| process.name.as_str())
}

fn sample(member: &Member, thread: &ThreadView) -> ProfileSample {
    let pid = member.process.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    let role = member.role().unwrap_or_else(|| program(member));
    let thread_name = thread.name.as_deref().unwrap_or_default();
    ProfileSample {
        process: format!("{pid} {role}"),
        thread: format!("{} {thread_name}", thread.tid).trim_end().to_owned(),
        frames: thread.frames.iter().rev().flat_map(frames).collect(),
        weight: 1,
        cpu_percent: thread.activity.as_ref().and_then(|activity| activity.cpu.percent),
    }
}

/// The function and, behind it, those that were inlined into it.
fn frames(named: &NamedFrame) -> Vec<ProfileFrame> {
    if named.places.is_empty() {
        return vec![ProfileFrame { function: named.words(), ..ProfileFrame::default() }];
    }
    let frame = |place: &crate::symbols::CodePlace| ProfileFrame {
        function: place.function.clone().unwrap_or_else(|| named.words()),
        file: place.file.clone(),
        line: place.line,
    };
    named.places.iter().rev().map(frame).collect()
}
