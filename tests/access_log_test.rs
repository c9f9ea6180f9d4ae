//! The access log of the shipped program: a line for each connection at its end, and for each that
//! is refused.

#![cfg(all(unix, feature = "identity"))]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use serde_json::{Value, json};
use support::DEADLINE;
use tungstenite::{Message, WebSocket, client::IntoClientRequest};

const SECRET: &str = "a secret for tests that has enough bytes";

struct Program {
    child: Child,
    addr: SocketAddr,
    /// Its log, line by line.
    lines: mpsc::Receiver<String>,
}

impl Program {
    fn start(settings: &[(&str, &str)]) -> Program {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rusty_socks"))
            .env("RUSTY_SOCKS_HOST", "127.0.0.1")
            .env("RUSTY_SOCKS_PORT", "0")
            .env("RUSTY_SOCKS_ACCESS_LOG", "true")
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, lines) = mpsc::channel();
        let log = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            log.lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        let addr = SocketAddr::from(([0; 4], 0));
        let mut program = Program { child, addr, lines };
        let line = program.log_line(" listens on ");
        let (_, rest) = line.split_once(" listens on ").unwrap();
        program.addr = rest.split_once(": ").unwrap().0.parse().unwrap();
        program
    }

    fn log_line(&self, with: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(DEADLINE).unwrap();
            if line.contains(with) {
                return line;
            }
        }
    }

    fn socket(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    fn client(&self, user: Option<&str>) -> WebSocket<TcpStream> {
        let mut request = format!("ws://{}/ws", self.addr).into_client_request().unwrap();
        if let Some(user) = user {
            let claims = json!({"sub": user, "exp": 4_000_000_000_u64});
            let token = rusty_socks::identity::sign(&claims, SECRET).unwrap();
            let header = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("Authorization", header);
        }
        tungstenite::client(request, self.socket()).unwrap().0
    }

    /// Asks for an upgrade as nobody should, and returns the status of the answer.
    fn refused(&self) -> u64 {
        let mut stream = self.socket();
        stream.write_all(b"GET /ws HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer[9..12].parse().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn end(mut client: WebSocket<TcpStream>) {
    let _ = client.close(None);
    while client.read().is_ok() {}
}

#[test]
fn each_connection_has_its_line_with_fields_in_json() {
    let program = Program::start(&[
        ("RUSTY_SOCKS_LOG", "warn,rusty_socks=info"),
        ("RUSTY_SOCKS_LOG_FORMAT", "json"),
        ("RUSTY_SOCKS_IDENTITY", "optional"),
        ("RUSTY_SOCKS_TOKEN_HMAC_SECRET", SECRET),
        ("RUSTY_SOCKS_MAX_CONN_PER_USER", "1"),
        ("RUSTY_SOCKS_DEFAULT_ROOM", ""),
    ]);
    let mut client = program.client(Some("anna"));
    let from = client.get_ref().local_addr().unwrap();
    let welcome: Value = serde_json::from_str(client.read().unwrap().to_text().unwrap()).unwrap();
    for _ in 0..3 {
        client.send(Message::text(r#"{"type":"ping"}"#)).unwrap();
        client.read().unwrap();
    }
    // A second connection of one user, which may have one.
    let second = program.client(Some("anna"));
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

    let status = program.refused();
    let line: Value = serde_json::from_str(&program.log_line("connection refused")).unwrap();
    assert_eq!((&line["status"], &line["reason"]), (&json!(status), &json!("bad_request")));
    assert!(line["remote"].as_str().unwrap().starts_with("127.0.0.1:"));
}

#[test]
fn lines_for_people_have_the_same_fields_as_words() {
    let program = Program::start(&[]);
    let mut client = program.client(None);
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
    assert!(!line.contains(" user= "), "{line}");
    assert!(line.ends_with(r#" code=4999 reason="a reason\nwith user=root""#), "{line}");
    program.refused();
    let line = program.log_line("connection refused");
    assert!(line.ends_with("reason=bad_request"), "{line}");
}

#[test]
fn without_the_setting_there_are_no_lines() {
    let program = Program::start(&[("RUSTY_SOCKS_ACCESS_LOG", "false")]);
    end(program.client(None));
    program.refused();
    let id = program.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let mut lines = Vec::new();
    while let Ok(line) = program.lines.recv_timeout(DEADLINE) {
        lines.push(line);
    }
    assert!(lines.iter().any(|line| line.contains("good-bye")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("rusty_socks::access")), "{lines:?}");
}

#[test]
fn who_is_cut_off_by_a_drain_has_no_close_in_its_line() {
    let program =
        Program::start(&[("RUSTY_SOCKS_ECHO", "true"), ("RUSTY_SOCKS_DRAIN_TIMEOUT", "0.5")]);
    let mut client = program.socket();
    client.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    client.write_all(support::upgrade_head("/echo").as_bytes()).unwrap();
    client.read_exact(&mut [0; 12]).unwrap();
    // Until the server does not read any more, because nobody reads what it answers.
    let frame = support::frame(0x82, &[0; 60_000]);
    while client.write_all(&frame).is_ok() {}
    let id = program.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let line = program.log_line("connection ended");
    assert!(line.contains(" path=/echo ") && line.contains(" code=1006 "), "{line}");
}
