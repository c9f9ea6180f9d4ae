//! What a run is expected to find: the `--expect-…` flags, by which a script decides.

use std::{fmt, ops::RangeInclusive, time::Duration};

/// Under which all of them stand in the help.
const HEADING: &str = "Expectations";

// What all modes know. Not a doc comment: it would become the help of whoever flattens it.
#[derive(Debug, clap::Args)]
pub(crate) struct Expect {
    /// So many connections are refused with an HTTP status, and that is no failure: 180, 1..,
    /// ..20 or 10..20. Without it a storm takes 503 and 429 as they come.
    #[arg(long, value_name = "RANGE", value_parser = CountRange::parse, help_heading = HEADING)]
    pub(crate) expect_refused: Option<CountRange>,

    /// So many connections are closed by the server early, and that is no failure.
    #[arg(long, value_name = "RANGE", value_parser = CountRange::parse, help_heading = HEADING)]
    pub(crate) expect_closed: Option<CountRange>,

    /// 99 % of what the mode measures (connecting, round trips, deliveries, answers to pings) took
    /// at most so many milliseconds.
    #[arg(long, value_name = "MS", value_parser = parse_millis, help_heading = HEADING)]
    pub(crate) expect_p99_ms: Option<Duration>,
}

// Where messages are measured.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ExpectMessages {
    /// So many messages or deliveries are lost, and that is no failure.
    #[arg(long, value_name = "RANGE", value_parser = CountRange::parse, help_heading = HEADING)]
    pub(crate) expect_lost: Option<CountRange>,

    /// At least so many round trips or deliveries a second.
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..),
        help_heading = HEADING
    )]
    pub(crate) expect_rate: Option<u64>,
}

/// How many of something there may be, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CountRange(RangeInclusive<u64>);

impl CountRange {
    /// Reads `N`, `MIN..MAX`, `MIN..` or `..MAX`.
    fn parse(text: &str) -> Result<CountRange, String> {
        const ALLOWED: &str = "allowed is N, MIN.., ..MAX or MIN..MAX, for example 180 or ..20";
        let end = |text: &str, default| match text {
            "" => Ok(default),
            _ => text.parse().map_err(|_| format!("'{text}' is no count; {ALLOWED}")),
        };
        let (min, max) = match text.split_once("..") {
            Some((min, max)) => (end(min, 0)?, end(max, u64::MAX)?),
            None if text.is_empty() => return Err(ALLOWED.to_owned()),
            None => (end(text, 0)?, end(text, 0)?),
        };
        if min > max {
            return Err(format!("{min} is more than {max}; {ALLOWED}"));
        }
        Ok(CountRange(min..=max))
    }

    pub(crate) fn contains(&self, count: u64) -> bool {
        self.0.contains(&count)
    }
}

impl fmt::Display for CountRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (*self.0.start(), *self.0.end()) {
            (min, max) if min == max => write!(f, "{min}"),
            (min, u64::MAX) => write!(f, "at least {min}"),
            (0, max) => write!(f, "at most {max}"),
            (min, max) => write!(f, "{min} to {max}"),
        }
    }
}

fn parse_millis(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(millis) if millis > 0.0 && millis <= 86_400_000.0 => {
            Ok(Duration::from_secs_f64(millis / 1e3))
        }
        _ => Err("allowed are milliseconds above 0, decimals too".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_includes_both_its_ends() {
        let range = |text| CountRange::parse(text).unwrap();
        for (text, inside, outside, shown) in [
            ("180", vec![180], vec![0, 179, 181], "180"),
            ("1..", vec![1, u64::MAX], vec![0], "at least 1"),
            ("..20", vec![0, 20], vec![21], "at most 20"),
            ("10..20", vec![10, 20], vec![9, 21], "10 to 20"),
        ] {
            assert!(inside.iter().all(|count| range(text).contains(*count)), "{text}");
            assert!(!outside.iter().any(|count| range(text).contains(*count)), "{text}");
            assert_eq!(range(text).to_string(), shown);
        }
        for text in ["", "x", "1..x", "20..10", "-1", "1.5"] {
            assert!(CountRange::parse(text).unwrap_err().contains("allowed is N"), "{text}");
        }
    }

    #[test]
    fn milliseconds_may_have_decimals() {
        assert_eq!(parse_millis("2.5"), Ok(Duration::from_micros(2500)));
        assert!(["0", "-1", "NaN", "inf", "x"].iter().all(|text| parse_millis(text).is_err()));
    }
}
