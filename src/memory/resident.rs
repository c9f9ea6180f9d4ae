//! The memory of this process as the system counts it.

/// Bytes of this process that are in memory now. `None` where the system does not say: anywhere but
/// on Linux and Android.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) fn bytes() -> Option<usize> {
    // Made by the kernel when it is read, from memory: no disk is waited for.
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(pages_of(&statm)?.saturating_mul(rustix::param::page_size()))
}

#[cfg(not(any(target_os = "android", target_os = "linux")))]
pub(crate) fn bytes() -> Option<usize> {
    None
}

/// Reads the resident pages from the text of `/proc/self/statm`.
#[cfg_attr(not(any(target_os = "android", target_os = "linux")), allow(dead_code))]
fn pages_of(statm: &str) -> Option<usize> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_number_is_what_is_resident() {
        assert_eq!(pages_of("123456 789 456 1 0 2 0\n"), Some(789));
        assert_eq!(pages_of(""), None);
        assert_eq!(pages_of("1 x"), None);
    }

    #[cfg(any(target_os = "android", target_os = "linux"))]
    #[test]
    fn this_process_takes_something() {
        assert!(bytes().expect("Linux says") > 100_000);
    }
}
