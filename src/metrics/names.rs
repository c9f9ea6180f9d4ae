//! Numbers and names for the variants of an enum, for those who tell what a worker was doing.

/// Gives each variant of an enum a number, from 0 on, and its name: `number()` and `NAMES`. It does
/// not compile without all of them.
macro_rules! names {
    ($of:ident { $($variant:ident),+ $(,)? }) => {
        impl $of {
            /// The names of the variants, by their numbers.
            pub(crate) const NAMES: &[&str] = &[$(stringify!($variant)),+];

            /// Returns the place of its name in [`NAMES`](Self::NAMES).
            #[inline]
            pub(crate) fn number(&self) -> u8 {
                enum Number { $($variant),+ }
                let number = match self { $($of::$variant { .. } => Number::$variant),+ };
                number as u8
            }
        }
    };
}
pub(crate) use names;
