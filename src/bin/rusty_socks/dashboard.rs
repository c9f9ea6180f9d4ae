//! The dashboard of the admin listener: what an operator sees of a server, and does to it.
//!
//! The page is the same bytes for everybody and knows nothing. It asks for a key, and shows what
//! the server API gives to that key.

use rusty_socks::Builder;

const INDEX: &str = include_str!("dashboard/index.html");
const STYLE: &str = include_str!("dashboard/dashboard.css");
const SCRIPT: &str = include_str!("dashboard/dashboard.js");

/// What the page may do: load from and reach this server alone, run no script that is not one of
/// its files, and be shown in no frame. Names and contents of rooms are text to it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(&str, &str); 3] = [
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
];

/// Adds the dashboard to the admin listener of a server, if there is one.
pub(crate) fn add_to(builder: Builder) -> Builder {
    let index = INDEX.replace("VERSION", env!("CARGO_PKG_VERSION"));
    builder
        .admin_page_with("/dashboard", "text/html; charset=utf-8", &HEADERS, index)
        .admin_page_with("/dashboard.css", "text/css; charset=utf-8", &HEADERS, STYLE)
        .admin_page_with("/dashboard.js", "text/javascript; charset=utf-8", &HEADERS, SCRIPT)
}
