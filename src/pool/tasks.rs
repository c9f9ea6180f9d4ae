//! Threads for what handlers on workers defer: blocking calls whose answers come back by letter.
//!
//! The connection that waits for an answer is not read meanwhile, so its messages keep their order,
//! and no other connection waits.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use crossbeam_channel::{Receiver, Sender};

use super::bound::{Bound, BoundToken};
use crate::{
    error::Error,
    handler::TaskThreads,
    hub::{
        Hub,
        conn_id::ConnId,
        mailbox::Letter,
        task::{NotDeferred, Task},
    },
};

/// The threads for the tasks of one handler. Usable from any thread.
pub(crate) struct TaskPool {
    threads: usize,
    /// Tasks that no thread has begun.
    waiting: Arc<Bound>,
    work: (Sender<Work>, Receiver<Work>),
    /// Whether each task is done at once, by whoever defers it: a stepped server has no threads.
    runs_inline: bool,
}

enum Work {
    Do(TaskJob, BoundToken),
    Stop,
}

/// A task, and who waits for it.
pub(super) struct TaskJob {
    pub(super) task: Task,
    pub(super) conn: ConnId,
    pub(super) hub: Arc<Hub>,
}

impl TaskJob {
    /// Counts the task as memory in use, until it is done.
    fn count(&self) {
        self.hub.account.calls.add(self.task.bytes);
    }

    fn run(self) {
        let TaskJob { task: Task { bytes, run }, conn, hub } = self;
        let answer = catch_unwind(AssertUnwindSafe(run)).ok();
        hub.account.calls.subtract(bytes);
        hub.mailboxes.send_control(conn.worker(), Letter::TaskAnswered { conn, answer });
    }
}

impl TaskPool {
    /// A pool without threads yet; [`TaskPool::start`] brings them.
    pub(crate) fn new(TaskThreads { threads, queue_max }: TaskThreads) -> TaskPool {
        TaskPool {
            threads: threads.max(1),
            waiting: Bound::new(queue_max.max(1)),
            work: crossbeam_channel::unbounded(),
            runs_inline: false,
        }
    }

    /// A pool that does each task at once and needs no threads.
    pub(crate) fn inline() -> TaskPool {
        let pool = TaskPool::new(TaskThreads { threads: 1, queue_max: 1 });
        TaskPool { runs_inline: true, ..pool }
    }

    /// Starts the threads. Each holds `alive` until it ends.
    pub(crate) fn start(&self, alive: &Sender<()>) -> Result<(), Error> {
        for index in 0..self.threads {
            let (work, alive) = (self.work.1.clone(), alive.clone());
            let run = move || {
                while let Ok(Work::Do(job, token)) = work.recv() {
                    drop(token);
                    job.run();
                }
                drop(alive);
            };
            thread::Builder::new()
                .name(format!("rusty-socks-task-{index}"))
                .spawn(run)
                .map_err(|error| Error::io("cannot start a task thread", error))?;
        }
        Ok(())
    }

    /// Ends the threads once what was deferred before is done.
    pub(crate) fn stop(&self) {
        for _ in 0..self.threads {
            let _ = self.work.0.send(Work::Stop);
        }
    }

    /// Gives a task to the threads.
    pub(super) fn defer(&self, job: TaskJob) -> Result<(), NotDeferred> {
        if self.runs_inline {
            job.count();
            job.run();
            return Ok(());
        }
        let token = self.waiting.take().ok_or(NotDeferred::Full)?;
        job.count();
        // Fails never: the pool itself has a receiver.
        let _ = self.work.0.send(Work::Do(job, token));
        Ok(())
    }

    /// Tasks that wait for the threads now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.used()
    }
}
