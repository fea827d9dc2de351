//! A worker that runs in circles.

use testbed::hang::{self, script};
use testbed::kamailio::Instance;

use crate::answers;

#[test]
fn a_worker_that_runs_in_circles() {
    let instance = Instance::start(hang::options());
    let worker = script::run_in_circles(&instance);
    let answers = answers::of("loop", &instance);

    answers.assert_first("cpu-loop", &[answers::short(&worker.role), "run_actions"]);
    let thread = answers.thread(&worker);
    thread.assert_in("run_actions");
    assert!(thread.state.starts_with("running"), "{thread:?}");
    assert!(thread.cpu_percent.unwrap() > 5.0, "{thread:?}");
    assert_eq!(answers.wait_count(), 0, "no lock is involved");
}
