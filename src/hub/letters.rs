//! The names of the letters, for who tells what a worker was doing.

use super::mailbox::Letter;

/// The names of the letters, by their [numbers](Letter::number).
pub(crate) const LETTERS: [&str; 22] = [
    "Deliver",
    "DeliverMany",
    "Broadcast",
    "Send",
    "Enter",
    "Exit",
    "Attach",
    "Matched",
    "Close",
    "Admitted",
    "UpgradeAnswered",
    "TaskAnswered",
    "Await",
    "Resume",
    "WakeAfter",
    "JobsDone",
    "PressureOff",
    "SweepSoon",
    "RecheckPermissions",
    "Report",
    "Drain",
    "Stop",
];

impl Letter {
    /// Returns the place of its name in [`LETTERS`].
    #[inline]
    pub(crate) fn number(&self) -> u8 {
        match self {
            Letter::Deliver { .. } => 0,
            Letter::DeliverMany { .. } => 1,
            Letter::Broadcast { .. } => 2,
            Letter::Send { .. } => 3,
            Letter::Enter { .. } => 4,
            Letter::Exit { .. } => 5,
            Letter::Attach { .. } => 6,
            Letter::Matched { .. } => 7,
            Letter::Close { .. } => 8,
            Letter::Admitted { .. } => 9,
            Letter::UpgradeAnswered { .. } => 10,
            Letter::TaskAnswered { .. } => 11,
            Letter::Await { .. } => 12,
            Letter::Resume { .. } => 13,
            Letter::WakeAfter { .. } => 14,
            Letter::JobsDone { .. } => 15,
            Letter::PressureOff => 16,
            Letter::SweepSoon => 17,
            Letter::RecheckPermissions => 18,
            Letter::Report { .. } => 19,
            Letter::Drain { .. } => 20,
            Letter::Stop => 21,
        }
    }
}
