//! Commands of the chat, each of which the server answers with `ok`.

use std::ops::Range;

use anyhow::{Result, bail};

use crate::crowd::{Crowd, LOOK, Patience};

/// How many commands, and how many of them wait for their answer at once. The next ones are sent
/// when no more than `refill_at` do.
pub(crate) struct Commands {
    pub(crate) count: usize,
    pub(crate) window: usize,
    pub(crate) refill_at: usize,
}

impl Commands {
    /// Returns when all are answered. `send` sends those with these numbers. `on_message` gets
    /// whatever a link is sent, and says whether it is an answer.
    pub(crate) fn run(
        &self,
        crowd: &mut Crowd,
        mut send: impl FnMut(&mut Crowd, Range<usize>) -> Result<()>,
        mut on_message: impl FnMut(usize, &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let (mut sent, mut answered) = (0, 0);
        let mut patience = Patience::new();
        while answered < self.count {
            if sent - answered <= self.refill_at {
                let until = self.count.min(answered + self.window);
                send(crowd, sent..until)?;
                sent = until;
            }
            let bytes = crowd.turn(
                LOOK,
                |index, start| {
                    answered += usize::from(on_message(index, start)?);
                    Ok(())
                },
                |_, _, _| Ok(()),
            )?;
            patience.after(bytes > 0, || {
                format!("{answered} of {} commands were answered", self.count)
            })?;
        }
        Ok(())
    }
}

/// Whether this is the answer of a command; everything else is an error.
pub(crate) fn is_answer(_index: usize, start: &[u8]) -> Result<bool> {
    if !start.starts_with(br#"{"type":"ok""#) {
        bail!("this answers no command: {}", String::from_utf8_lossy(start));
    }
    Ok(true)
}
