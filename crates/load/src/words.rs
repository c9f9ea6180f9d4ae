//! Numbers and foreign text as people read them.

use std::time::Duration;

/// A span in the unit a reader would choose.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    if seconds >= 9.9995 {
        format!("{seconds:.1} s")
    } else if seconds >= 0.9995 {
        format!("{seconds:.2} s")
    } else if seconds >= 0.009_995 {
        format!("{:.0} ms", seconds * 1e3)
    } else {
        format!("{:.2} ms", seconds * 1e3)
    }
}

/// A rate as a reader takes it in.
pub(crate) fn per_second(rate: f64) -> String {
    if rate >= 100.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

/// A count and its noun, in the plural unless it is one.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// A count with its thousands apart.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Foreign text without what a terminal or a browser might obey; quotes stay as they are.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_come_in_a_fitting_unit() {
        let shown = |micros: u64| span(Duration::from_micros(micros));
        assert_eq!([shown(40), shown(9_994), shown(12_345)], ["0.04 ms", "9.99 ms", "12 ms"]);
        assert_eq!(
            [shown(999_400), shown(1_500_000), shown(61_000_000)],
            ["999 ms", "1.50 s", "61.0 s"]
        );
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([grouped(7), grouped(1234), grouped(1_000_000)], ["7", "1,234", "1,000,000"]);
        assert_eq!([0, 1, 2].map(|count| counted(count, "time")), ["0 times", "1 time", "2 times"]);
    }

    #[test]
    fn quotes_stay_and_commands_to_a_terminal_go() {
        assert_eq!(plain("{\"a\":'b'}\u{1b}[2J\n"), "{\"a\":'b'}\u{fffd}[2J\u{fffd}");
    }
}
