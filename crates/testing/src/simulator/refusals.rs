//! What a client makes of the errors that answer its commands, and when such an error is due.

use rusty_socks_protocol::{ErrorCode, answer};

use super::{
    client::{Client, Scene, Verdict},
    command::Asked,
    tokens::Act,
};

impl Client {
    /// Takes in an error: it must be due, for what the client knows.
    pub(super) fn hear_refusal(
        &mut self,
        asked: Asked,
        fault: &answer::Error<'_>,
        scene: &mut Scene<'_>,
    ) -> Verdict {
        let code = &fault.code;
        let config = &scene.plan.config;
        let token = self.token.as_ref();
        match (&asked, code) {
            (Asked::Auth { token, .. }, ErrorCode::Unauthorized) => {
                // A Close follows, which looks at the token again.
                let is_bad = token.is_revoked || scene.now_ms >= token.expires_ms;
                self.asked.push_front((0, asked.clone()));
                return match is_bad {
                    true => Ok(()),
                    false => {
                        let seen = format!("{} to {}", fault.message, asked.words());
                        Err(self.broken("a good token is taken", seen))
                    }
                };
            }
            (Asked::Auth { is_first: true, .. }, ErrorCode::LimitExceeded)
                if config.max_conn_per_user < 1000 =>
            {
                return Ok(());
            }
            // A Close follows.
            (Asked::Resume { .. }, ErrorCode::Unauthorized) if self.was_revoked => return Ok(()),
            (Asked::Auth { .. } | Asked::Resume { .. }, ErrorCode::RateLimited)
                if config.rate_messages_per_user > 0 =>
            {
                // It comes again, and says what it must say then.
                if let Some(mut socket) = self.lose("of too many messages", scene) {
                    socket.reset();
                }
                self.wait_until_ms = scene.now_ms + 1000;
                return Ok(());
            }
            _ => {}
        }
        let Some(session) = self.current() else { return Ok(()) };
        let is_forbidden = |room: &String, act| !scene.plan.may_surely(token, room, act);
        let rooms_per_conn_max = scene.plan.configs().map(|config| config.max_rooms_per_conn);
        let rooms_per_conn_max = rooms_per_conn_max.min().unwrap_or_default();
        let is_in = |room: &String| session.rooms.contains_key(room);
        let is_small =
            config.mailbox < 1000 || config.mailbox_bytes < 1 << 20 || scene.plan.was_tight;
        let is_full = session.rooms.len() >= rooms_per_conn_max;
        let is_due = match (&asked, code) {
            (
                Asked::Publish { .. }
                | Asked::Join { .. }
                | Asked::JoinPattern { .. }
                | Asked::Broadcast { .. },
                ErrorCode::Overloaded,
            ) => is_small,
            // A page takes memory.
            (Asked::History { .. }, ErrorCode::Overloaded) => scene.plan.was_tight,
            // Few may be on their way to one client, and none to one that is far behind.
            (Asked::Direct { .. }, ErrorCode::Overloaded) => {
                let is_tight = config.buffer < 1000 || config.buffer_bytes < 1 << 20;
                is_small || is_tight || !scene.plan.is_calm()
            }
            (_, ErrorCode::RateLimited) => {
                let of_client = scene.plan.configs().any(|config| config.rate_messages > 0);
                of_client || (token.is_some() && config.rate_messages_per_user > 0)
            }
            (Asked::Publish { rooms, .. }, ErrorCode::Forbidden) => {
                rooms.iter().any(|room| is_forbidden(room, Act::Publish))
            }
            (
                Asked::Join { room, .. }
                | Asked::History { room, .. }
                | Asked::Presence { room, .. },
                ErrorCode::Forbidden,
            ) => is_forbidden(room, Act::Join),
            (Asked::Direct { .. }, ErrorCode::Forbidden) => !scene.plan.may_direct(token),
            (Asked::Publish { rooms, .. }, ErrorCode::NotMember) => !rooms.iter().all(is_in),
            (
                Asked::Leave { room } | Asked::History { room, .. } | Asked::Presence { room, .. },
                ErrorCode::NotMember,
            ) => !is_in(room),
            (Asked::LeavePattern { pattern }, ErrorCode::NotMember) => {
                !session.patterns.contains(pattern)
            }
            (Asked::Join { room, .. }, ErrorCode::AlreadyMember) => is_in(room),
            (Asked::JoinPattern { pattern }, ErrorCode::AlreadyMember) => {
                session.patterns.contains(pattern)
            }
            (Asked::Join { .. }, ErrorCode::LimitExceeded) => is_full || config.max_rooms < 100,
            (Asked::JoinPattern { .. }, ErrorCode::LimitExceeded) => rooms_per_conn_max < 100,
            (Asked::Direct { .. }, ErrorCode::NotFound | ErrorCode::LimitExceeded) => true,
            (Asked::Broadcast { .. }, ErrorCode::Forbidden) => {
                let may_all = scene.plan.configs().all(|config| config.broadcast);
                !may_all || !scene.plan.may_direct(token)
            }
            (Asked::Resume { .. }, ErrorCode::Unrecoverable) => {
                return self.hear_unrecoverable(scene);
            }
            // It names each room that it knows of. If it was taken out of some untold, and the
            // bound is lower than when it came, these may be more than the server looks at.
            (Asked::Resume { positions, .. }, ErrorCode::LimitExceeded)
                if positions.len() > rooms_per_conn_max
                    && self.session.as_ref().is_some_and(|session| session.is_unsure) =>
            {
                self.begin_anew(scene);
                return Ok(());
            }
            _ => false,
        };
        if !is_due {
            let (words, rooms) = (asked.words(), session.rooms.keys());
            let seen = format!("{code} ({}) to {words}, in {rooms:?}", fault.message);
            return Err(self.broken("a command is refused only for what is wrong with it", seen));
        }
        Ok(())
    }

    fn hear_unrecoverable(&mut self, scene: &mut Scene<'_>) -> Verdict {
        let config = &scene.plan.config;
        let lost_ms = self.session.as_ref().and_then(|session| session.lost_ms);
        let away_ms = lost_ms.map_or(0, |lost| scene.now_ms - lost);
        let window_ms = config.resume_window.as_millis() as u64;
        let is_gone = self.session.as_ref().is_some_and(|session| {
            session.is_gone || session.ends_from_ms.is_some_and(|from| scene.now_ms >= from)
        });
        let is_kept = config.max_away_sessions > 1000 && !is_gone && !scene.plan.was_tight;
        if away_ms < window_ms && is_kept {
            let seen = format!("unrecoverable after {away_ms} ms of {window_ms}");
            return Err(self.broken("a session outlives its connection for the window", seen));
        }
        self.begin_anew(scene);
        Ok(())
    }

    /// Goes on with the session that its connection began with.
    fn begin_anew(&mut self, scene: &mut Scene<'_>) {
        let fresh = self.fresh.take();
        self.forget_session(scene);
        self.session = fresh;
    }
}
