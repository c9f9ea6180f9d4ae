//! Frames as JSON text.

use serde::Serialize;

use crate::PreparedFrame;

/// How a list of messages that is still empty stands in an answer. Inside of a JSON string its
/// quotes would be escaped, so nothing that a client says looks like it.
const EMPTY_LIST: &str = "\"messages\":[]";

/// How every frame of the protocol begins.
const FRAME_BEGINS: &[u8] = b"{\"type\":\"";

/// Writes a frame of the protocol.
pub(super) fn text(frame: &impl Serialize) -> String {
    serde_json::to_string(frame).expect("strings, numbers and JSON can be written")
}

/// Writes a frame, and `lists` into its lists of messages, in order, which are empty so far.
/// Messages are JSON already: reading them again would cost three times what all the rest of the
/// answer does.
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

/// Whether a message is one of the protocol, and so JSON. A program can publish what is none
/// ([`crate::ServerHandle::publish`]); as a string it leaves the answer whole.
fn is_frame(text: &str) -> bool {
    text.as_bytes().starts_with(FRAME_BEGINS)
        || serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
}

/// Appends a JSON string.
pub(super) fn push_string(out: &mut String, text: &str) {
    let plain = |c: char| c >= ' ' && c != '"' && c != '\\';
    if text.chars().all(plain) {
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
