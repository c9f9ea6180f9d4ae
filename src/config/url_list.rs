//! A list of URLs that may have commas of their own.

/// Splits a list at each comma behind which another URL begins, because the hosts of Sentinels have
/// commas between them, and passwords may have some.
pub(crate) fn urls(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut commas = text.match_indices(',').map(|(at, _)| at);
        match commas.find(|at| begins_url(&text[at + 1..])) {
            Some(at) => {
                rest = Some(&text[at + 1..]);
                Some(&text[..at])
            }
            None => rest.take(),
        }
    })
}

fn begins_url(text: &str) -> bool {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'+')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_split_where_urls_begin() {
        fn split(list: &str) -> Vec<&str> {
            urls(list).collect()
        }
        assert_eq!(split("redis://a"), ["redis://a"]);
        assert_eq!(split(""), [""]);
        assert_eq!(split("redis://a,rediss://b/1"), ["redis://a", "rediss://b/1"]);
        let sentinels = "redis+sentinel://a:1,b:2/m";
        assert_eq!(split(&format!("{sentinels},{sentinels}")), [sentinels, sentinels]);
        assert_eq!(split("redis://:p,w@a,redis://b"), ["redis://:p,w@a", "redis://b"]);
        // What is wrong stays with the one before.
        assert_eq!(split("redis://a,,redis://b,"), ["redis://a,", "redis://b,"]);
        assert_eq!(split(",redis://a,b"), ["", "redis://a,b"]);
    }
}
