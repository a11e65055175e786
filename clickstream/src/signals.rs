//! SIGINT and SIGTERM: the first asks for a drain, the second leaves at once.
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};

/// What a shell sees of a process that a second signal ended.
const AT_ONCE: i32 = 130;

/// A message for each first signal. A second one ends the process from the handler itself, so that
/// it works whatever the process is stuck in.
pub(crate) fn first_signal() -> io::Result<Receiver<i32>> {
    let armed = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Order matters: the handler that leaves runs first, and is armed by the first signal.
        signal_hook::flag::register_conditional_shutdown(signal, AT_ONCE, Arc::clone(&armed))?;
        signal_hook::flag::register(signal, Arc::clone(&armed))?;
    }
    let (send, receive) = bounded(1);
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let _ = send.try_send(signal);
        }
    })?;
    Ok(receive)
}
