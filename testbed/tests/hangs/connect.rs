//! A worker that waits for a TCP connection which is neither accepted nor refused.

use testbed::hang::silent::Port;
use testbed::hang::{self, script};
use testbed::kamailio::Instance;

use crate::answers;

#[test]
fn a_worker_that_waits_for_a_connection() {
    let instance = Instance::start(hang::options());
    let port = Port::full();
    let worker = script::connect(&instance, &port);
    let answers = answers::of("connect", &instance);

    let peer = port.address().to_string();
    answers
        .assert_first("blocked-on-io", &[answers::short(&worker.role), "tcpconn_connect", &peer]);
    let thread = answers.thread(&worker);
    thread.assert_in("tcpconn_connect");
    assert!(
        thread.state.starts_with("blocked in poll(") && thread.state.contains(&peer),
        "{thread:?}"
    );
    assert_eq!(answers.wait_count(), 0, "no lock is involved");
}
