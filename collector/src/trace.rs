//! The collector's own trace, kept in memory until it goes into the bundle: a log line must never
//! wait for a disk or a terminal while the group stands still.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// JSON lines that were traced so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Arc<Mutex<Vec<u8>>>);

impl Trace {
    /// Takes over the program's tracing. Where another subscriber is installed (in tests), the
    /// trace stays empty.
    pub(crate) fn install() -> Self {
        let trace = Self::default();
        let writer = trace.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(move || writer.clone())
            .finish();
        if tracing::subscriber::set_global_default(subscriber).is_err() {
            tracing::debug!("another subscriber takes the trace");
        }
        trace
    }

    /// Forgets the lines so far.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The lines so far.
    pub(crate) fn lines(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
