//! Finds the name that was probably meant.

use super::source::PREFIX;

/// Returns the known name that is most similar to `name`, or `None` if none is similar enough.
///
/// The measure favours a common prefix: `max_connections` probably means `max_conn`. A prefix that
/// all names share does not count.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    const ALIKE: f64 = 0.75;
    let core = |name: &str| {
        let name = name.strip_prefix(PREFIX).or(name.strip_prefix("--")).unwrap_or(name);
        name.to_ascii_lowercase().replace('-', "_")
    };
    let likeness = |other: &str| strsim::jaro_winkler(&core(name), &core(other));
    known
        .map(|other| (likeness(&other), other))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_nonsense_finds_none() {
        let among = |name: &str| {
            let known = ["MAX_CONN", "MAX_ROOMS", "PORT"].map(|name| format!("{PREFIX}{name}"));
            nearest(name, known.into_iter())
        };
        for slip in ["MAX_CON", "MAX_CONNECTIONS", "max_conn", "MAXCONN"] {
            let near = among(&format!("{PREFIX}{slip}"));
            assert_eq!(near.as_deref(), Some("RUSTY_SOCKS_MAX_CONN"), "{slip}");
        }
        for nonsense in ["ZZZ", "", "X"] {
            assert_eq!(among(&format!("{PREFIX}{nonsense}")), None, "{nonsense}");
        }
    }
}
