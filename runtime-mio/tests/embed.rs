//! The example does what it says, and starts no thread. (In a process of its own: tests beside it
//! would have theirs.)
#![cfg(target_os = "linux")]

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

#[path = "../examples/embed.rs"]
mod embed;

#[test]
fn an_ensemble_in_somebody_elses_loop() {
    let before = threads();
    let (stop, stopped) = channel::<()>();
    let watch = std::thread::spawn(move || {
        let mut most = 0;
        while stopped.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Timeout) {
            most = most.max(threads());
        }
        most
    });
    embed::main().expect("the example ends well");
    drop(stop);
    let most = watch.join().expect("it only counts");
    assert_eq!(most, before + 1, "the watching thread only");
}

/// Threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}
