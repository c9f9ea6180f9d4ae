//! The names of the letters, for who tells what a worker was doing.

use super::mailbox::Letter;
use crate::metrics::names;

names!(Letter {
    Deliver,
    DeliverMany,
    Broadcast,
    Send,
    Enter,
    Exit,
    Attach,
    Matched,
    Lost,
    Restarted,
    Close,
    Admitted,
    UpgradeAnswered,
    TaskAnswered,
    Posted,
    PostAnswered,
    EngineAnswered,
    Await,
    Resume,
    WakeAfter,
    JobsDone,
    PressureOff,
    SweepSoon,
    RecheckPermissions,
    Report,
    Drain,
    Stop,
});
