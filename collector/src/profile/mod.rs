//! What is asked of each kind of program, most volatile first.
//!
//! A profile is chosen by the executable's name, or with `--profile`. To add a source to it: one
//! entry in its list.

mod generic;
mod kamailio;
mod voipmonitor;

use crate::evidence::Source;

/// One kind of program.
#[derive(Clone, Copy)]
pub struct Profile {
    /// Its name, as in the bundle's header.
    pub name: &'static str,
    /// Its sources, in the order in which they are asked; those of an earlier phase come first.
    pub sources: &'static [&'static dyn Source],
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Every profile.
pub static ALL: &[&Profile] = &[&kamailio::PROFILE, &voipmonitor::PROFILE, &generic::PROFILE];

/// The profile of this name; the generic one for names that are none.
pub fn named(name: &str) -> &'static Profile {
    ALL.iter().find(|profile| profile.name == name).unwrap_or(&&generic::PROFILE)
}

/// The names of all sources of all profiles, each once.
pub fn source_names() -> Vec<&'static str> {
    let mut names = Vec::new();
    for source in ALL.iter().flat_map(|profile| profile.sources) {
        if !names.contains(&source.name()) {
            names.push(source.name());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::known;

    #[test]
    fn every_known_program_has_a_profile() {
        for known in known::KNOWN {
            assert_eq!(named(known.name).name, known.name);
        }
        assert_eq!(named(known::GENERIC).name, "generic");
        assert_eq!(named("no such program").name, "generic");
    }

    #[test]
    fn sources_of_a_profile_differ_in_name_and_stand_in_the_order_of_their_phases() {
        for profile in ALL {
            let names: BTreeSet<&str> = profile.sources.iter().map(|one| one.name()).collect();
            assert_eq!(names.len(), profile.sources.len(), "{}", profile.name);
            assert!(profile.sources.is_sorted_by_key(|source| source.phase()), "{}", profile.name);
        }
    }

    #[test]
    fn every_source_says_in_one_line_what_it_is_about() {
        for source in ALL.iter().flat_map(|profile| profile.sources) {
            let about = source.about();
            assert!(!about.is_empty() && about.len() < 80 && !about.contains('\n'), "{about:?}");
        }
    }
}
