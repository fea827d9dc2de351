//! Names as people write them in the source: C++ and Rust names demangled, cut where they are long.

use std::fmt::{self, Write};

use cpp_demangle::{DemangleOptions, Symbol};

/// Longest name, in characters.
const LONGEST: usize = 256;

/// Longest text that is demangled, in characters.
const LONGEST_DEMANGLED: usize = 4096;
/// Longest list of arguments of a template in a name that is too long, in characters.
const LONGEST_ARGUMENTS: usize = 24;

/// A linker's name for a person: C++ functions with their parameters, without the type that they
/// return; Rust functions without their hash. Names of other languages stay as they are, without
/// the version of the library (`memcpy@@GLIBC_2.14`).
pub(super) fn readable(name: &str) -> String {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let mut out = Bounded::default();
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        // What does not fit is cut; there is no other error.
        let _ = write!(out, "{rust:#}");
        return short(&out.text);
    }
    if is_cpp(name)
        && let Ok(symbol) = Symbol::new(name)
    {
        let options = DemangleOptions::new().no_return_type();
        let whole = symbol.structured_demangle(&mut out, &options);
        if whole.is_ok() || out.is_full {
            return short(&out.text);
        }
    }
    short(name)
}

/// Whether the linker's name is one of C++ (or old Rust).
pub(super) fn is_cpp(name: &str) -> bool {
    name.starts_with("_Z")
}

/// A name of at most 256 characters: where it is longer, without long arguments of templates, so
/// that the names of class and function stay, and cut only if it is still too long.
pub(super) fn short(name: &str) -> String {
    if name.chars().count() <= LONGEST {
        return name.to_owned();
    }
    let name = without_arguments(name);
    if name.chars().count() <= LONGEST {
        return name;
    }
    let start = name.chars().take(LONGEST.saturating_sub(1));
    start.chain(['…']).collect()
}

/// Writes `<…>` for long arguments of templates.
fn without_arguments(name: &str) -> String {
    let mut out = String::new();
    let mut rest = name;
    while let Some(at) = rest.find('<') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        // The brackets of `operator<`, `operator<<` and `operator<=` open nothing.
        if out.trim_end_matches('<').ends_with("operator") {
            out.push('<');
            rest = from.get(1..).unwrap_or_default();
            continue;
        }
        let length = arguments(from);
        let (inside, behind) = from.split_at_checked(length).unwrap_or((from, ""));
        match inside.chars().count() > LONGEST_ARGUMENTS {
            true => out.push_str("<…>"),
            false => out.push_str(inside),
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// Length of what stands between a bracket at the start and the one that closes it, both
/// included, in bytes; all of a text that was cut before that.
fn arguments(text: &str) -> usize {
    let mut open = 0_usize;
    let mut before = ' ';
    for (at, character) in text.char_indices() {
        match character {
            '<' => open = open.saturating_add(1),
            '>' if before != '-' => open = open.saturating_sub(1),
            _ => {}
        }
        if open == 0 {
            return at.saturating_add(1);
        }
        before = character;
    }
    text.len()
}

/// Takes so much text and refuses more, which ends a demangling that would never end.
#[derive(Debug, Default)]
struct Bounded {
    text: String,
    characters: usize,
    is_full: bool,
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.characters >= LONGEST_DEMANGLED {
                self.is_full = true;
                return Err(fmt::Error);
            }
            self.text.push(character);
            self.characters = self.characters.saturating_add(1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpp_names_have_parameters_but_no_returned_type() {
        assert_eq!(readable("_ZN2ns3fooIiEET_S1_"), "ns::foo<int>(int)");
        assert_eq!(readable("_ZN12_GLOBAL__N_16helperEi"), "(anonymous namespace)::helper(int)");
        assert_eq!(readable("_ZN4PoolD1Ev"), "Pool::~Pool()");
    }

    #[test]
    fn copies_that_the_compiler_made_keep_their_mark() {
        assert_eq!(readable("_Z3foov.cold"), "foo() [clone .cold]");
        assert_eq!(readable("update_tables.constprop.0"), "update_tables.constprop.0");
    }

    #[test]
    fn rust_names_lose_their_hash() {
        assert_eq!(readable("_ZN4core3fmt5write17h0123456789abcdefE"), "core::fmt::write");
        assert_eq!(readable("_RNvC6_123foo3bar"), "123foo::bar");
    }

    #[test]
    fn other_names_stay_as_they_are_without_a_version() {
        assert_eq!(readable("t_relay_to"), "t_relay_to");
        assert_eq!(readable("memcpy@@GLIBC_2.14"), "memcpy");
        assert_eq!(readable("_Zebra"), "_Zebra");
        assert_eq!(readable(""), "");
    }

    #[test]
    fn long_names_lose_the_arguments_of_templates_first() {
        let long = "std::pair<std::string, std::vector<int> >, ".repeat(9);
        let name = format!("std::_Rb_tree<{long}int>::_M_insert<int>(std::list<{long}int>&)");
        assert_eq!(short(&name), "std::_Rb_tree<…>::_M_insert<int>(std::list<…>&)");
        let name = format!("bool operator<< <{long}int>(Ring<int>)");
        assert_eq!(short(&name), "bool operator<< <…>(Ring<int>)");
        assert_eq!(short("f<g(-> int)>()"), "f<g(-> int)>()");
    }

    #[test]
    fn names_that_explode_are_cut() {
        // Each substitution doubles the one before it.
        let mut name = "_Z1fI1AIiiEE".to_owned();
        for step in 0..30 {
            let digit = char::from_digit(step, 36).unwrap().to_ascii_uppercase();
            name.push_str(&format!("1AIS{digit}_S{digit}_E"));
        }
        let found = readable(&name);
        assert!(found.chars().count() <= LONGEST, "{found}");
        assert!(readable(&"x".repeat(1000)).ends_with("xx…"));
        assert_eq!(readable(&"<".repeat(1000)), "<…>");
        assert_eq!(readable(&"x".repeat(1000)).chars().count(), LONGEST);
    }
}
