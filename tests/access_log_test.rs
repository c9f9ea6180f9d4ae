//! The access log of the shipped program: a line for each connection at its end, and for each that
//! is refused.

#![cfg(all(unix, feature = "identity"))]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/program.rs"]
mod program;
#[path = "support/tokens.rs"]
mod tokens;

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use program::Program;
use serde_json::{Value, json};
use support::DEADLINE;
use tokens::{SECRET, sign};
use tungstenite::{Message, WebSocket, client::IntoClientRequest};

/// The program with an access log.
fn start(settings: &[(&str, &str)]) -> Program {
    Program::start(&[], &[&[("ACCESS_LOG", "true")], settings].concat())
}

fn connect(program: &Program, user: Option<&str>) -> WebSocket<TcpStream> {
    let mut request = format!("ws://{}/ws", program.addr).into_client_request().unwrap();
    if let Some(user) = user {
        let claims = json!({"sub": user, "exp": 4_000_000_000_u64});
        let header = format!("Bearer {}", sign(&claims)).parse().unwrap();
        request.headers_mut().insert("Authorization", header);
    }
    tungstenite::client(request, program.socket()).unwrap().0
}

/// Asks for an upgrade as nobody should, and returns the status of the answer.
fn refused(program: &Program) -> u64 {
    let mut stream = program.socket();
    stream.write_all(b"GET /ws HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer[9..12].parse().unwrap()
}

fn end(mut client: WebSocket<TcpStream>) {
    let _ = client.close(None);
    while client.read().is_ok() {}
}

#[test]
fn each_connection_has_its_line_with_fields_in_json() {
    let program = start(&[
        ("LOG", "warn,rusty_socks=info"),
        ("LOG_FORMAT", "json"),
        ("IDENTITY", "optional"),
        ("TOKEN_HMAC_SECRET", SECRET),
        ("MAX_CONN_PER_USER", "1"),
        ("DEFAULT_ROOM", ""),
    ]);
    let mut client = connect(&program, Some("anna"));
    let from = client.get_ref().local_addr().unwrap();
    let welcome: Value = serde_json::from_str(client.read().unwrap().to_text().unwrap()).unwrap();
    for _ in 0..3 {
        client.send(Message::text(r#"{"type":"ping"}"#)).unwrap();
        client.read().unwrap();
    }
    // A second connection of one user, which may have one.
    let second = connect(&program, Some("anna"));
    end(second);
    let line: Value = serde_json::from_str(&program.log_line("connection ended")).unwrap();
    assert_eq!(line["code"], 4103, "{line}");
    assert_eq!((&line["messages_in"], &line["user"]), (&json!(0), &Value::Null));

    end(client);
    let line: Value = serde_json::from_str(&program.log_line("connection ended")).unwrap();
    assert_eq!(line["target"], "rusty_socks::access");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["remote"], from.to_string());
    assert_eq!(line["client_id"], welcome["client_id"]);
    assert_eq!((&line["user"], &line["path"]), (&json!("anna"), &json!("/ws")));
    assert_eq!((&line["messages_in"], &line["messages_out"]), (&json!(3), &json!(4)));
    // Three frames of 15 bytes with a mask, and a Close without a code.
    assert_eq!(line["bytes_in"], 3 * (6 + 15) + 6);
    let welcome_bytes = welcome.to_string().len() as u64;
    assert!(line["bytes_out"].as_u64().unwrap() > welcome_bytes, "{line}");
    assert!((0.0..60.0).contains(&line["seconds"].as_f64().unwrap()), "{line}");
    assert_eq!((&line["code"], &line["reason"]), (&json!(1005), &json!("")));

    let status = refused(&program);
    let line: Value = serde_json::from_str(&program.log_line("connection refused")).unwrap();
    assert_eq!((&line["status"], &line["reason"]), (&json!(status), &json!("bad_request")));
    assert!(line["remote"].as_str().unwrap().starts_with("127.0.0.1:"));
}

#[test]
fn lines_for_people_have_the_same_fields_as_words() {
    let program = start(&[]);
    let mut client = connect(&program, None);
    client.read().unwrap();
    let frame = tungstenite::protocol::CloseFrame {
        code: 4999.into(),
        reason: "a reason\nwith user=root".into(),
    };
    client.close(Some(frame)).unwrap();
    while client.read().is_ok() {}
    let line = program.log_line("connection ended");
    assert!(
        line.contains(" INFO  rusty_socks::access] connection ended remote=127.0.0.1:"),
        "{line}"
    );
    assert!(line.contains(" path=/ws seconds="), "{line}");
    let (before, _) = line.split_once(" code=").unwrap();
    assert!(!before.contains(" user="), "{line}");
    assert!(line.ends_with(r#" code=4999 reason="a reason\nwith user=root""#), "{line}");
    refused(&program);
    let line = program.log_line("connection refused");
    assert!(line.ends_with("reason=bad_request"), "{line}");
}

#[test]
fn without_the_setting_there_are_no_lines() {
    let program = start(&[("ACCESS_LOG", "false")]);
    end(connect(&program, None));
    refused(&program);
    program.signal("-TERM");
    let mut lines = Vec::new();
    while let Ok(line) = program.log.recv_timeout(DEADLINE) {
        lines.push(line);
    }
    assert!(lines.iter().any(|line| line.contains("good-bye")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("rusty_socks::access")), "{lines:?}");
}

#[test]
fn each_of_many_that_are_cut_off_together_has_a_line() {
    const CLIENTS: usize = 700;
    let program = start(&[
        ("ECHO", "true"),
        ("DRAIN_TIMEOUT", "0.3"),
        ("THREAD_POOL_SIZE", "1"),
        ("MAX_CONN", "1000"),
    ]);
    let upgrade = support::upgrade_head("/echo");
    let clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut client = program.socket();
            client.write_all(upgrade.as_bytes()).unwrap();
            client.read_exact(&mut [0; 12]).unwrap();
            client
        })
        .collect();
    // None of them answers the Close.
    program.signal("-TERM");
    for nth in 0..CLIENTS {
        let line = program.log_line("connection ended");
        assert!(line.contains(" path=/echo "), "{line}, number {nth}");
    }
    drop(clients);
}

#[test]
fn who_is_cut_off_by_a_drain_has_no_close_in_its_line() {
    let program = start(&[("ECHO", "true"), ("DRAIN_TIMEOUT", "0.5")]);
    let mut client = program.socket();
    client.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    client.write_all(support::upgrade_head("/echo").as_bytes()).unwrap();
    client.read_exact(&mut [0; 12]).unwrap();
    // Until the server does not read any more, because nobody reads what it answers.
    let frame = support::frame(0x82, &[0; 60_000]);
    while client.write_all(&frame).is_ok() {}
    program.signal("-TERM");
    let line = program.log_line("connection ended");
    assert!(line.contains(" path=/echo ") && line.contains(" code=1006 "), "{line}");
}
