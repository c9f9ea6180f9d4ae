//! The JSON that every client can read: that of RFC 7493 (I-JSON), and not nested too deep.
//!
//! The parser has checked the grammar (RFC 8259) before. Beyond it, common
//! parsers disagree: `serde_json` reads neither half of a surrogate pair nor `1e400`, Python reads
//! no integer of 5,000 digits, and both end at a nesting that JavaScript takes. A message that one
//! member cannot read must be refused before it is in everybody's room and history.

use super::fault::Fault;

/// How deep a content may be nested: lists and objects within each other.
///
/// `serde_json` reads 127 levels and is the first of the common parsers to end. An answer to
/// `resume` puts content five levels deep, and two are to spare.
pub(super) const DEPTH_MAX: usize = 120;

/// Digits of the longest integer that a double can hold; a number without exponent and with no more
/// of them is in range.
const DIGITS_MAX: usize = 308;

/// The part of a value that some clients cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Lists and objects are nested deeper than [`DEPTH_MAX`].
    Depth,
    /// A string has half of a surrogate pair (RFC 7493 section 2.1).
    Surrogate,
    /// A number is beyond what a double can hold (RFC 7493 section 2.2).
    Number,
}

impl Unreadable {
    /// The refusal of `field`, which says what is allowed.
    pub(super) fn fault(self, field: &str) -> Fault {
        Fault::bad_request(match self {
            Unreadable::Depth => format!("{field} is nested at most {DEPTH_MAX} deep"),
            Unreadable::Surrogate => format!("{field} must not hold half of a surrogate pair"),
            Unreadable::Number => {
                format!("{field} must not hold a number beyond 1.7976931348623157e308")
            }
        })
    }
}

/// Checks a value that is JSON by its grammar. Needs no stack, and one pass of single bytes only
/// where a screening pass has found something to look at.
pub(super) fn check(json: &str) -> Result<(), Unreadable> {
    let bytes = json.as_bytes();
    match bytes.first() {
        Some(b'"') if bytes.contains(&b'\\') => check_string(bytes).map(drop),
        Some(b'[' | b'{') if is_suspect(bytes) => check_nested(json),
        Some(b'-' | b'0'..=b'9') => check_number(json),
        _ => Ok(()),
    }
}

/// Bytes that the first pass looks at together.
const LANES: usize = 16;

/// Whether a list or an object may contain something unreadable. The passes have no branches, so
/// that they run many bytes at a time.
fn is_suspect(bytes: &[u8]) -> bool {
    // A shorter one is looked at byte by byte at once.
    let Some(last) = bytes.last_chunk() else { return true };
    let mut has_found = has_escape_or_exponent(last);
    let mut rest = bytes;
    while let Some(chunk) = rest.first_chunk() {
        has_found |= has_escape_or_exponent(chunk);
        rest = &rest[LANES..];
    }
    // `[` and `{` differ in one bit.
    let opens = || count(bytes, |byte| byte & 0xdf == b'[');
    let digits = || count(bytes, |byte| byte.is_ascii_digit());
    has_found || bytes.len() > 2 * DEPTH_MAX && (opens() > DEPTH_MAX || digits() > DIGITS_MAX)
}

/// Whether a chunk has a backslash, or a digit with the `e` of an exponent behind it; the last byte
/// is only looked at for that letter.
#[inline]
fn has_escape_or_exponent(chunk: &[u8; LANES + 1]) -> bool {
    let pairs = (0..LANES).map(|at| (chunk[at], chunk[at + 1]));
    pairs.fold(false, |found, (byte, next)| {
        let is_exponent = byte.is_ascii_digit() & (next | 0x20 == b'e');
        found | is_exponent | (byte == b'\\')
    })
}

fn count(bytes: &[u8], is_it: impl Fn(u8) -> bool) -> usize {
    let of_chunk = |chunk: &[u8]| {
        let found = chunk.iter().fold(0u8, |sum, byte| sum + u8::from(is_it(*byte)));
        usize::from(found)
    };
    bytes.chunks(usize::from(u8::MAX)).map(of_chunk).sum()
}

