//! The server that is asked.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime_core::Handle;
use smol::Timer;
use smol::future::or;
use zab_proto::Status;
use zk_service::Service;
use zk_service::look::Look;

/// How long an answer of the loop is waited for. It is a millisecond unless the loop stands still.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The server that is asked: it may end and another one take its place while the admin server goes on.
#[derive(Clone, Default)]
pub struct Source {
    handle: Arc<Mutex<Option<Handle<Service>>>>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl Source {
    /// From now on this server is asked; `None`: there is none at present.
    pub fn set(&self, handle: Option<Handle<Service>>) {
        *self.handle.lock().unwrap_or_else(PoisonError::into_inner) = handle;
    }

    fn handle(&self) -> Option<Handle<Service>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Role, phase and leader as last reported, without asking the loop.
    pub(crate) fn status(&self) -> Option<Status> {
        self.handle().and_then(|handle| handle.status().get())
    }

    /// Asks the server: one closure on its thread. `None` if there is no server, or it does not answer.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Look<'_, '_>) -> T + Send + 'static,
    ) -> Option<T> {
        self.run(move |service, core| question(&service.look(core))).await
    }

    /// Tells the server to do something. `None` as above.
    pub(crate) async fn tell<T: Send + 'static>(
        &self,
        order: impl FnOnce(&mut Service) -> T + Send + 'static,
    ) -> Option<T> {
        self.run(move |service, _| order(service)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Service, &mut zab_proto::Core<'_>) -> T + Send + 'static,
    ) -> Option<T> {
        let handle = self.handle()?;
        let (sender, answer) = smol::channel::bounded(1);
        handle.call(move |now, node| {
            // Nobody may wait for it any more.
            let _ = sender.try_send(node.with(now, act));
        });
        let given_up = async {
            Timer::after(ANSWER_TIMEOUT).await;
            None
        };
        or(async { answer.recv().await.ok() }, given_up).await
    }
}
