//! A span of time as a person types it: `10`, `1.5`, `250ms`, `2m`.

use std::time::Duration;

/// The longest span taken: a load test of more than a day is a typing error.
const SPAN_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a number of seconds, or one with the unit `ms`, `s` or `m`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let (number, unit_seconds) = match text {
        _ if text.ends_with("ms") => (text.trim_end_matches("ms"), 0.001),
        _ if text.ends_with('s') => (text.trim_end_matches('s'), 1.0),
        _ if text.ends_with('m') => (text.trim_end_matches('m'), 60.0),
        _ => (text, 1.0),
    };
    number
        .trim()
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * unit_seconds).ok())
        .filter(|span| *span <= SPAN_MAX)
        .ok_or_else(|| {
            "allowed are seconds, or a number with ms, s or m, up to a day: 10, 1.5, 250ms, 2m"
                .to_owned()
        })
}

/// As [`parse`], for spans that make no sense when empty.
pub(crate) fn parse_positive(text: &str) -> Result<Duration, String> {
    parse(text).and_then(|span| {
        if span.is_zero() { Err("must be more than 0".to_owned()) } else { Ok(span) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_the_unit_when_none_is_named() {
        assert_eq!(parse("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn units_are_understood() {
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for text in ["", "-1", "soon", "10h", "NaN", "inf", "2d", "100000"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse_positive("0").is_err());
    }
}
