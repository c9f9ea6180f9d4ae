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
pub(super) enum Command<'l> {
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

impl Command<'_> {
    pub(super) fn parse(line: &str) -> Command<'_> {
        if line.trim().is_empty() {
            return Command::Nothing;
        }
        let Some(command) = line.strip_prefix('/') else { return Command::Say(line) };
        if command.starts_with('/') {
            return Command::Say(command);
        }
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        let wrong = |usage: &str| Command::Wrong(format!("it is {usage}"));
        match (name, rest) {
            ("join", "") => wrong("/join ROOM"),
            ("join", room) => Command::Join(room),
            ("leave", "") => Command::Leave(None),
            ("leave", room) => Command::Leave(Some(room)),
            ("room", "") => wrong("/room ROOM"),
            ("room", room) => Command::Room(room),
            ("history", "") => Command::History(HISTORY),
            ("history", count) => match count.parse() {
                Ok(count @ 1..) => Command::History(count),
                _ => wrong("/history [N]"),
            },
            ("who", "") => Command::Who,
            ("who", _) => wrong("/who"),
            ("to", rest) => match rest.split_once(char::is_whitespace) {
                Some((client, text)) => Command::To(client, text.trim_start()),
                None => wrong("/to CLIENT TEXT"),
            },
            ("help", _) => Command::Help,
            ("quit" | "exit", _) => Command::Quit,
            _ => Command::Wrong(format!("there is no /{name}; /help tells what there is")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_message_unless_it_begins_with_a_slash() {
        assert_eq!(Command::parse("hi there "), Command::Say("hi there "));
        assert_eq!(Command::parse("//shrug"), Command::Say("/shrug"));
        assert_eq!(Command::parse(" \t"), Command::Nothing);
        assert_eq!(Command::parse("/join  tea"), Command::Join("tea"));
        assert_eq!(Command::parse("/leave"), Command::Leave(None));
        assert_eq!(Command::parse("/to ab12 how  are you"), Command::To("ab12", "how  are you"));
        assert_eq!(Command::parse("/history"), Command::History(10));
        assert_eq!(Command::parse("/history 3"), Command::History(3));
        assert_eq!(Command::parse("/quit"), Command::Quit);
        for line in ["/join", "/history x", "/history 0", "/to ab12", "/dance", "/"] {
            assert!(matches!(Command::parse(line), Command::Wrong(_)), "{line}");
        }
    }
}
