//! Which connections of a run belong to which thread.

/// Whose turn it is among some of the connections of one thread.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    next: usize,
}

impl Turn {
    /// The next of `count` places that `takes` a message.
    pub(crate) fn next(
        &mut self,
        count: usize,
        takes: impl FnMut(&usize) -> bool,
    ) -> Option<usize> {
        let place = (0..count).map(|step| (self.next + step) % count).find(takes)?;
        self.next = (place + 1) % count;
        Some(place)
    }
}

/// The connections of one thread: every `threads`-th of the run, from `thread` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    pub(crate) thread: usize,
    pub(crate) threads: usize,
}

impl Share {
    /// How many of `total` things are this thread's.
    pub(crate) fn of(self, total: usize) -> usize {
        (total + self.threads - 1 - self.thread) / self.threads
    }

    /// The number in the whole run of a connection of this thread.
    pub(crate) fn number(self, index: usize) -> usize {
        index * self.threads + self.thread
    }

    /// How far this thread's times lie behind those of the first, in messages of its own.
    pub(crate) fn offset(self) -> f64 {
        self.thread as f64 / self.threads as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_is_somebodys() {
        for total in 0..20 {
            let mut numbers: Vec<usize> = (0..3)
                .map(|thread| Share { thread, threads: 3 })
                .flat_map(|share| (0..share.of(total)).map(move |index| share.number(index)))
                .collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..total).collect::<Vec<_>>());
        }
    }
}
