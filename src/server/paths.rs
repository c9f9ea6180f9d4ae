//! Whether routes and pages may be where they are to be.

use crate::{
    error::{Error, ErrorKind},
    http::{
        page::StaticPage,
        router::{RESERVED_ADMIN_PATHS, RESERVED_PATHS},
    },
    pool::shared::Route,
};

/// Fails if a path of the main port is not legal, or is taken.
pub(super) fn check_paths(routes: &[Route], pages: &[StaticPage]) -> Result<(), Error> {
    check(routes, pages, &RESERVED_PATHS)
}

/// Fails if a path of the admin listener is not legal, or is taken.
pub(super) fn check_admin_paths(pages: &[StaticPage]) -> Result<(), Error> {
    check(&[], pages, &RESERVED_ADMIN_PATHS)
}

fn check(routes: &[Route], pages: &[StaticPage], reserved: &[&str]) -> Result<(), Error> {
    let refuse = |message| Err(Error::new(ErrorKind::InvalidInput, message));
    let routes = routes.iter().map(|route| ("route", route.path.as_str()));
    let named = routes.chain(pages.iter().map(|page| ("page", page.path.as_str())));
    for (index, (what, path)) in named.clone().enumerate() {
        if !path.starts_with('/') || path.contains(['?', '#', ' ']) {
            return refuse(format!(
                "the {what} '{path}' must begin with '/' and hold no '?', '#' or space"
            ));
        }
        if reserved.contains(&path) {
            return refuse(format!("the {what} '{path}' is reserved for the server"));
        }
        // Of two routes the first is served; a page that is never served is a mistake.
        if what == "page" && named.clone().take(index).any(|(_, earlier)| earlier == path) {
            return refuse(format!("the page '{path}' is on a path that is already taken"));
        }
    }
    for page in pages {
        if let Some(name) = page.illegal_header() {
            let what = if name == "Content-Type" { "content type" } else { name };
            return refuse(format!(
                "the {what} of the page '{}' cannot stand in a header, or not there",
                page.path
            ));
        }
    }
    Ok(())
}
