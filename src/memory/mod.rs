//! How much memory the server may use, and how much it uses: one account of everything that clients
//! can make it hold, and one ceiling.

pub(crate) mod available;
pub(crate) mod resident;
pub(crate) mod tally;
pub(crate) mod account;