fn check_nested(json: &str) -> Result<(), Unreadable> {
    let bytes = json.as_bytes();
    let (mut at, mut depth) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at += check_string(&bytes[at..])?,
            b'-' | b'0'..=b'9' => {
                let is_part =
                    |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                let end = bytes[at..].iter().position(|byte| !is_part(byte));
                let end = end.map_or(bytes.len(), |length| at + length);
                check_number(&json[at..end])?;
                at = end;
            }
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(Unreadable::Depth);
                }
                at += 1;
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

/// Checks the string that `bytes` begins with, and returns its length, quotes included.
fn check_string(bytes: &[u8]) -> Result<usize, Unreadable> {
    let mut at = 1;
    loop {
        match bytes.get(at) {
            None => return Ok(bytes.len()),
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => match escaped(bytes, at) {
                Some(0xdc00..=0xdfff) => return Err(Unreadable::Surrogate),
                Some(0xd800..=0xdbff) => match escaped(bytes, at + 6) {
                    Some(0xdc00..=0xdfff) => at += 12,
                    _ => return Err(Unreadable::Surrogate),
                },
                Some(_) => at += 6,
                None => at += 2,
            },
            Some(_) => at += 1,
        }
    }
}

/// The unit of UTF-16 that is escaped at `at`, if one is.
fn escaped(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn check_number(number: &str) -> Result<(), Unreadable> {
    let may_exceed = number.len() > DIGITS_MAX || number.contains(['e', 'E']);
    match may_exceed && !number.parse::<f64>().is_ok_and(f64::is_finite) {
        true => Err(Unreadable::Number),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everyone_reads_passes_and_nothing_else_does() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        let wide = format!("[{}]", ["[]"; 500].join(","));
        let quoted = format!("[\"{}\"]", "[{".repeat(1000));
        for fine in [
            "null",
            "\"\"",
            "\"e\\\\ud800\"",
            "\"\\ud83d\\ude00\"",
            "[\"\\uD83D\\uDE00\"]",
            "-0.0",
            "1e308",
            "-1.7976931348623157e308",
            "1e-400",
            "[0.1e2, 3e4]",
            "{\"1e999\":\"1e999\"}",
            "[\"\\\"\", 1]",
            &"9".repeat(308),
            &format!("[{}]", "9".repeat(308)),
            &format!("0.{}", "1".repeat(5000)),
            &nested(DEPTH_MAX),
            &objects(DEPTH_MAX),
            &wide,
            &quoted,
        ] {
            assert_eq!(check(fine), Ok(()), "{fine}");
            serde_json::from_str::<serde_json::Value>(fine).expect(fine);
        }
        for (not, why) in [
            ("\"\\ud800\"", Unreadable::Surrogate),
            ("\"\\udfff\"", Unreadable::Surrogate),
            ("\"\\udc00\\ud800\"", Unreadable::Surrogate),
            ("\"\\ud800x\"", Unreadable::Surrogate),
            ("\"\\ud800\\n\"", Unreadable::Surrogate),
            ("\"\\\\\\uD800\"", Unreadable::Surrogate),
            ("{\"\\ud800\":1}", Unreadable::Surrogate),
            ("1e309", Unreadable::Number),
            ("-1E+400", Unreadable::Number),
            ("[1,{\"a\":1e400}]", Unreadable::Number),
            (&"9".repeat(310), Unreadable::Number),
            (&format!("[{}]", "9".repeat(5000)), Unreadable::Number),
            (&nested(DEPTH_MAX + 1), Unreadable::Depth),
            (&objects(DEPTH_MAX + 1), Unreadable::Depth),
            (&nested(30_000), Unreadable::Depth),
        ] {
            assert_eq!(check(not), Err(why), "{not}");
        }
    }

    #[test]
    fn it_is_found_wherever_it_stands() {
        for before in 0..40 {
            for after in 0..40 {
                let (before, after) = ("x".repeat(before), "x".repeat(after));
                let around = |middle: &str| check(&format!("[\"{before}\",{middle},\"{after}\"]"));
                assert_eq!(around("1"), Ok(()));
                assert_eq!(around("1E999"), Err(Unreadable::Number), "{before} {after}");
                assert_eq!(around("\"\\ud800\""), Err(Unreadable::Surrogate), "{before} {after}");
            }
        }
    }
}
