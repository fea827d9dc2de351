//! What a failure leaves behind, so that it can be looked at, and had again, without the instance:
//! the sound core, and for each failed case the damaged one and what was planned for it.
//! `TEST_CORE=…/core` with the printed `TEST_SEED` makes the same damage again.

use std::path::{Path, PathBuf};

use testbed::patch::Patient;
use testbed::{seed, tools};

use crate::pool::Pool;
use crate::rows::Damage;

/// The variable that names the sound core of an earlier run.
pub(crate) const VARIABLE: &str = "TEST_CORE";

/// Failed cases of one run whose damaged cores are kept; each takes as much room as the core.
const CASES: usize = 8;

/// Where one run's failures are kept.
pub(crate) struct Keep {
    directory: PathBuf,
    cases: usize,
}

impl Keep {
    /// Takes no room until something fails. Runs do not overwrite each other's.
    pub(crate) fn new(manager: &str, number: u64) -> Self {
        let directory = tools::build_directory().join("damage-kept");
        Self { directory: directory.join(format!("{manager}-{number}")), cases: 0 }
    }

    /// Keeps the core as it is now, with this damage, of which the analysis says what is wrong.
    #[track_caller]
    pub(crate) fn case(&mut self, pool: &Pool<'_>, case: &str, damage: &Damage, wrong: &[String]) {
        self.cases += 1;
        if self.cases > CASES {
            return;
        }
        let directory = self.directory.join(case.replace([' ', ','], "-"));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::copy(pool.core.path(), directory.join("core")).unwrap();
        let lost: Vec<_> = damage.lost.iter().map(|index| &pool.fragments[*index]).collect();
        let plan = format!("{case}\n\n{damage:#x?}\n\nlost: {lost:#x?}\n\nwrong: {wrong:#?}\n");
        std::fs::write(directory.join("plan.txt"), plan).unwrap();
    }

    /// Keeps the sound core; how to have it all again. Nothing must be damaged any more.
    #[track_caller]
    pub(crate) fn how_to_repeat(&self, sound: &Patient, number: u64) -> String {
        let core = self.directory.join("core");
        std::fs::create_dir_all(&self.directory).unwrap();
        std::fs::copy(sound.path(), &core).unwrap();
        format!("{}={number} {VARIABLE}={}", seed::VARIABLE, core.display())
    }
}

/// A copy of the core that [`VARIABLE`] names, below `scratch`.
#[track_caller]
pub(crate) fn earlier_core(scratch: &Path) -> Option<Patient> {
    let named = std::env::var_os(VARIABLE)?;
    let core = scratch.join("core");
    std::fs::copy(named, &core).unwrap();
    Some(Patient::open(&core))
}
