//! What the engine's core and the link say to each other.

use bytes::Bytes;

/// What the core has the link do.
#[derive(Debug)]
#[allow(missing_docs, reason = "they are named as what they are")]
pub enum Order {
    /// Runs a script, after all that was ordered before. A Redis that has forgotten it is connected
    /// to anew, as if it was gone: [`Event::Down`].
    Script { tag: u64, script: &'static Script, keys: Vec<Bytes>, args: Vec<Bytes> },
    /// Runs a command, whose name comes first.
    Command { tag: u64, args: Vec<Bytes> },
    /// Subscribes to channels; each is confirmed with [`Event::Subscribed`].
    Subscribe(Vec<Bytes>),
    /// Ends subscriptions, without an answer. Messages on their way still come.
    Unsubscribe(Vec<Bytes>),
}

/// A Lua script.
#[derive(Debug, PartialEq, Eq)]
pub struct Script {
    /// The name of its file.
    pub name: &'static str,
    /// All of it.
    pub text: &'static str,
}

/// What the link tells the core.
#[derive(Debug)]
#[allow(missing_docs, reason = "they are named as what they are")]
pub enum Event {
    /// The Redis can be used. Nothing is subscribed, and no order from before is answered any more.
    Up(ServerFacts),
    /// The Redis that was there is gone, and why. Orders that are not answered are forgotten; some
    /// of them may have run.
    Down(String),
    /// An attempt to reach it has failed, and why. Another one follows by itself.
    Failed(String),
    /// The Redis is there, and nodes that have another list of them use it. It is tried again by
    /// itself.
    OtherList(String),
    /// A channel is subscribed.
    Subscribed(Bytes),
    /// A message on a channel. Both parts keep a whole block of what was read alive: who stores one
    /// copies it.
    Message { channel: Bytes, payload: Bytes },
    /// The answer to a script or a command. Its bytes keep a block alive, too.
    Answer { tag: u64, answer: Result<Value, Refused> },
}

/// What a Redis says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// Differs after a failover, and after a restart. (The id of its replication would change under
    /// connections that stay open: when a first replica comes, and an hour after the last has
    /// gone.)
    pub run_id: String,
    /// Its version.
    pub version: String,
    /// Where it is: the host and port, or the path of the socket.
    pub address: String,
    /// What its clock showed when it was asked, in milliseconds since 1970.
    pub now_ms: u64,
}

/// What a Redis answers. A status such as `OK` is bytes, too.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are named as in the protocol of Redis")]
pub enum Value {
    Nil,
    Int(i64),
    Bytes(Bytes),
    List(Vec<Value>),
}

/// An error that a Redis answers. An error inside a list refuses the whole list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub code: Code,
    /// The error, as it was said.
    pub text: String,
}

/// Why a Redis refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Its memory is full, and it is not to evict.
    OutOfMemory,
    /// It is a replica.
    ReadOnly,
    /// It reads its data from the disk.
    Loading,
    /// It does not know who asks, or forbids it.
    NoPermission,
    /// A script has run for long.
    Busy,
    /// It is a replica that has lost its primary.
    MasterDown,
    /// It has not (or no longer) got the script.
    NoScript,
    /// Another reason.
    Other,
}

/// The first words of errors.
const CODES: [(&str, Code); 9] = [
    ("OOM", Code::OutOfMemory),
    ("READONLY", Code::ReadOnly),
    ("LOADING", Code::Loading),
    ("NOAUTH", Code::NoPermission),
    ("WRONGPASS", Code::NoPermission),
    ("NOPERM", Code::NoPermission),
    ("BUSY", Code::Busy),
    ("MASTERDOWN", Code::MasterDown),
    ("NOSCRIPT", Code::NoScript),
];

impl Refused {
    /// Reads what kind of error a text is.
    pub fn new(text: &str) -> Refused {
        Refused { code: Code::of(text), text: text.to_owned() }
    }
}

impl Code {
    fn of(text: &str) -> Code {
        // Redis 6.2 puts what stopped a script behind words of its own.
        let found = match text.starts_with("ERR Error running script") {
            false => CODES.iter().find(|(word, _)| text.split(' ').next() == Some(word)),
            true => CODES.iter().find(|(word, _)| text.contains(&format!(" -{word} "))),
        };
        found.map_or(Code::Other, |(_, code)| *code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_an_error_tells_its_code() {
        for (text, code) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", Code::OutOfMemory),
            ("READONLY You can't write against a read only replica.", Code::ReadOnly),
            ("NOAUTH Authentication required.", Code::NoPermission),
            ("BUSY Redis is busy running a script.", Code::Busy),
            ("BUSYGROUP Consumer Group name already exists", Code::Other),
            ("ERR unknown command 'READONLY '", Code::Other),
            (
                "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: \
                 -READONLY You can't write against a read only replica.",
                Code::ReadOnly,
            ),
            ("ERR Error running script (call to f_1): @user_script:1: no", Code::Other),
        ] {
            assert_eq!(Refused::new(text).code, code, "{text}");
        }
    }
}
