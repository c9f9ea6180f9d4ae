//! A blocking handler is asked about upgrades on its own threads, and nobody else waits for it.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use rusty_socks::{Config, Context, Handler, MayBlock, Message, Refusal, Request, Server};
use support::{RawClient, TestServer, config, frame, upgrade_head};

/// A handler that tells of each upgrade, and waits to be told the user's name.
struct Lookup {
    asked: Sender<String>,
    answers: Receiver<Result<String, Refusal>>,
}

impl Handler<MayBlock> for Lookup {
    type State = String;

    fn on_upgrade(&self, request: &Request<'_>) -> Result<String, Refusal> {
        assert!(request.remote_addr().is_some());
        self.asked.send(request.query().to_owned()).unwrap();
        self.answers.recv().unwrap()
    }

    fn on_message(&self, ctx: &mut Context<'_, String, MayBlock>, _: Message<'_>) {
        let name = ctx.state().clone();
        ctx.send(Message::Text(&name));
    }
}

struct Stage {
    server: TestServer,
    asked: Receiver<String>,
    answer: Sender<Result<String, Refusal>>,
}

/// A server with one worker, on which `/lookup` blocks and `/echo` does not.
fn stage(config: Config, queue_max: usize) -> Stage {
    let (asked_sender, asked) = crossbeam_channel::unbounded();
    let (answer, answers) = crossbeam_channel::unbounded();
    let handler = Lookup { asked: asked_sender, answers }.blocking(1, queue_max);
    let server = Server::builder()
        .config(Config { thread_pool_size: 1, ..config })
        .route("/lookup", handler)
        .route("/echo", |ctx: &mut Context<'_, ()>, message: Message<'_>| {
            ctx.send(message);
        })
        .bind()
        .unwrap();
    Stage { server: TestServer::run(server), asked, answer }
}

impl Stage {
    fn ask(&self, query: &str) -> RawClient {
        let mut client = self.server.raw_client();
        client.send(upgrade_head(&format!("/lookup?{query}")).as_bytes());
        client
    }

    fn others_are_served(&self) {
        let mut other = self.server.connect("/echo");
        other.send("still here");
        assert_eq!(other.next().to_text().unwrap(), "still here");
        assert_eq!(self.server.get("/health").0, 200);
    }
}

fn text(client: &mut RawClient) -> String {
    let header = client.take(2);
    String::from_utf8(client.take(usize::from(header[1]))).unwrap()
}

#[test]
fn a_lookup_at_the_upgrade_holds_up_nobody_else() {
    let stage = stage(config(), 10);
    let mut client = stage.ask("token=1");
    // What the client says before it is answered waits.
    client.send(&frame(0x81, b"who am I?"));
    assert_eq!(stage.asked.recv().unwrap(), "token=1");
    stage.others_are_served();
    assert_eq!(stage.server.stats().pending_heads, 1);
    stage.answer.send(Ok("ann".to_owned())).unwrap();
    assert_eq!(client.answer().status, 101);
    assert_eq!(text(&mut client), "ann");
}

#[test]
fn a_refusal_and_a_panic_are_answered() {
    let stage = stage(config(), 10);
    let mut client = stage.ask("token=2");
    stage.answer.send(Err(Refusal::unauthorized("no such user"))).unwrap();
    let answer = client.answer();
    assert_eq!((answer.status, answer.json()["error"].as_str()), (401, Some("unauthorized")));
    assert_eq!(answer.json()["message"], "no such user");
    client.expect_end();

    let Stage { server, asked, answer: answers } = stage;
    drop(answers);
    let mut client = server.raw_client();
    client.send(upgrade_head("/lookup").as_bytes());
    assert_eq!(client.answer().status, 500);
    client.expect_end();
    assert_eq!((server.stats().handler_panics, asked.len()), (1, 2));
}

#[test]
fn what_the_pool_cannot_take_is_refused() {
    let stage = stage(config(), 1);
    let mut first = stage.ask("1");
    assert_eq!(stage.asked.recv().unwrap(), "1");
    let mut second = stage.ask("2");
    let answer = second.answer();
    assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("handler_busy")));
    assert!(answer.header("Retry-After").is_some());
    second.expect_end();
    stage.answer.send(Ok("ann".to_owned())).unwrap();
    assert_eq!(first.answer().status, 101);
    assert_eq!(stage.server.stats().rejected["handler_busy"], 1);
}

#[test]
fn a_lookup_that_takes_too_long_is_refused_and_a_client_may_leave() {
    let stage = stage(Config { queue_timeout: Duration::from_millis(200), ..config() }, 10);
    let mut late = stage.ask("late");
    let answer = late.answer();
    assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("handler_busy")));
    late.expect_end();
    drop(stage.ask("gone"));
    // The answers come to connections that are no longer there.
    for name in ["ann", "ben"] {
        stage.answer.send(Ok(name.to_owned())).unwrap();
    }
    stage.server.wait_for("both are over", |stats| stats.sockets == 0 && stats.pending_heads == 0);
    stage.others_are_served();
}

#[test]
fn a_shutdown_refuses_those_that_are_being_looked_up() {
    let stage = stage(config(), 10);
    let mut client = stage.ask("x");
    stage.asked.recv().unwrap();
    stage.server.handle.shutdown(Duration::from_secs(5));
    let answer = client.answer();
    assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("draining")));
    stage.answer.send(Ok("ann".to_owned())).unwrap();
    stage.server.handle.join();
}
