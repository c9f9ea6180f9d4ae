//! A time in seconds.

use serde::{Deserialize, Serialize, Serializer};

/// A time in seconds, 0 or more. A whole number is formatted without a fraction.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd, Deserialize)]
#[serde(transparent)]
pub struct Seconds(pub f64);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        // Up to here an `f64` represents every whole number exactly.
        const WHOLE_MAX: f64 = (1_u64 << 53) as f64;
        if self.0.fract() == 0.0 && (0.0..=WHOLE_MAX).contains(&self.0) {
            output.serialize_u64(self.0 as u64)
        } else {
            output.serialize_f64(self.0)
        }
    }
}
