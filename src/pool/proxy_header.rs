//! The PROXY protocol: a header in front of everything else, in which a proxy says for whom it
//! speaks (haproxy.org/download/2.9/doc/proxy-protocol.txt, versions 1 and 2).

use std::net::SocketAddr;

use proxy_header::{Error, ParseConfig, ProxyHeader as Parsed};

use crate::http::proxies::of_network;

/// The longest header that is read. Version 1 has at most 107 bytes; what a proxy adds to version 2
/// (a certificate's name, an endpoint's id) takes a few hundred.
pub(super) const PROXY_HEADER_BYTES_MAX: usize = 4096;

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProxyHeader {
    /// A header that is not whole yet.
    Partial,
    /// A header of `len` bytes. There is no `source` if the proxy speaks for itself, as in a health
    /// check, or for a client without an IP address.
    Whole { len: usize, source: Option<SocketAddr> },
    /// No header, or one that is not legal or too long.
    Invalid,
}

/// How each version begins.
const BEGINNINGS: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];

/// Looks for a header at the beginning of `input`.
pub(super) fn read(input: &[u8]) -> ProxyHeader {
    let begins_as = |beginning: &&[u8]| {
        let len = beginning.len().min(input.len());
        input[..len] == beginning[..len]
    };
    if !BEGINNINGS.iter().any(begins_as) {
        return ProxyHeader::Invalid;
    }
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match Parsed::parse(input, config) {
        Ok((header, len)) if len <= PROXY_HEADER_BYTES_MAX => {
            let source = header.proxied_address().and_then(|proxied| of_network(proxied.source));
            ProxyHeader::Whole { len, source }
        }
        Err(Error::BufferTooShort) if input.len() < PROXY_HEADER_BYTES_MAX => ProxyHeader::Partial,
        Ok(_) | Err(_) => ProxyHeader::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(len: usize, source: Option<&str>) -> ProxyHeader {
        ProxyHeader::Whole { len, source: source.map(|source| source.parse().unwrap()) }
    }

    fn version_2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = BEGINNINGS[1].to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        header.extend(payload);
        header
    }

    /// Headers, and what they say.
    fn headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let v4 = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];
        let mut v6 = [0; 36];
        (v6[15], v6[33]) = (1, 9);
        let with_extras = [&v4[..], &[4, 0, 2, 0, 0]].concat();
        vec![
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n".to_vec(), Some("1.2.3.4:80")),
            (b"PROXY TCP6 2001:db8::1 ::1 80 443\r\n".to_vec(), Some("[2001:db8::1]:80")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY TCP4 0.0.0.0 5.6.7.8 80 443\r\n".to_vec(), None),
            (version_2(1, 0x11, &v4), Some("1.2.3.4:80")),
            (version_2(1, 0x21, &v6), Some("[::1]:9")),
            (version_2(1, 0x11, &with_extras), Some("1.2.3.4:80")),
            (version_2(1, 0x31, &[0; 216]), None),
            (version_2(0, 0x00, &[]), None),
            (version_2(0, 0x11, &v4), None),
        ]
    }

    #[test]
    fn a_header_is_read_however_it_comes() {
        for (header, source) in headers() {
            for end in 0..header.len() {
                assert_eq!(read(&header[..end]), ProxyHeader::Partial, "{end} of {header:?}");
            }
            let with_more = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            for input in [&header, &with_more] {
                assert_eq!(read(input), whole(header.len(), source), "{input:?}");
            }
        }
    }

    #[test]
    fn anything_else_is_refused_at_its_first_wrong_byte() {
        for wrong in [
            &b"G"[..],
            b"\x16\x03\x01",
            b"PROXI",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 80 99999\r\n",
            b"PROXY TCP4 ::1 ::1 80 443\r\n",
            b"PROXY SCTP 1.2.3.4 5.6.7.8 80 443\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
            &version_2(2, 0x11, &[0; 12]),
            &version_2(1, 0x41, &[0; 12]),
            &[&b"PROXY "[..], &[b' '; 200]].concat(),
        ] {
            let first = (0..=wrong.len()).find(|&end| read(&wrong[..end]) != ProxyHeader::Partial);
            let end = first.unwrap_or_else(|| panic!("{wrong:?} is waited for"));
            assert_eq!(read(&wrong[..end]), ProxyHeader::Invalid, "{wrong:?}");
        }
        // Too short for its addresses: what follows is not taken for them.
        let short = [version_2(1, 0x11, &[0; 11]), vec![0; 20]].concat();
        assert_eq!(read(&short), ProxyHeader::Invalid);
        let long = version_2(1, 0x11, &vec![0; PROXY_HEADER_BYTES_MAX]);
        assert_eq!(read(&long[..PROXY_HEADER_BYTES_MAX]), ProxyHeader::Invalid);
    }
}
