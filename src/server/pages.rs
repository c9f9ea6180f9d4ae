//! Static pages beside the routes.

use bytes::Bytes;

use super::Builder;
use crate::http::page::StaticPage;

impl Builder {
    /// Serves `body` under exactly `path`, such as the page that opens the WebSocket.
    ///
    /// Answers GET and HEAD with `content_type` (such as `text/html; charset=utf-8`) and an `ETag`:
    /// a browser asks each time and gets the body once. All answers share the bytes of the body, so
    /// `include_str!` and `include_bytes!` cost no copy. A page needs no permit, and may be larger
    /// than `buffer_bytes`. The connection is closed if the client reads nothing of it for
    /// `timeout`.
    ///
    /// Meant for a few pages that belong to the program: no directories, no ranges, no compression.
    pub fn page(self, path: &str, content_type: &str, body: impl Into<Bytes>) -> Builder {
        self.page_with(path, content_type, &[], body)
    }

    /// Serves a [`page`](Builder::page) with headers of its own, such as a
    /// `Content-Security-Policy`, or `Access-Control-Allow-Origin` for pages of other servers.
    pub fn page_with(
        mut self,
        path: &str,
        content_type: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Builder {
        let page = StaticPage::new(path, content_type, body.into());
        self.pages.push(page.with_headers(headers));
        self
    }

    /// Serves a page as [`page_with`](Builder::page_with) does, on the admin listener. It needs no
    /// key, so nothing secret may be in it: what the page asks for shows one.
    pub fn admin_page_with(
        mut self,
        path: &str,
        content_type: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Builder {
        let page = StaticPage::new(path, content_type, body.into());
        self.admin.pages.push(page.with_headers(headers));
        self
    }
}
