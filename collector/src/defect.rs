//! Panics, which are defects of ours: kept in the trace, and in words where a result was expected.
//!
//! Nothing is written to the terminal when one happens. The group may stand still at that moment,
//! and a terminal that is stuck would hold it until the pause limit.

use std::any::Any;
use std::panic;

/// From now on panics go into the trace only.
pub(crate) fn keep_quiet() {
    panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a defect of the collector")));
}

/// What a panic said.
pub(crate) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.as_deref().unwrap_or("without words"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_panic_are_kept() {
        let said = |action: fn()| words(&*panic::catch_unwind(action).unwrap_err());
        assert_eq!(said(|| panic!("plain")), "it panicked: plain");
        assert_eq!(said(|| panic!("{} parts", 2)), "it panicked: 2 parts");
        assert_eq!(said(|| panic::panic_any(7)), "it panicked: without words");
    }
}
