//! The raw client against the real server, and against servers that behave badly on purpose.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rusty_socks::{CloseReason, Config};
use rusty_socks_client::{Client, ClientBuilder, Error, ErrorKind, Received};
use support::{DEADLINE, Random, TestServer, config, eventually};
use tungstenite::{
    Message, WebSocket,
    handshake::derive_accept_key,
    protocol::{CloseFrame, Role},
};

/// For what must not happen.
const A_WHILE: Duration = Duration::from_millis(150);

/// A server of one connection, which does what `script` does with the socket and the request head.
fn scripted(script: impl FnOnce(TcpStream, String) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        script(stream, String::from_utf8(head).unwrap());
    });
    url
}

/// The 101 that goes with a request.
fn accept(head: &str) -> String {
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// A server that upgrades, and then says and does what `script` does.
fn upgraded(script: impl FnOnce(TcpStream) + Send + 'static) -> String {
    scripted(move |mut stream, head| {
        stream.write_all(accept(&head).as_bytes()).unwrap();
        script(stream);
    })
}

fn quick() -> ClientBuilder {
    Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .close_timeout(Duration::from_millis(300))
}

fn refused(url: &str) -> Error {
    quick().connect(url).expect_err("refused")
}

fn text(text: &str) -> Received {
    Received::Text(text.into())
}

/// Everything the client says until it ends the connection.
fn heard(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

/// A client's frame is masked; this takes one short frame apart.
fn unmasked(frame: &[u8]) -> (u8, Vec<u8>) {
    let length = usize::from(frame[1] & 0x7f);
    let mask = &frame[2..6];
    let payload = &frame[6..6 + length];
    (frame[0], payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect())
}

#[test]
fn messages_come_back_in_order_and_the_close_is_answered() {
    let server = TestServer::start(config());
    let client = Client::connect(&format!("ws://{}/echo", server.addr)).unwrap();
    let sizes = [0, 1, 125, 126, 65_535, 65_536];
    for size in sizes {
        client.send(&"x".repeat(size)).unwrap();
        client.send(vec![7; size].as_slice()).unwrap();
    }
    for size in sizes {
        assert_eq!(client.recv().unwrap(), Some(text(&"x".repeat(size))));
        assert_eq!(client.recv().unwrap(), Some(Received::Binary(vec![7; size])));
    }
    let reason = client.close(CloseReason::new(4000, "done")).unwrap();
    assert_eq!(reason.code(), 4000);
    assert_eq!(client.recv().unwrap(), None);
    assert_eq!(client.close_reason().unwrap().code(), 4000);
    assert_eq!(client.send("late").unwrap_err().kind(), ErrorKind::Closed);
    server.wait_until_empty();
}

#[test]
fn a_receive_that_times_out_loses_nothing() {
    let (go, gone) = mpsc::channel();
    let url = upgraded(move |mut stream| {
        // Half a frame, and the other half when the client has given up once.
        stream.write_all(b"\x81\x05he").unwrap();
        gone.recv().unwrap();
        stream.write_all(b"llo").unwrap();
        heard(stream);
    });
    let client = quick().connect(&url).unwrap();
    let error = client.recv_timeout(A_WHILE).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    go.send(()).unwrap();
    assert_eq!(client.recv_timeout(DEADLINE).unwrap(), Some(text("hello")));
}

#[test]
fn frames_that_come_with_the_answer_are_not_lost() {
    let url = scripted(|mut stream, head| {
        let mut bytes = accept(&head).into_bytes();
        bytes.extend_from_slice(b"\x01\x02he\x89\x01!\x80\x03llo\x82\x01\x00");
        // A byte at a time is allowed.
        for byte in bytes {
            stream.write_all(&[byte]).unwrap();
        }
        heard(stream);
    });
    let client = quick().connect(&url).unwrap();
    let received: Vec<_> = client.iter().take(2).map(Result::unwrap).collect();
    assert_eq!(received, [text("hello"), Received::Binary(vec![0])]);
}

#[test]
fn pings_are_answered_though_nobody_receives() {
    let (tell, told) = mpsc::channel();
    let url = upgraded(move |mut stream| {
        stream.write_all(b"\x89\x02hi").unwrap();
        let mut pong = [0; 8];
        stream.read_exact(&mut pong).unwrap();
        tell.send(unmasked(&pong)).unwrap();
    });
    let _client = quick().connect(&url).unwrap();
    assert_eq!(told.recv_timeout(DEADLINE).unwrap(), (0x8a, b"hi".to_vec()));
}

#[test]
fn a_refusal_tells_status_body_and_when_to_come_back() {
    let url = scripted(|mut stream, _| {
        let answer = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nfu";
        stream.write_all(answer).unwrap();
        stream.write_all(b"ll").unwrap();
        heard(stream);
    });
    let error = refused(&url);
    let refused = error.refused().unwrap();
    assert_eq!((refused.status, refused.body.as_str()), (503, "full"));
    assert_eq!(refused.retry_after, Some(Duration::from_secs(7)));
    assert_eq!(error.to_string(), "the server answers 503: full");
}

#[test]
fn a_body_without_end_is_cut() {
    let url = scripted(|mut stream, _| {
        stream.write_all(b"HTTP/1.1 403 No\r\n\r\n").unwrap();
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    assert_eq!(refused(&url).refused().unwrap().body.len(), 4096);
}

#[test]
fn the_real_server_refuses_with_a_503_when_it_is_full() {
    let server = TestServer::start(Config { max_conn: 1, max_queued_tasks: 0, ..config() });
    let url = format!("ws://{}/ws", server.addr);
    let first = Client::connect(&url).unwrap();
    let error = refused(&url);
    let refusal = error.refused().unwrap();
    assert_eq!(refusal.status, 503);
    assert!(refusal.retry_after.is_some() && refusal.body.contains("\"full\""), "{refusal:?}");
    let error = refused(&format!("ws://{}/nowhere", server.addr));
    assert_eq!(error.refused().unwrap().status, 404);
    first.close(CloseReason::NORMAL).unwrap();
}

#[test]
fn answers_that_are_no_upgrade_are_told_apart() {
    let answers = [
        (
            "HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n",
            ErrorKind::Misbehaved,
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", ErrorKind::Refused),
        ("SSH-2.0-x\r\n", ErrorKind::Misbehaved),
        ("HTTP/1.1 101 Go\r\nUpg", ErrorKind::Lost),
        ("", ErrorKind::Lost),
    ];
    for (answer, kind) in answers {
        let url = scripted(|mut stream, _| stream.write_all(answer.as_bytes()).unwrap());
        assert_eq!(refused(&url).kind(), kind, "{answer}");
    }
}

#[test]
fn a_slow_head_and_an_endless_one_have_a_limit() {
    let url = scripted(|mut stream, _| {
        for byte in b"HTTP/1.1 101 Switching Protocols\r\n".iter().cycle() {
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
            // A slow peer: each byte comes in time, and the whole never.
            thread::sleep(Duration::from_millis(20));
        }
    });
    let begin = Instant::now();
    let error = quick().connect_timeout(Duration::from_millis(300)).connect(&url).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(begin.elapsed() < Duration::from_secs(5));

    let url = scripted(|mut stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 101 Go\r\nX: ");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    assert_eq!(refused(&url).kind(), ErrorKind::Misbehaved);
}

#[test]
fn nobody_there_and_a_bad_url_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(refused(&format!("ws://{addr}/")).kind(), ErrorKind::Unreachable);
    let error = refused("ftp://localhost/ws");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("the scheme must be"), "{error}");
}

#[test]
fn what_breaks_the_protocol_is_told_to_the_peer() {
    let cases: [(&[u8], u16); 6] = [
        (b"\x81\x81\0\0\0\0x", 1002),
        (b"\xc1\x01x", 1002),
        (b"\x83\x01x", 1002),
        (b"\x09\x01x", 1002),
        (b"\x81\x02\xc3\x28", 1007),
        (b"\x81\x7e\x10\x00", 1009),
    ];
    for (bytes, code) in cases {
        let (tell, told) = mpsc::channel();
        let url = upgraded(move |mut stream| {
            stream.write_all(bytes).unwrap();
            tell.send(heard(stream)).unwrap();
        });
        let client = quick().message_bytes_max(1000).connect(&url).unwrap();
        let error = client.recv().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misbehaved, "{bytes:?}");
        let (first, payload) = unmasked(&told.recv_timeout(DEADLINE).unwrap());
        assert_eq!((first, payload[..2].to_vec()), (0x88, code.to_be_bytes().to_vec()));
    }
}

#[test]
fn the_peers_close_and_a_loss_are_told_apart() {
    for (bytes, code) in [(&b"\x88\x0a\x10\x04too slow"[..], 4100), (b"\x88\x00", 1005)] {
        let url = upgraded(move |mut stream| {
            stream.write_all(b"\x81\x01x").unwrap();
            stream.write_all(bytes).unwrap();
            heard(stream);
        });
        let client = quick().connect(&url).unwrap();
        assert_eq!(client.recv().unwrap(), Some(text("x")));
        assert_eq!(client.recv().unwrap(), None);
        assert_eq!(client.close_reason().unwrap().code(), code);
    }
    for is_reset in [false, true] {
        let url = upgraded(move |mut stream| {
            stream.write_all(b"\x81\x05he").unwrap();
            if is_reset {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
        });
        let client = quick().connect(&url).unwrap();
        assert_eq!(client.recv().unwrap_err().kind(), ErrorKind::Lost);
        assert_eq!(client.close_reason(), None);
        assert_eq!(client.send("x").unwrap_err().kind(), ErrorKind::Lost);
    }
}

#[test]
fn a_close_that_is_not_answered_ends_by_itself() {
    let url = upgraded(|stream| drop(heard(stream)));
    let client = quick().connect(&url).unwrap();
    let begin = Instant::now();
    let error = client.close(CloseReason::NORMAL).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_silent_server_is_pinged_and_then_given_up() {
    let (tell, told) = mpsc::channel();
    let url = upgraded(move |stream| tell.send(heard(stream)).unwrap());
    let builder =
        quick().silence_max(Duration::from_millis(400)).ping_after(Duration::from_millis(150));
    let client = builder.connect(&url).unwrap();
    let error = client.recv_timeout(DEADLINE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
    assert_eq!(told.recv_timeout(DEADLINE).unwrap()[0], 0x89);

    // The real one answers, and so is never silent.
    let server = TestServer::start(config());
    let client = builder.connect(&format!("ws://{}/echo", server.addr)).unwrap();
    assert!(client.recv_timeout(Duration::from_secs(1)).unwrap_err().is_timeout());
    client.send("still there").unwrap();
    assert_eq!(client.recv_timeout(DEADLINE).unwrap(), Some(text("still there")));
}

#[test]
fn a_server_that_takes_nothing_is_given_up_and_sending_waits_till_then() {
    let (release, held) = mpsc::channel::<()>();
    let url = upgraded(move |stream| {
        let _ = held.recv_timeout(DEADLINE);
        drop(stream);
    });
    let builder = quick().write_timeout(Duration::from_millis(300)).outgoing_bytes_max(1 << 20);
    let client = builder.connect(&url).unwrap();
    let chunk = vec![0; 512 << 10];
    let error = loop {
        if let Err(error) = client.send(chunk.as_slice()) {
            break error;
        }
    };
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Lost), "{error}");
    assert_eq!(client.recv_timeout(DEADLINE).unwrap_err().kind(), ErrorKind::Lost);
    drop(release);
}

/// Much more in flight than all buffers on the way hold: were reading to wait for writing, it would
/// be for ever.
#[test]
fn sending_and_receiving_do_not_wait_for_each_other() {
    let url = upgraded(|mut stream| {
        // Echoes bytes of frames unmasked as one message each; reads only after it has written.
        let big = vec![0; 8 << 20];
        let mut head = vec![0x82, 127];
        head.extend_from_slice(&(big.len() as u64).to_be_bytes());
        stream.write_all(&head).unwrap();
        stream.write_all(&big).unwrap();
        let mut rest = vec![0; big.len()];
        stream.read_exact(&mut rest).unwrap();
        stream.write_all(b"\x81\x04done").unwrap();
        heard(stream);
    });
    let client = quick().connect(&url).unwrap();
    client.send(vec![1; 8 << 20].as_slice()).unwrap();
    assert_eq!(client.recv_timeout(DEADLINE).unwrap(), Some(Received::Binary(vec![0; 8 << 20])));
    assert_eq!(client.recv_timeout(DEADLINE).unwrap(), Some(text("done")));
}

#[test]
fn what_nobody_receives_is_not_read_beyond_the_bound() {
    let server = TestServer::start(config());
    let url = format!("ws://{}/echo", server.addr);
    let client = quick().incoming_max(3, 1 << 20).connect(&url).unwrap();
    for number in 0..200 {
        client.send(&format!("{number}")).unwrap();
    }
    for number in 0..200 {
        assert_eq!(client.recv_timeout(DEADLINE).unwrap(), Some(text(&number.to_string())));
    }
    // A bound on bytes lets one message through, however large.
    let client = quick().incoming_max(1000, 10).connect(&url).unwrap();
    for number in 0..20 {
        client.send(&format!("{number:0>60000}")).unwrap();
    }
    for number in 0..20 {
        let wanted = format!("{number:0>60000}");
        assert_eq!(client.recv_timeout(DEADLINE).unwrap(), Some(text(&wanted)));
    }
    // With a full queue it closes all the same.
    let client = quick().incoming_max(1, 1 << 20).connect(&url).unwrap();
    for _ in 0..50 {
        client.send("x").unwrap();
    }
    client.close(CloseReason::NORMAL).unwrap();
}

#[test]
fn several_threads_share_a_client() {
    const EACH: usize = 200;
    let server = TestServer::start(config());
    let client = Client::connect(&format!("ws://{}/echo", server.addr)).unwrap();
    let mut received: Vec<String> = thread::scope(|scope| {
        for sender in 0..4 {
            let client = client.clone();
            scope.spawn(move || {
                for number in 0..EACH {
                    client.send(&format!("{sender}-{number}")).unwrap();
                }
            });
        }
        let receive = || {
            let next = || client.recv_timeout(DEADLINE).unwrap().unwrap();
            (0..EACH * 2).map(|_| next().as_text().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let receivers = [scope.spawn(receive), scope.spawn(receive)];
        receivers.into_iter().flat_map(|receiver| receiver.join().unwrap()).collect()
    });
    received.sort();
    received.dedup();
    assert_eq!(received.len(), EACH * 4);
    drop(client);
    server.wait_until_empty();
}

#[test]
fn the_last_handle_closes_in_order() {
    let server = TestServer::start(config());
    let client = Client::connect(&format!("ws://{}/echo", server.addr)).unwrap();
    let other = client.clone();
    drop(client);
    other.send("x").unwrap();
    assert_eq!(other.recv().unwrap(), Some(text("x")));
    drop(other);
    eventually("a close with 1000", || match server.closed_with(1000) {
        0 => Err("not yet".into()),
        _ => Ok(()),
    });
}

#[test]
fn headers_and_subprotocols_are_sent() {
    let (tell, told) = mpsc::channel();
    let url = scripted(move |mut stream, head| {
        let chosen = accept(&head).replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: b\r\n\r\n");
        stream.write_all(chosen.as_bytes()).unwrap();
        tell.send(head).unwrap();
        heard(stream);
    });
    let builder = quick().header("Authorization", "Bearer x").subprotocol("a").subprotocol("b");
    let client = builder.connect(&url).unwrap();
    assert_eq!(client.subprotocol(), Some("b"));
    let head = told.recv_timeout(DEADLINE).unwrap();
    assert!(head.contains("\r\nAuthorization: Bearer x\r\n"), "{head}");
    assert!(head.contains("\r\nSec-WebSocket-Protocol: a, b\r\n"), "{head}");
    assert_eq!(
        quick().header("Upgrade", "x").connect(&url).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

/// Text and binary messages in fragments of any size, with pings between, cut into writes of any
/// size.
#[test]
fn any_way_of_cutting_the_stream_gives_the_same_messages() {
    let mut random = Random::seeded();
    for _ in 0..30 {
        let mut bytes = Vec::new();
        let mut wanted = Vec::new();
        for number in 0..20 {
            let body = format!("{number}-{}", "é".repeat(random.below(50))).into_bytes();
            let is_text = random.below(2) == 0;
            let mut first = if is_text { 1 } else { 2 };
            let mut left = body.as_slice();
            loop {
                let take = random.below(left.len() + 1).min(125);
                let is_last = take == left.len();
                bytes.push(first | if is_last { 0x80 } else { 0 });
                bytes.push(take as u8);
                bytes.extend_from_slice(&left[..take]);
                (first, left) = (0, &left[take..]);
                if random.below(3) == 0 {
                    bytes.extend_from_slice(b"\x89\x01p");
                }
                if is_last {
                    break;
                }
            }
            wanted.push(match is_text {
                true => Received::Text(String::from_utf8(body).unwrap()),
                false => Received::Binary(body),
            });
        }
        bytes.extend_from_slice(b"\x88\x02\x03\xe8");
        let mut cuts: Vec<usize> = (0..5).map(|_| random.below(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let url = upgraded(move |mut stream| {
            for cut in cuts.windows(2) {
                stream.write_all(&bytes[cut[0]..cut[1]]).unwrap();
                thread::yield_now();
            }
            heard(stream);
        });
        let client = quick().connect(&url).unwrap();
        let received: Vec<_> = client.iter().map(Result::unwrap).collect();
        assert_eq!(received, wanted);
    }
}

/// Every length form of a frame, both ways, and a closing handshake, with a protocol machine that
/// is not ours.
#[test]
fn another_implementation_understands_what_is_sent() {
    let url = upgraded(|stream| {
        let mut peer = WebSocket::from_raw_socket(stream, Role::Server, None);
        let end = loop {
            match peer.read() {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                    peer.write(Message::Ping(vec![b'p'; 125].into())).unwrap();
                    peer.send(message).unwrap();
                }
                Ok(Message::Pong(payload)) => assert_eq!(payload.len(), 125),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(end, tungstenite::Error::ConnectionClosed), "{end}");
    });
    let client = quick().connect(&url).unwrap();
    let mut random = Random::seeded();
    for size in [0, 1, 125, 126, 65_535, 65_536, random.below(200_000), random.below(2000)] {
        let sent = match random.below(2) {
            0 => Received::Text("é".repeat(size)),
            _ => Received::Binary((0..size).map(|_| random.below(256) as u8).collect()),
        };
        client.send(sent.as_message()).unwrap();
        client.ping().unwrap();
        assert_eq!(client.recv_timeout(DEADLINE).unwrap(), Some(sent));
    }
    let reason = client.close(CloseReason::new(4000, "done")).unwrap();
    assert_eq!((reason.code(), reason.reason()), (4000, "done"));
}

/// What comes behind a fault is read past, and not for ever.
#[test]
fn a_peer_that_goes_on_after_a_fault_is_left() {
    let (tell, told) = mpsc::channel();
    let url = upgraded(move |mut stream| {
        stream.write_all(b"\x83\x00").unwrap();
        while stream.write_all(&[0; 4096]).is_ok() {}
        tell.send(()).unwrap();
    });
    let client = quick().connect(&url).unwrap();
    assert_eq!(client.recv_timeout(DEADLINE).unwrap_err().kind(), ErrorKind::Misbehaved);
    told.recv_timeout(DEADLINE).unwrap();
}

#[test]
fn a_close_of_another_implementation_is_answered() {
    let (tell, told) = mpsc::channel();
    let url = upgraded(move |stream| {
        let mut peer = WebSocket::from_raw_socket(stream, Role::Server, None);
        let close = CloseFrame { code: 4100.into(), reason: "busy".into() };
        peer.close(Some(close)).unwrap();
        while let Ok(message) = peer.read() {
            tell.send(message).unwrap();
        }
    });
    let client = quick().connect(&url).unwrap();
    assert_eq!(client.recv_timeout(DEADLINE).unwrap(), None);
    let answer = told.recv_timeout(DEADLINE).unwrap();
    assert!(matches!(answer, Message::Close(Some(close)) if u16::from(close.code) == 4100));
}
