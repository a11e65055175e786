//! One thread for all connections of the process: they only wait.
use std::io;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Handle, Runtime};

static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// Started when it is first asked for; it lives as long as the process.
pub fn runtime() -> io::Result<Handle> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = &*runtime {
        return Ok(runtime.handle().clone());
    }
    let new = Builder::new_multi_thread().worker_threads(1).thread_name("remote").enable_all().build()?;
    let handle = new.handle().clone();
    *runtime = Some(new);
    Ok(handle)
}
