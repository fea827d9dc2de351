//! Targets of a size that nobody expects.

use std::time::Duration;

use crate::attempt::{Attempt, assert_untouched, start};

#[test]
fn ten_thousand_threads() {
    let target = start(&["threads", "9999"]);
    let attempt = Attempt::of(target.pid(), &[]);
    let process = &attempt.manifest.processes[0];
    assert_eq!((process.threads, process.unstopped.len()), (10_000, 0), "{:?}", attempt.finished);
    let pause = Duration::from_micros(process.pause_micros.unwrap());
    println!("10,000 threads: pause {pause:?}, in all {:?}", attempt.finished.elapsed);
    assert!(pause < Duration::from_secs(10), "{pause:?}");
    assert_untouched(target.pid(), 'S');
}

#[test]
fn sixty_thousand_mappings() {
    let target = start(&["mappings", "60000"]);
    let attempt = Attempt::of(target.pid(), &[]);
    assert_eq!(attempt.code(), Some(0), "{:?}", attempt.finished);
    let process = &attempt.manifest.processes[0];
    assert!(process.bytes["data"] >= 60_000 * 4096, "{process:?}");
    let pause = Duration::from_micros(process.pause_micros.unwrap());
    println!("60,000 mappings: pause {pause:?}, in all {:?}", attempt.finished.elapsed);
    assert!(pause < Duration::from_secs(10), "{pause:?}");
    assert_untouched(target.pid(), 'S');
}
