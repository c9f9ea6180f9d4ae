//! Lenient parsing for clients: a missing or invalid field does not invalidate the frame.

use serde::{Deserialize, Deserializer, de::Error as _};

/// The highest number of a message. A frame with a higher one is refused, so that adding one never
/// overflows.
pub const SEQ_MAX: u64 = u64::MAX >> 1;

/// Parses the number of a message.
pub(crate) fn seq<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    let seq = u64::deserialize(input)?;
    let beyond = || D::Error::custom(format_args!("no message has the number {seq}"));
    (seq <= SEQ_MAX).then_some(seq).ok_or_else(beyond)
}

/// Parses the number of a message, if there is one.
pub(crate) fn some_seq<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    seq(input).map(Some)
}

/// Parses `null` as the default.
pub(crate) fn or_default<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(input).map(Option::unwrap_or_default)
}

/// Parses a limit. Anything but a number above 0 means no limit.
pub(crate) fn limit<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u32>, D::Error> {
    let said = Option::<f64>::deserialize(input)?;
    Ok(said.map(|limit| limit as u32).filter(|limit| *limit > 0))
}
