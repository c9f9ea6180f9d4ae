//! Frames as JSON text.

use serde::Serialize;

/// Writes a frame of the protocol.
pub(super) fn text(frame: &impl Serialize) -> String {
    serde_json::to_string(frame).expect("strings, numbers and JSON can be written")
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
