//! What owners hold, by name.

use std::collections::BTreeMap;

use serde::Serialize;

use super::selection::SortKey;
use crate::addr::Addr;
use crate::case::Walked;
use crate::kamailio::OwnerName;
use crate::leak::OwnerTotals;
use crate::num::ratio;

/// One owner.
#[derive(Clone, Debug, Serialize)]
pub struct OwnerReport {
    /// Who; null where a text could not be read.
    #[serde(flatten)]
    pub name: OwnerName,
    /// Address of the file's text, to tell owners apart whose names are not known.
    pub file_address: Addr,
    /// Used fragments.
    pub fragments: u64,
    /// Their payload, in bytes.
    pub bytes: u64,
    /// Share of the used payload of the pool, 0 to 1.
    pub share: f64,
    /// Smallest payload, in bytes.
    pub smallest: u64,
    /// Largest payload, in bytes.
    pub largest: u64,
    /// Of `fragments`: inherited from the main process at fork.
    pub inherited_fragments: u64,
    /// Of `bytes`: inherited from the main process at fork.
    pub inherited_bytes: u64,
    /// Of `fragments`: not inherited.
    pub own_fragments: u64,
    /// Of `bytes`: not inherited.
    pub own_bytes: u64,
    /// Share of `own_bytes` in the used payload of the pool, 0 to 1.
    pub own_share: f64,
}

/// Owners by name: one place in the source can stand behind several pointers (a function inlined
/// into two modules, a header's text in each of them).
pub(super) fn owners(walked: &Walked) -> Vec<OwnerReport> {
    let mut merged: BTreeMap<(&OwnerName, Option<Addr>), OwnerReport> = BTreeMap::new();
    for (totals, name) in walked.summary.owners.iter().zip(&walked.names) {
        let known = name.file.is_some() && name.function.is_some();
        let key = (name, (!known).then_some(totals.owner.file));
        match merged.get_mut(&key) {
            Some(report) => merge(report, totals),
            None => {
                merged.insert(key, owner_report(totals, name));
            }
        }
    }
    let mut reports: Vec<OwnerReport> = merged.into_values().collect();
    for report in &mut reports {
        report.own_fragments = report.fragments.saturating_sub(report.inherited_fragments);
        report.own_bytes = report.bytes.saturating_sub(report.inherited_bytes);
        report.share = ratio(report.bytes, walked.summary.used_bytes);
        report.own_share = ratio(report.own_bytes, walked.summary.used_bytes);
    }
    reports
}

fn owner_report(totals: &OwnerTotals, name: &OwnerName) -> OwnerReport {
    OwnerReport {
        name: name.clone(),
        file_address: totals.owner.file,
        fragments: totals.fragments,
        bytes: totals.bytes,
        share: 0.0,
        smallest: totals.smallest,
        largest: totals.largest,
        inherited_fragments: totals.inherited_fragments,
        inherited_bytes: totals.inherited_bytes,
        own_fragments: 0,
        own_bytes: 0,
        own_share: 0.0,
    }
}

fn merge(report: &mut OwnerReport, totals: &OwnerTotals) {
    report.fragments = report.fragments.saturating_add(totals.fragments);
    report.bytes = report.bytes.saturating_add(totals.bytes);
    report.smallest = report.smallest.min(totals.smallest);
    report.largest = report.largest.max(totals.largest);
    report.inherited_fragments =
        report.inherited_fragments.saturating_add(totals.inherited_fragments);
    report.inherited_bytes = report.inherited_bytes.saturating_add(totals.inherited_bytes);
}

pub(super) fn sort(owners: &mut [OwnerReport], key: SortKey) {
    owners.sort_by(|one, other| {
        let by_name = || one.name.cmp(&other.name);
        match key {
            SortKey::Bytes => {
                (other.own_bytes, other.bytes).cmp(&(one.own_bytes, one.bytes)).then_with(by_name)
            }
            SortKey::Count => (other.own_fragments, other.fragments)
                .cmp(&(one.own_fragments, one.fragments))
                .then_with(by_name),
            SortKey::Largest => other.largest.cmp(&one.largest).then_with(by_name),
            SortKey::Owner => by_name(),
        }
    });
}
