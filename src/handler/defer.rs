//! The verb of a [`Context`] that has something done on other threads.

use std::sync::{Arc, Weak};

use super::{context::Context, mode::OnWorker};
use crate::hub::{
    conn_id::ConnId,
    session::Session,
    task::{NotDeferred, Task, TaskAnswer},
};

/// The client that waits for a task, as the task sees it; see [`Context::waiter`]. Usable from any
/// thread.
#[derive(Debug)]
pub struct Waiter {
    session: Weak<Session>,
    conn: ConnId,
}

impl Waiter {
    /// Whether the client's connection has ended, so that nobody waits for the task any more.
    pub fn has_gone(&self) -> bool {
        self.session.upgrade().is_none_or(|session| session.conn() != Some(self.conn))
    }
}

impl<S: 'static> Context<'_, S, OnWorker> {
    /// Has `task`, which may block, done on a thread of the handler's
    /// [`task_threads`](crate::Handler::task_threads). What it returns comes to
    /// [`Handler::on_answer`](crate::Handler::on_answer).
    ///
    /// Until then this connection is not read, so its messages keep their order, and nobody else
    /// waits. Messages of rooms are delivered. If the connection ends first, the answer is dropped.
    /// A task that panics closes the connection with 1011. A server that is
    /// [stepped](crate::stepped) does the task at once, and gives the answer in the same turn or in
    /// the next.
    ///
    /// ```
    /// use rusty_socks::{Context, Handler, Message, TaskAnswer, TaskThreads};
    ///
    /// struct Prices;
    ///
    /// impl Handler for Prices {
    ///     type State = ();
    ///
    ///     fn task_threads(&self) -> Option<TaskThreads> {
    ///         Some(TaskThreads { threads: 4, queue_max: 100 })
    ///     }
    ///
    ///     fn on_message(&self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
    ///         let name = message.as_text().unwrap_or_default().to_owned();
    ///         if let Err(why) = ctx.defer(move || std::fs::read_to_string(name)) {
    ///             ctx.send(&why.to_string());
    ///         }
    ///     }
    ///
    ///     fn on_answer(&self, ctx: &mut Context<'_, ()>, answer: TaskAnswer) {
    ///         if let Ok(Ok(price)) = answer.downcast::<std::io::Result<String>>() {
    ///             ctx.send(&price);
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`NotDeferred::NoThreads`], [`NotDeferred::Full`], or [`NotDeferred::Pending`] if the
    /// connection waits for a task already. The task is not done then.
    pub fn defer<A: Send + 'static>(
        &mut self,
        task: impl FnOnce() -> A + Send + 'static,
    ) -> Result<(), NotDeferred> {
        self.defer_sized(0, task)
    }

    /// Like [`defer`](Context::defer), with a task that holds `bytes` on the heap. The server
    /// counts them as memory in use until the task is done.
    ///
    /// # Errors
    /// Those of [`defer`](Context::defer).
    pub fn defer_sized<A: Send + 'static>(
        &mut self,
        bytes: usize,
        task: impl FnOnce() -> A + Send + 'static,
    ) -> Result<(), NotDeferred> {
        let bytes = bytes.saturating_add(size_of_val(&task));
        self.conn.defer(Task { bytes, run: Box::new(|| TaskAnswer::new(task())) })
    }

    /// Returns what tells a [deferred](Context::defer) task whether its client still waits. A task
    /// that has waited long for its thread can be left undone for a client that has gone. It is
    /// about the client in its present session: call this after a
    /// [`resume`](Context::resume), not before.
    pub fn waiter(&self) -> Waiter {
        Waiter { session: Arc::downgrade(self.conn.session()), conn: self.conn.id() }
    }
}
