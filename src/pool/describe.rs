//! What a worker is doing, in words.

use super::{
    connection::Phase,
    progress::{Doing, Step},
    shared::Shared,
};
use crate::{handler::erased::CallName, hub::mailbox::Letter};

/// Puts into words what a worker of this server was doing.
pub(crate) fn describe(doing: Doing, shared: &Shared) -> String {
    let path = |route: u16| shared.routes.get(usize::from(route)).map_or("", |of| of.path.as_str());
    in_words(doing, path)
}

fn in_words<'a>(doing: Doing, path: impl Fn(u16) -> &'a str) -> String {
    let (step, names) = match doing {
        _ if doing.is_in(Step::Arrivals) => ("taking new sockets", None),
        _ if doing.is_in(Step::Read) => ("reading, phase", Some(Phase::NAMES)),
        _ if doing.is_in(Step::Letters) => ("taking letters, letter", Some(Letter::NAMES)),
        _ if doing.is_in(Step::Timers) => ("looking after deadlines", None),
        _ if doing.is_in(Step::Flush) => ("writing", None),
        _ if doing.is_in(Step::Reap) => ("freeing connections", None),
        _ if doing.is_in(Step::Memory) => ("looking at memory", None),
        _ => ("beginning", None),
    };
    let named = |names: &[&'static str], number: u8| names.get(usize::from(number)).copied();
    let mut words = step.to_owned();
    if let Some(names) = names {
        let name = doing.at().and_then(|at| named(names, at)).unwrap_or("none");
        words += &format!(" {}", name.to_lowercase());
    }
    if let Some((call, route)) = doing.call()
        && let Some(name) = named(CallName::NAMES, call)
    {
        words += &format!(", in on_{} of {}", name.to_lowercase(), path(route));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::progress::Progress;

    #[test]
    fn a_turn_is_looked_at_named_and_late() {
        let progress = Progress::default();
        assert_eq!(progress.look(5), None, "it sleeps");
        progress.begin_turn(1000);
        progress.begin_step(Step::Read);
        progress.come_to(5);
        progress.begin_call(1, 2);
        assert_eq!(progress.look(1040), None, "not for long");
        assert_eq!(progress.look(1060), None, "it is seen, and not stuck");
        progress.end_call();
        progress.begin_step(Step::Flush);
        assert!(!progress.is_late(1099) && progress.is_late(1100));
        let seen = progress.end_late(1200).expect("it was seen");
        assert_eq!(in_words(seen, |_| "/ws"), "reading, phase open, in on_message of /ws");
        progress.end_turn();
        assert!(progress.is_late(11_199) && !progress.is_late(11_200));

        progress.begin_turn(20_000);
        progress.begin_step(Step::Letters);
        progress.come_to(0);
        let (took_ms, _, doing) = progress.look(21_000).expect("it is stuck");
        assert_eq!(
            (took_ms, in_words(doing, |_| "")),
            (1000, "taking letters, letter deliver".into())
        );
        progress.begin_turn(30_000);
        assert_eq!(progress.end_late(30_100), None, "what was seen of another turn is forgotten");
    }
}
