//! When a snapshot was taken, as the snapshot itself says it.
//!
//! A bundle's manifest has the time at which each process stood still, or, post mortem, at which its
//! core was written; a bundle that was cut has at least the time at which the collection began. A
//! core has none: `ELF` notes carry no clock, and
//! the time of the file is that of its last copy.

use jiff::Timestamp;
use serde::Serialize;

use super::Evidence;

/// When memory was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// By the clock of the host that was captured.
    pub at: Timestamp,
    /// What recorded it.
    pub source: MomentSource,
}

/// What recorded a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MomentSource {
    /// The manifest: when the last process of the group stood still. Nothing changed after it.
    Freeze,
    /// The manifest: when the system wrote the last core of a program that died.
    Dump,
    /// The header: when the collection began, shortly before the freeze.
    CollectionStart,
}

impl Evidence {
    /// When the snapshot was taken.
    ///
    /// # Errors
    /// Words for a person: why that is not recorded.
    pub fn moment(&self) -> Result<Moment, &'static str> {
        let processes = self.manifest.iter().flat_map(|manifest| &manifest.processes);
        let frozen = processes.clone().filter_map(|process| process.frozen_at.as_deref());
        let dumped = processes.filter_map(|process| process.dumped_at.as_deref());
        // The offset is in the text; the name of the zone behind it need not be known here.
        let time = |text: &str| text.parse::<Timestamp>().ok();
        if let Some(at) = frozen.filter_map(time).max() {
            return Ok(Moment { at, source: MomentSource::Freeze });
        }
        if let Some(at) = dumped.filter_map(time).max() {
            return Ok(Moment { at, source: MomentSource::Dump });
        }
        if self.header.as_ref().is_some_and(|header| !header.mode.is_live()) {
            return Err("the cores were copied before they were collected: their time is lost");
        }
        let began = self.header.as_ref().and_then(|header| time(&header.created));
        match began {
            Some(at) => Ok(Moment { at, source: MomentSource::CollectionStart }),
            None if self.is_bundle => Err("neither its manifest nor its header has a time"),
            None => Err("a core does not say when it was written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use bundle::{Manifest, ProcessRecord};

    use super::*;

    fn frozen(times: &[Option<&str>]) -> Evidence {
        let record = |time: &Option<&str>| ProcessRecord {
            frozen_at: time.map(str::to_owned),
            ..ProcessRecord::default()
        };
        let processes = times.iter().map(record).collect();
        let manifest = Manifest { processes, ..Manifest::default() };
        Evidence { manifest: Some(manifest), is_bundle: true, ..Evidence::default() }
    }

    #[test]
    fn the_last_process_to_stand_still_gives_the_time() {
        let evidence = frozen(&[
            Some("2026-01-02T03:04:05.25+01:00[Europe/Nowhere]"),
            None,
            Some("2026-01-02T03:04:05.75+01:00[Europe/Nowhere]"),
        ]);
        let moment = evidence.moment().unwrap();
        assert_eq!(moment.at.to_string(), "2026-01-02T02:04:05.75Z");
        assert_eq!(moment.source, MomentSource::Freeze);
    }

    #[test]
    fn a_program_that_died_was_read_when_its_core_was_written() {
        let mut evidence = frozen(&[None]);
        let processes = &mut evidence.manifest.as_mut().unwrap().processes;
        processes[0].dumped_at = Some("2026-01-02T03:04:05Z".to_owned());
        let moment = evidence.moment().unwrap();
        assert_eq!(moment.at.to_string(), "2026-01-02T03:04:05Z");
        assert_eq!(moment.source, MomentSource::Dump);
    }

    #[test]
    fn what_is_not_recorded_is_not_guessed() {
        assert!(frozen(&[None]).moment().is_err());
        assert!(frozen(&[Some("yesterday")]).moment().is_err());
        assert_eq!(Evidence::default().moment(), Err("a core does not say when it was written"));
    }
}
