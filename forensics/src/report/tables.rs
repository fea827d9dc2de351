//! What Kamailio's own tables hold, and what of it should have ended.

use std::io::{self, Write};

use serde::Serialize;

use crate::case::{Case, Pool};
use crate::gap::Gap;
use crate::kamailio::PoolKind;
use crate::kamailio::tables::{self, Held};
use crate::process::Process;
use crate::units::{count, duration};

/// The tables of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TablesReport {
    /// The tables that could be followed: of htable, usrloc, dialog and tm, in this order.
    pub held: Vec<Held>,
    /// Modules that are loaded and whose tables could not be followed, with the reason.
    pub gaps: Vec<Gap>,
}

impl TablesReport {
    /// Follows the tables of a case whose pools kept their used fragments.
    pub fn of(case: &Case) -> Self {
        let Some(shared) = case.pools.iter().find(|pool| pool.kind == PoolKind::Shm) else {
            return Self::default();
        };
        let Some(walked) = shared.walked() else { return Self::default() };
        let now = case.evidence.moment().ok().map(|moment| moment.at.as_second());
        let (held, gaps) = tables::read(&processes(case, shared), &walked.summary.used, now);
        Self { held, gaps }
    }

    /// As text, with an empty line behind; nothing where there are no tables.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.held.is_empty() && self.gaps.is_empty() {
            return Ok(());
        }
        writeln!(out, "Held past their end, in Kamailio's own tables")?;
        for held in &self.held {
            writeln!(out, "  {}", line(held))?;
        }
        for gap in &self.gaps {
            writeln!(out, "  {}: not counted: {}", gap.what, gap.why)?;
        }
        writeln!(out)
    }
}

/// The process through which the shared pool was read, before the others.
fn processes<'a>(case: &'a Case, shared: &Pool) -> Vec<&'a Process> {
    let others = case.members.iter().enumerate().filter(|(index, _)| *index != shared.member);
    let first = case.members.get(shared.member);
    first.into_iter().chain(others.map(|(_, member)| member)).map(|m| &m.process).collect()
}

/// `htable "calls": 20,000 entries in 256 slots; 17 past their end, the longest for 2 h 10 min`
fn line(held: &Held) -> String {
    let what = match held.module {
        "htable" => "entries",
        "usrloc" => "contacts",
        "dialog" => "dialogs",
        _ => "transactions",
    };
    let name = held.name.as_ref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
    let mut line = format!(
        "{}{name}: {} {what} in {} slots",
        held.module,
        count(held.entries),
        count(held.slots)
    );
    let states: Vec<String> =
        held.states.iter().map(|(state, number)| format!("{} {state}", count(*number))).collect();
    if !states.is_empty() {
        line.push_str(&format!(" ({})", states.join(", ")));
    }
    if let Some(oldest) = held.oldest_seconds {
        line.push_str(&format!("; the oldest {}", duration(oldest)));
    }
    match held.past_end {
        Some(past) if past.longest_seconds > 0 => line.push_str(&format!(
            "; {} past their end, the longest for {}",
            count(past.entries),
            duration(past.longest_seconds)
        )),
        Some(past) => line.push_str(&format!("; {} past their end", count(past.entries))),
        None => line.push_str("; whether any is past its end is not known: no clock in the input"),
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kamailio::tables::{PastEnd, TableLayout};

    fn held(past_end: Option<PastEnd>) -> Held {
        Held {
            module: "usrloc",
            name: Some("location".to_owned()),
            slots: 1024,
            entries: 4312,
            states: std::collections::BTreeMap::new(),
            past_end,
            oldest_seconds: Some(90),
            layout: TableLayout::Agreed { layout: "any", tried: 2 },
        }
    }

    #[test]
    fn a_table_is_one_line() {
        let past = PastEnd { entries: 17, longest_seconds: 7800 };
        assert_eq!(
            line(&held(Some(past))),
            "usrloc \"location\": 4,312 contacts in 1,024 slots; the oldest 1 min 30 s; 17 past \
             their end, the longest for 2 h 10 min"
        );
    }

    #[test]
    fn without_a_clock_nothing_is_said_to_be_past_its_end() {
        let line = line(&held(None));
        assert!(line.ends_with("is not known: no clock in the input"), "{line}");
    }
}
