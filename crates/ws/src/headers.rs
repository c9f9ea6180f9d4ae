//! Header lines of a request or an answer, and the lists in them (RFC 9110, 5).

/// Header lines as parsed by `httparse`, borrowed from the head.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'b>(pub &'b [httparse::Header<'b>]);

impl<'b> Headers<'b> {
    /// Returns the name and the value of every line.
    pub(crate) fn lines(self) -> impl Iterator<Item = (&'b str, &'b str)> {
        self.0.iter().map(|line| (line.name, text(line.value)))
    }

    /// Returns every value of this name (in any case), trimmed; an empty text for a value that is
    /// not UTF-8.
    pub fn values(self, name: &str) -> impl DoubleEndedIterator<Item = &'b str> {
        let named = move |line: &&httparse::Header<'_>| line.name.eq_ignore_ascii_case(name);
        self.0.iter().filter(named).map(|line| text(line.value))
    }

    /// Returns the value of this name if it was given exactly once.
    pub fn sole_value(self, name: &str) -> Option<&'b str> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Returns the items of the comma-separated lists of this name (RFC 9110, 5.6.1), trimmed,
    /// without empty ones.
    pub fn items(self, name: &str) -> impl Iterator<Item = &'b str> {
        let items = self.values(name).flat_map(|value| value.split(','));
        items.map(trim).filter(|item| !item.is_empty())
    }

    /// Whether the lists of this name contain `token`, in any case.
    pub fn has_token(self, name: &str, token: &str) -> bool {
        self.items(name).any(|item| item.eq_ignore_ascii_case(token))
    }
}

/// Returns a header's value, trimmed; an empty text if it is not UTF-8.
fn text(value: &[u8]) -> &str {
    trim(std::str::from_utf8(value).unwrap_or_default())
}

/// Trims optional whitespace (RFC 9110, 5.6.3): spaces and tabs only.
pub fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Whether `text` is a token (RFC 9110, 5.6.2), as names of headers and of subprotocols are.
pub fn is_token(text: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_char)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_over_all_lines_of_a_name() {
        let line = |name, value| httparse::Header { name, value };
        let lines = [
            line("Connection", b"keep-alive, ,\tUPGRADE "),
            line("connection", b"x"),
            line("A", b" one "),
            line("B", b"\xff"),
        ];
        let headers = Headers(&lines);
        let items: Vec<&str> = headers.items("CONNECTION").collect();
        assert_eq!(items, ["keep-alive", "UPGRADE", "x"]);
        assert!(headers.has_token("Connection", "upgrade"));
        assert!(!headers.has_token("Connection", "grade"));
        assert_eq!(headers.sole_value("Connection"), None);
        assert_eq!((headers.sole_value("a"), headers.sole_value("b")), (Some("one"), Some("")));
    }

    #[test]
    fn a_token_is_no_more_than_a_word() {
        assert!(is_token("rusty-socks.v1") && is_token("a|b"));
        assert!(!is_token("") && !is_token("a b") && !is_token("a,b") && !is_token("\u{e4}"));
    }
}
