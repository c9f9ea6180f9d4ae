//! What a browser sees that opens the address of the server: what this is, a trial of it, and
//! snippets; and the JavaScript client as one file.
//!
//! The pages are the same bytes for everybody. They learn the server's address from their own, and
//! nothing of its settings stands in them.

use rusty_socks::Builder;

const INDEX: &str = include_str!("first_page/index.html");
const SCRIPT: &str = include_str!("first_page/page.js");
/// Made of `clients/js` by `build.rs`.
const CLIENT: &str = include_str!(concat!(env!("OUT_DIR"), "/client.js"));

/// What the page may do: load and reach this server, and be shown in no frame of a stranger.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; \
    img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Adds the pages to a server.
pub(crate) fn add_to(builder: Builder) -> Builder {
    const OWN: [(&str, &str); 3] = [
        ("Content-Security-Policy", POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
    ];
    /// Pages of other servers import the client too, and whether they may connect is another
    /// question.
    const FOR_ALL: [(&str, &str); 2] =
        [("Access-Control-Allow-Origin", "*"), ("X-Content-Type-Options", "nosniff")];
    const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

    builder
        .page_with("/", "text/html; charset=utf-8", &OWN, index())
        .page_with("/page.js", JAVASCRIPT, &OWN, SCRIPT)
        .page_with("/client.js", JAVASCRIPT, &FOR_ALL, CLIENT)
}

/// The page of this build: with its version, and its documents where the build knows an address.
fn index() -> String {
    let docs = match env!("CARGO_PKG_HOMEPAGE") {
        "" => String::new(),
        address => format!(" · <a href=\"{address}\">the documents</a>"),
    };
    INDEX.replace("VERSION", env!("CARGO_PKG_VERSION")).replace("<!--DOCS-->", &docs)
}
