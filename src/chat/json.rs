//! Frames as JSON text.

use serde::Serialize;

use crate::PreparedFrame;

/// An empty list of messages in an answer. Inside a JSON string its quotes would be escaped, so no
/// text of a client can match it.
const EMPTY_LIST: &str = "\"messages\":[]";

/// The beginning of every frame of the protocol.
const FRAME_BEGINS: &[u8] = b"{\"type\":\"";

/// Whether JSON can be an object. What serde reads into a type with fields it would read from a
/// list too.
pub(super) fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().starts_with(b"{")
}

/// Formats a frame of the protocol.
pub(super) fn text(frame: &impl Serialize) -> String {
    serde_json::to_string(frame).expect("strings, numbers and JSON can be written")
}

/// Formats a frame, and fills `lists` into its empty lists of messages, in order. Messages are JSON
/// already; parsing them again would cost three times as much as the rest of the answer.
pub(super) fn text_with_messages<'a>(
    frame: &impl Serialize,
    lists: impl Iterator<Item = &'a [PreparedFrame]> + Clone,
) -> String {
    let text = text(frame);
    let bytes: usize = lists.clone().flatten().map(|message| message.payload().len() + 1).sum();
    let mut out = String::with_capacity(text.len() + bytes);
    let mut rest = text.as_str();
    for list in lists {
        let Some(at) = rest.find(EMPTY_LIST) else { break };
        let (before, behind) = rest.split_at(at + EMPTY_LIST.len() - 1);
        out.push_str(before);
        push_messages(&mut out, list);
        rest = behind;
    }
    out.push_str(rest);
    out
}

fn push_messages(out: &mut String, messages: &[PreparedFrame]) {
    for (index, message) in messages.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        match std::str::from_utf8(message.payload()) {
            Ok(text) if is_frame(text) => out.push_str(text),
            Ok(text) => push_string(out, text),
            Err(_) => push_string(out, &String::from_utf8_lossy(message.payload())),
        }
    }
}

/// Whether a message is a frame of the protocol, and so JSON. A program can publish other text
/// ([`crate::ServerHandle::publish`]), which is quoted as a string to keep the answer valid JSON.
fn is_frame(text: &str) -> bool {
    text.as_bytes().starts_with(FRAME_BEGINS)
        || serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
}

/// Appends a JSON string.
pub(super) fn push_string(out: &mut String, text: &str) {
    let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    #[derive(Serialize)]
    struct Answer {
        r#ref: &'static str,
        messages: Vec<()>,
        more: Vec<Answer>,
    }

    #[test]
    fn lists_are_filled_in_order_and_a_text_that_looks_like_one_is_left() {
        let frame = |text| PreparedFrame::new(Message::Text(text));
        let own = [frame("{\"type\":\"message\",\"seq\":1}"), frame("[2]")];
        let strange = [frame("no JSON")];
        let room = || Answer { r#ref: "", messages: Vec::new(), more: Vec::new() };
        let trap = "\"messages\":[]";
        let answer = Answer { r#ref: trap, messages: Vec::new(), more: vec![room(), room()] };
        let lists = [&own[..], &[], &strange];
        assert_eq!(
            text_with_messages(&answer, lists.into_iter()),
            "{\"ref\":\"\\\"messages\\\":[]\",\"messages\":[{\"type\":\"message\",\"seq\":1},[2]],\
             \"more\":[{\"ref\":\"\",\"messages\":[],\"more\":[]},\
             {\"ref\":\"\",\"messages\":[\"no JSON\"],\"more\":[]}]}"
        );
    }
}
