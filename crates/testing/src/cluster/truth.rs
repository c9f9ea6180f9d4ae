//! What Redis has ever numbered, whatever it has lost since.

use std::collections::{BTreeMap, HashMap};

/// What contents begin with, and nothing else in a message has.
const BEGIN: &str = "~said.";

/// A message, as its content says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    /// The client that has said it.
    pub by: usize,
    /// Its number there.
    pub nth: u64,
    /// Its author hears it too.
    pub echo: bool,
    /// It has an id.
    pub has_id: bool,
}

impl Said {
    /// The content of a message.
    pub fn content(&self) -> String {
        let Said { by, nth, echo, has_id } = self;
        format!("{BEGIN}{by}.{nth}.{}.{}~", u8::from(*echo), u8::from(*has_id))
    }

    /// Finds it in a frame or in a content.
    pub fn find(bytes: &[u8]) -> Option<Said> {
        let marks = |bytes: &[u8]| bytes == BEGIN.as_bytes();
        let begin = bytes.windows(BEGIN.len()).position(marks)? + BEGIN.len();
        let end = begin + bytes[begin..].iter().position(|byte| *byte == b'~')?;
        let mut parts = std::str::from_utf8(&bytes[begin..end]).ok()?.split('.');
        let said = Said {
            by: parts.next()?.parse().ok()?,
            nth: parts.next()?.parse().ok()?,
            echo: parts.next()? == "1",
            has_id: parts.next()? == "1",
        };
        Some(said)
    }
}

/// A room's life: it has numbers of its own behind those of the life before.
#[derive(Debug, Default)]
struct Life {
    /// The life before, and the number up to which this one has the same messages.
    before: Option<(String, u64)>,
    said: BTreeMap<u64, Said>,
}

/// What Redis has ever numbered.
#[derive(Debug, Default)]
pub struct Truth {
    lives: HashMap<(String, String), Life>,
}

impl Truth {
    /// Notes that a room goes on in `epoch`, with all of the life before up to a number.
    pub fn begin(&mut self, room: &str, epoch: &str, before: Option<(String, u64)>) {
        let life = self.lives.entry((room.to_owned(), epoch.to_owned())).or_default();
        if life.said.is_empty() && life.before.is_none() {
            life.before = before;
        }
    }

    /// Notes a message. The error says what is wrong with it.
    ///
    /// # Errors
    /// The number is taken, or the message is in the room already.
    pub fn add(&mut self, room: &str, epoch: &str, seq: u64, said: Said) -> Result<(), String> {
        if let Some(known) = self.at(room, epoch, seq) {
            return Err(format!("{seq} of {room} is {known:?} and {said:?}"));
        }
        if let Some(first) = self.find(room, epoch, &said) {
            return Err(format!("{said:?} is {first} and {seq} of {room}"));
        }
        let life = self.lives.entry((room.to_owned(), epoch.to_owned())).or_default();
        life.said.insert(seq, said);
        Ok(())
    }

    /// The message that has this number in a life of a room.
    pub fn at(&self, room: &str, epoch: &str, seq: u64) -> Option<&Said> {
        let life = self.lives.get(&(room.to_owned(), epoch.to_owned()))?;
        match &life.before {
            Some((before, upto)) if seq <= *upto => self.at(room, before, seq),
            _ => life.said.get(&seq),
        }
    }

    /// Whether a life of a room is known.
    pub fn knows(&self, room: &str, epoch: &str) -> bool {
        self.lives.contains_key(&(room.to_owned(), epoch.to_owned()))
    }

    /// Whether the message has ever had this number in the room.
    pub fn was_ever(&self, room: &str, seq: u64, said: &Said) -> bool {
        let of_room = self.lives.iter().filter(|((of, _), _)| of == room);
        of_room.into_iter().any(|(_, life)| life.said.get(&seq) == Some(said))
    }

    /// The number up to which two lives of a room have the same messages.
    pub fn common(&self, room: &str, one: &str, other: &str) -> u64 {
        let ones = self.line(room, one);
        self.line(room, other)
            .iter()
            .find_map(|(epoch, upto)| {
                let (_, at) = ones.iter().find(|(of, _)| of == epoch)?;
                Some(*at.min(upto))
            })
            .unwrap_or(0)
    }

    /// A life and those before it, each with the number up to which its messages are good.
    fn line(&self, room: &str, epoch: &str) -> Vec<(String, u64)> {
        let (mut line, mut at) = (vec![(epoch.to_owned(), u64::MAX)], u64::MAX);
        while let Some(life) =
            self.lives.get(&(room.to_owned(), line.last().expect("one").0.clone()))
            && let Some((before, upto)) = &life.before
            && line.len() < 1000
        {
            at = at.min(*upto);
            line.push((before.clone(), at));
        }
        line
    }

    fn find(&self, room: &str, epoch: &str, said: &Said) -> Option<u64> {
        self.line(room, epoch).into_iter().find_map(|(epoch, upto)| {
            let life = self.lives.get(&(room.to_owned(), epoch))?;
            life.said.iter().find(|(seq, of)| **seq <= upto && *of == said).map(|(seq, _)| *seq)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_share_their_messages_up_to_a_number() {
        let said = |nth| Said { by: 1, nth, echo: true, has_id: true };
        let mut truth = Truth::default();
        truth.begin("a", "1", None);
        for seq in 1..=3 {
            assert_eq!(truth.add("a", "1", seq, said(seq)), Ok(()));
        }
        truth.begin("a", "2", Some(("1".to_owned(), 2)));
        assert_eq!(truth.add("a", "2", 3, said(9)), Ok(()));
        assert_eq!(truth.add("a", "2", 4, said(3)), Ok(()), "it was lost");
        assert!(truth.add("a", "2", 5, said(2)).is_err(), "it is there");
        assert!(truth.add("a", "2", 4, said(7)).is_err(), "the number is taken");
        assert_eq!(truth.at("a", "2", 1), Some(&said(1)));
        assert_eq!(truth.at("a", "2", 3), Some(&said(9)));
        truth.begin("a", "3", Some(("1".to_owned(), 1)));
        assert_eq!((truth.common("a", "1", "2"), truth.common("a", "2", "3")), (2, 1));
        truth.begin("a", "4", None);
        assert_eq!(truth.common("a", "2", "4"), 0);
        assert_eq!(Said::find(said(5).content().as_bytes()), Some(said(5)));
    }
}
