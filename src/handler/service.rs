//! A handler mounted under a path.

use std::sync::Arc;

use super::{
    callbacks::{Blocking, Handler, TaskThreads},
    erased::{DynHandler, Erased},
    mode::{MayBlock, OnWorker},
};

/// A handler that can be mounted under a path: a [`Handler`], or a [`Blocking`] one. Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be mounted on a worker",
    label = "not a `Handler` that runs on a worker",
    note = "a `Handler<MayBlock>` is mounted with `.blocking(threads, queue_max)`"
)]
pub trait IntoService: sealed::Sealed {
    #[doc(hidden)]
    fn into_service(self) -> Service;
}

/// A mounted handler. Made by [`IntoService`].
#[doc(hidden)]
pub struct Service {
    pub(crate) handler: Arc<dyn DynHandler>,
    /// Whether clients may come without a WebSocket.
    pub(crate) takes_event_streams: bool,
    /// Number of threads and bound of their queue, for a blocking handler.
    pub(crate) jobs: Option<(usize, usize)>,
    /// The threads for what a handler on workers defers.
    pub(crate) tasks: Option<TaskThreads>,
}

impl<H: Handler> IntoService for H {
    fn into_service(self) -> Service {
        let (tasks, takes_event_streams) = (self.task_threads(), self.takes_event_streams());
        let handler = Arc::new(Erased::<_, OnWorker>::new(self));
        Service { handler, takes_event_streams, jobs: None, tasks }
    }
}

impl<H: Handler<MayBlock>> IntoService for Blocking<H> {
    fn into_service(self) -> Service {
        let jobs = Some((self.threads, self.queue_max));
        let takes_event_streams = self.handler.takes_event_streams();
        let handler = Arc::new(Erased::<_, MayBlock>::new(self.handler));
        Service { handler, takes_event_streams, jobs, tasks: None }
    }
}

mod sealed {
    pub trait Sealed {}
}

impl<H: Handler> sealed::Sealed for H {}
impl<H: Handler<MayBlock>> sealed::Sealed for Blocking<H> {}
