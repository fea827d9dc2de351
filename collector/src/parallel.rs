//! Work on threads that can be abandoned: a read under `/proc/PID` may hang for as long as the
//! process does, and must then cost only itself.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Runs `work` over `items` on `threads` threads; results in the order of the items.
///
/// `give_up` is asked every few milliseconds; once it says yes, what is not finished is `None`.
/// The thread that hangs in it is left behind with everything it owns.
pub(crate) fn each<T, R>(
    items: Vec<T>,
    threads: usize,
    work: impl Fn(T) -> R + Send + Sync + 'static,
    give_up: impl Fn() -> bool,
) -> Vec<Option<R>>
where
    T: Send + 'static,
    R: Send + 'static,
{
    let count = items.len();
    let mut results: Vec<Option<R>> = std::iter::repeat_with(|| None).take(count).collect();
    let queue = Arc::new(Mutex::new(items.into_iter().enumerate()));
    let work = Arc::new(work);
    let (sender, receiver) = mpsc::channel();
    for _ in 0..threads.min(count) {
        let (queue, work, sender) = (Arc::clone(&queue), Arc::clone(&work), sender.clone());
        let spawned = std::thread::Builder::new().name("worker".into()).spawn(move || {
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((index, item)) = next else { break };
                if sender.send((index, work(item))).is_err() {
                    break;
                }
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "a thread could not be started");
        }
    }
    drop(sender);
    let mut missing = count;
    while missing > 0 {
        match receiver.recv_timeout(Duration::from_millis(5)) {
            Ok((index, result)) => {
                if let Some(place) = results.get_mut(index) {
                    *place = Some(result);
                }
                missing -= 1;
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if missing > 0 && give_up() {
            // Nothing new is started; a worker that hangs keeps only its own item.
            queue.lock().unwrap_or_else(PoisonError::into_inner).by_ref().for_each(drop);
            break;
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn results_keep_their_order() {
        let doubled = each((0..100).collect(), 3, |n: u32| n * 2, || false);
        assert!(doubled.into_iter().flatten().eq((0..100).map(|n| n * 2)));
    }

    #[test]
    fn what_hangs_is_left_behind() {
        let begun = Instant::now();
        let work = |n: u32| {
            if n == 1 {
                std::thread::sleep(Duration::from_secs(60));
            }
            n
        };
        let results = each(vec![0, 1, 2], 2, work, || begun.elapsed() > Duration::from_millis(200));
        assert_eq!(results, [Some(0), None, Some(2)]);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
