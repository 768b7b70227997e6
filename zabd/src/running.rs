//! The server that runs in this process, for those who outlive it: it may end and begin again.

use std::sync::{Arc, Mutex, PoisonError};

use runtime_core::Handle;
use zk_service::Service;

/// A place for the server's handle; empty while none serves.
#[derive(Clone, Default)]
pub(crate) struct Running(Arc<Mutex<Option<Handle<Service>>>>);

impl Running {
    pub(crate) fn set(&self, handle: Option<Handle<Service>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = handle;
    }

    pub(crate) fn get(&self) -> Option<Handle<Service>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
