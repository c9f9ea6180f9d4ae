//! Whatever the server passes on, common clients can read: `serde_json`, Python's `json` and the
//! JavaScript client, which read the same frames here.

// A helper that panics fails its test with a clear message.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rusty_socks::Config;
use serde_json::{Value, json};
use support::{
    TestServer, config,
    sessions::{Chat, Loss, lose},
};
use tungstenite::Message;

/// What passes though it is odd, as JSON text.
fn odd_contents() -> Vec<String> {
    let nested = |open: &str, close: &str, times: usize| {
        format!("{}1{}", open.repeat(times), close.repeat(times))
    };
    let mut contents: Vec<String> = [
        "1.7976931348623157e308",
        "-1e-400",
        "18446744073709551616",
        "{\"b\":1,\"b\":2,\"\":null}",
        "\"\\ud83d\\ude00 \\u0000 \u{2028} \u{feff} \u{10ffff} \\uffff\"",
        "{\"__proto__\":{\"x\":1},\"constructor\":1}",
    ]
    .map(String::from)
    .into();
    contents.extend([
        nested("[", "]", 120),
        nested("{\"a\":", "}", 120),
        nested("[{\"a\":", "}]", 60),
        "9".repeat(308),
        format!("0.{}", "1".repeat(5000)),
        format!("\"{}\"", "x".repeat(50_000)),
    ]);
    contents
}

fn read(chat: &mut Chat) -> String {
    loop {
        if let Message::Text(text) = chat.wire.read().unwrap() {
            return text.as_str().to_owned();
        }
    }
}

/// Runs a program on `lines`; `None` where there is no such program.
fn run(program: &str, arguments: &[&str], lines: &str) -> Option<String> {
    let piped = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = piped else {
        println!("nothing was read with {program}: there is none");
        return None;
    };
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {errors}");
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[test]
fn every_frame_can_be_read_by_every_common_parser() {
    let server = TestServer::start(Config {
        resume_window: Duration::from_secs(60),
        max_errors: 0,
        replay: 0,
        ..config()
    });
    let contents = odd_contents();
    let (mut anna, mut ben) = (Chat::new(&server), Chat::new(&server));
    let position = ben.ok(json!({"type": "history", "room": "lobby"}));
    let mut frames = Vec::new();
    for content in &contents {
        anna.raw(&format!("{{\"content\":{content},\"sender\":\"\\ud83d\\ude00\"}}"));
        frames.push(read(&mut ben));
        let to = &ben.id;
        anna.raw(&format!("{{\"type\":\"direct\",\"to\":\"{to}\",\"content\":{content}}}"));
        frames.push(read(&mut ben));
    }
    // Deepest of all is what a resume answers.
    ben.raw("{\"type\":\"history\",\"room\":\"lobby\"}");
    frames.push(read(&mut ben));
    let session = lose(&server, ben, Loss::Reset);
    let mut back = Chat::silent(&server, "/ws");
    let rooms = json!([{"room": "lobby", "epoch": position["epoch"], "seq": 0}]);
    back.say(json!({"type": "resume", "session": session, "rooms": rooms}));
    frames.extend([read(&mut back), read(&mut back)]);
    assert!(frames.last().unwrap().contains("\"recovered\":true"), "{:?}", frames.last());

    for frame in &frames {
        serde_json::from_str::<Value>(frame).expect(frame);
    }
    let (lines, count) = (frames.join("\n") + "\n", frames.len().to_string());
    let script = "import json, sys\n\
        lines = [line for line in sys.stdin.buffer.read().decode().split('\\n') if line]\n\
        print(len([json.dumps(json.loads(line)).encode() for line in lines]))";
    if let Some(told) = run("python3", &["-c", script], &lines) {
        assert_eq!(told, count);
    }
    let script = "const text = require('fs').readFileSync(0, 'utf8');\n\
        const lines = text.split('\\n').filter((line) => line);\n\
        console.log(lines.map((line) => JSON.stringify(JSON.parse(line))).length);";
    if let Some(told) = run("node", &["-e", script], &lines) {
        assert_eq!(told, count);
    }
}

#[test]
fn the_javascript_client_stays_whatever_is_said() {
    let server = TestServer::start(Config { max_errors: 0, replay: 0, ..config() });
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/js/index.js");
    let script = format!(
        "import {{ Client }} from 'file://{}';\n\
         const client = new Client('ws://{}/ws');\n\
         await client.ready;\n\
         await client.publish('lobby', 'here');\n\
         let count = 0;\n\
         for await (const message of client) {{\n\
           if (message.content === 'end') break;\n\
           count += 1;\n\
         }}\n\
         await client.close();\n\
         console.log(count);",
        module.display(),
        server.addr,
    );
    let mut anna = Chat::new(&server);
    let contents = odd_contents();
    let expected = contents.len().to_string();
    let speaker = std::thread::spawn(move || {
        let here = anna.expect("message");
        assert_eq!(here["content"], "here");
        for content in contents {
            anna.raw(&format!("{{\"content\":{content}}}"));
        }
        // What would have been poison reaches nobody.
        for poison in [&"[".repeat(30_000) as &str, "\"\\ud800\"", "1e999"] {
            let close = "]".repeat(poison.matches('[').count());
            anna.raw(&format!("{{\"content\":{poison}{close}}}"));
            assert_eq!(anna.expect("error")["code"], "bad_request");
        }
        anna.publish("lobby", "end");
    });
    match run("node", &["--input-type=module", "-e", &script], "") {
        Some(told) => {
            speaker.join().unwrap();
            assert_eq!(told, expected);
        }
        None => drop(speaker),
    }
}
