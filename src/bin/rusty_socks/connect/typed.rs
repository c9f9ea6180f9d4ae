//! What a line that was typed means.

/// What `/help` says.
pub(super) const HELP: &str = "\
/join ROOM          join a room and make it the current one
/leave [ROOM]       leave a room, or the current one
/room ROOM          what you type goes to this room from now on
/history [N]        the last N messages of the current room (10)
/who                who is in the current room
/to CLIENT TEXT     a message to one client alone, by its id or its beginning
/quit               leave; so does Ctrl-D
//TEXT              a message that begins with a slash
anything else       a message to the current room";

/// A line that was typed, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed<'l> {
    Nothing,
    Say(&'l str),
    Join(&'l str),
    Leave(Option<&'l str>),
    Room(&'l str),
    History(u64),
    Who,
    To(&'l str, &'l str),
    Help,
    Quit,
    /// No such command, or not like this; with what would be right.
    Wrong(String),
}

/// Messages that `/history` asks for when it is not told how many.
const HISTORY: u64 = 10;

impl Typed<'_> {
    pub(super) fn parse(line: &str) -> Typed<'_> {
        if line.trim().is_empty() {
            return Typed::Nothing;
        }
        let Some(command) = line.strip_prefix('/') else { return Typed::Say(line) };
        if command.starts_with('/') {
            return Typed::Say(command);
        }
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        let wrong = |usage: &str| Typed::Wrong(format!("it is {usage}"));
        match (name, rest) {
            ("join", "") => wrong("/join ROOM"),
            ("join", room) => Typed::Join(room),
            ("leave", "") => Typed::Leave(None),
            ("leave", room) => Typed::Leave(Some(room)),
            ("room", "") => wrong("/room ROOM"),
            ("room", room) => Typed::Room(room),
            ("history", "") => Typed::History(HISTORY),
            ("history", count) => match count.parse() {
                Ok(count @ 1..) => Typed::History(count),
                _ => wrong("/history [N]"),
            },
            ("who", "") => Typed::Who,
            ("who", _) => wrong("/who"),
            ("to", rest) => match rest.split_once(char::is_whitespace) {
                Some((client, text)) => Typed::To(client, text.trim_start()),
                None => wrong("/to CLIENT TEXT"),
            },
            ("help", _) => Typed::Help,
            ("quit" | "exit", _) => Typed::Quit,
            _ => Typed::Wrong(format!("there is no /{name}; /help tells what there is")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_message_unless_it_begins_with_a_slash() {
        assert_eq!(Typed::parse("hi there "), Typed::Say("hi there "));
        assert_eq!(Typed::parse("//shrug"), Typed::Say("/shrug"));
        assert_eq!(Typed::parse(" \t"), Typed::Nothing);
        assert_eq!(Typed::parse("/join  tea"), Typed::Join("tea"));
        assert_eq!(Typed::parse("/leave"), Typed::Leave(None));
        assert_eq!(Typed::parse("/to ab12 how  are you"), Typed::To("ab12", "how  are you"));
        assert_eq!(Typed::parse("/history"), Typed::History(10));
        assert_eq!(Typed::parse("/history 3"), Typed::History(3));
        assert_eq!(Typed::parse("/quit"), Typed::Quit);
        for line in ["/join", "/history x", "/history 0", "/to ab12", "/dance", "/"] {
            assert!(matches!(Typed::parse(line), Typed::Wrong(_)), "{line}");
        }
    }
}
