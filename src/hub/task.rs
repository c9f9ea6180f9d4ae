//! Tasks that a handler on a worker has done elsewhere, and their answers.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// What is to be done on another thread.
pub(crate) struct Task {
    /// Estimated bytes that it takes while it waits.
    pub(crate) bytes: usize,
    pub(crate) run: Box<dyn FnOnce() -> TaskAnswer + Send>,
}

/// The answer of a task that was [deferred](crate::Context::defer).
pub struct TaskAnswer(Box<dyn Any + Send>);

impl TaskAnswer {
    pub(crate) fn new<A: Send + 'static>(answer: A) -> TaskAnswer {
        TaskAnswer(Box::new(answer))
    }

    /// Returns the answer if the task returned an `A`, else the same `TaskAnswer`.
    ///
    /// # Errors
    /// The task returned something of another type.
    pub fn downcast<A: 'static>(self) -> Result<A, TaskAnswer> {
        self.0.downcast().map(|answer| *answer).map_err(TaskAnswer)
    }

    /// Drops an answer that nobody waits for any more. The drop is the embedder's code, and may
    /// panic.
    pub(crate) fn discard(self) {
        if catch_unwind(AssertUnwindSafe(|| drop(self))).is_err() {
            log::error!("the drop of a task's answer panicked");
        }
    }
}

impl fmt::Debug for TaskAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskAnswer").finish_non_exhaustive()
    }
}

/// The reason why a task was not [deferred](crate::Context::defer).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotDeferred {
    /// The handler asks for no [threads](crate::Handler::task_threads).
    NoThreads,
    /// As many tasks wait for these threads as may.
    Full,
    /// The connection already waits for a task.
    Pending,
}

impl fmt::Display for NotDeferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotDeferred::NoThreads => "the handler has no threads for tasks",
            NotDeferred::Full => "too many tasks wait",
            NotDeferred::Pending => "the connection already waits for a task",
        })
    }
}

impl std::error::Error for NotDeferred {}
