//! A text that must not be seen: keys and passwords.
//!
//! A key of kind `Secret` is set as any other by the file and by a variable, or read from a file
//! that `NAME_file` names: in the TOML file, as `RUSTY_SOCKS_NAME_FILE`, or as the flag
//! `--name-file`. There is no flag for the secret itself, because every user of the machine sees
//! the flags of a process. Whatever shows the settings shows `(set)`.

use std::{fmt, io::Read, path::Path};

use subtle::ConstantTimeEq;

use super::{open::Open, url_list::urls};

/// What is shown of a secret.
pub(super) const SHOWN: &str = "(set)";

/// The largest file that is read as a secret.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Returns an address as it may be shown: without what people write into addresses to be known by,
/// which is a name and a password before the host, and the query. In doubt more is left out.
pub(crate) fn shown_address(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, q)| (rest, Some(q)));
    // A password may have any of these characters, where somebody has not encoded it.
    let is_password = !rest.contains('/') && query.is_some_and(|query| query.contains('@'));
    let shown = match rest.rsplit_once('@') {
        _ if is_password => String::new(),
        Some((_, host)) => format!("…@{host}"),
        None => rest.to_owned(),
    };
    format!("{scheme}://{shown}{}", if query.is_some() { "?…" } else { "" })
}

/// Returns addresses of databases as they may be shown, each as [`shown_link`] does.
pub(super) fn shown_links(list: &str) -> String {
    urls(list).map(shown_link).collect::<Vec<_>>().join(",")
}

/// Returns an address of a database as it may be shown: without the user and the password before
/// the last `@`, and without the query. What does not look like an address is not shown at all,
/// because it may be a password alone.
fn shown_link(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return SHOWN.to_owned() };
    // A password may have any character, where somebody has not encoded it.
    let (user, place) = rest.rsplit_once('@').map_or(("", rest), |(_, place)| ("…@", place));
    let (place, query) = place.split_once('?').map_or((place, ""), |(place, _)| (place, "?…"));
    // `anna:hush` is no host with a port, but the half of an address.
    let hosts = place.split('/').next().unwrap_or_default();
    let has_port = |host: &str| match host.rsplit_once(':') {
        Some((_, port)) => port.contains(']') || port.bytes().all(|byte| byte.is_ascii_digit()),
        None => true,
    };
    match hosts.split(',').all(has_port) {
        true => format!("{scheme}://{user}{place}{query}"),
        false => format!("{scheme}://…"),
    }
}

/// A text that must not be seen, such as a key. Empty if it is not set.
///
/// [`Debug`](fmt::Debug) shows `(set)` or `(unset)`, never the text. Two secrets are compared in a
/// time that depends on their lengths alone.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// Whether no secret is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `text` is the secret, which must be set. Takes a time that depends on the lengths
    /// alone.
    pub fn is(&self, text: &str) -> bool {
        !self.is_empty() && bool::from(self.0.as_bytes().ct_eq(text.as_bytes()))
    }

    /// Returns the secret itself. Not for logs, answers or errors.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Reads a secret from a file. White space at its end does not count, because editors and
    /// `echo` leave a line end there.
    ///
    /// The error says what is wrong, without what the file holds.
    pub(super) fn read(path: &Path, open: Open) -> Result<Secret, String> {
        let shown = path.display();
        let cannot = |error| format!("cannot read the secret in \"{shown}\": {error}");
        let mut bytes = Vec::new();
        let file = open(path).map_err(cannot)?;
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("the secret in \"{shown}\" has more than {FILE_BYTES_MAX} bytes"));
        }
        let text = String::from_utf8(bytes);
        let text = text.map_err(|_| format!("the secret in \"{shown}\" must be valid UTF-8"))?;
        match text.trim_end() {
            "" => Err(format!("there is no secret in \"{shown}\": the file is empty")),
            text => Ok(Secret::new(text)),
        }
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "(unset)" } else { SHOWN })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::config::open::open;

    fn read(bytes: &[u8]) -> Result<Secret, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Secret::read(file.path(), open)
    }

    #[test]
    fn an_address_is_shown_without_what_it_is_known_by() {
        for (address, shown) in [
            ("https://h/hook?as=a@b&token=S", "https://h/hook?…"),
            ("http://anna:se/cret@h/a", "http://…@h/a"),
            ("http://anna:se?cret@h/a", "http://?…"),
            ("http://anna:p@w@h:1/a", "http://…@h:1/a"),
            ("https://h", "https://h"),
            ("a?b@c", "a?b@c"),
        ] {
            assert_eq!(shown_address(address), shown);
        }
    }

    #[test]
    fn a_database_is_shown_without_user_and_password() {
        for (address, shown) in [
            ("redis://h", "redis://h"),
            ("redis://h:6379/0", "redis://h:6379/0"),
            ("rediss://anna:hush@h:1/0", "rediss://…@h:1/0"),
            ("redis://:hu?s/h@h", "redis://…@h"),
            ("redis://u:hu/s?h@h", "redis://…@h"),
            ("redis://u:p@w@[::1]:1/2?hush", "redis://…@[::1]:1/2?…"),
            ("redis://[::1]", "redis://[::1]"),
            ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?…"),
            ("redis+sentinel://u:hush@a:1,b:2/main/0", "redis+sentinel://…@a:1,b:2/main/0"),
            ("redis://anna:hush", "redis://…"),
            ("anna:hush@h", "(set)"),
        ] {
            assert_eq!(shown_link(address), shown);
        }
        let list = "redis://:hu,sh@a,rediss+sentinel://u:hush@b:1,c/m,redis://d";
        assert_eq!(shown_links(list), "redis://…@a,rediss+sentinel://…@b:1,c/m,redis://d");
    }

    #[test]
    fn a_file_is_read_without_its_last_line_end() {
        assert_eq!(read(b"  a b\r\n\n").unwrap().reveal(), "  a b");
        for (bytes, told) in [
            (&b"\n"[..], "the file is empty"),
            (b"\xff", "must be valid UTF-8"),
            (&[b'x'; (64 << 10) + 1], "has more than 65536 bytes"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        assert!(
            Secret::read(Path::new("no/such"), open)
                .unwrap_err()
                .contains("cannot read the secret")
        );
    }

    #[test]
    fn a_secret_is_not_shown_and_an_empty_one_is_nobodys() {
        let secret = Secret::new("hush");
        assert_eq!(format!("{secret:?} {:?}", Secret::default()), "(set) (unset)");
        assert!(secret.is("hush") && !secret.is("hus") && !secret.is("hush!"));
        assert!(!Secret::default().is(""));
    }
}
