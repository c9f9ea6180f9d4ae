//! A handler on a worker defers what blocks: its connection waits for the answer, and nobody else.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use rusty_socks::{
    CloseReason, Context, Handler, Message, NotDeferred, Server, TaskAnswer, TaskThreads,
};
use support::{Client, DEADLINE, TestServer, config, frame};

/// A handler whose tasks tell what they were asked, and wait to be told the answer. It defers once
/// when a connection opens, if asked to, and for each message.
struct Lookup {
    asked: Sender<String>,
    answers: Receiver<String>,
    at_open: bool,
    queue_max: usize,
    closed: Sender<CloseReason>,
}

impl Lookup {
    fn ask(&self, ctx: &mut Context<'_, ()>, question: &str) -> Result<(), NotDeferred> {
        let (asked, answers, question) =
            (self.asked.clone(), self.answers.clone(), question.to_owned());
        ctx.defer(move || {
            asked.send(question.clone()).unwrap();
            let answer = answers.recv().unwrap();
            format!("{question}: {answer}")
        })
    }
}

impl Handler for Lookup {
    type State = ();

    fn task_threads(&self) -> Option<TaskThreads> {
        Some(TaskThreads { threads: 1, queue_max: self.queue_max })
    }

    fn on_open(&self, ctx: &mut Context<'_, ()>) {
        if self.at_open {
            self.ask(ctx, "open").unwrap();
        }
    }

    fn on_message(&self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        let text = message.as_text().unwrap();
        match text {
            "panic" => ctx.defer(|| -> () { panic!("as the test asks") }).unwrap(),
            "now" => {
                ctx.send(text);
            }
            "twice" => {
                self.ask(ctx, text).unwrap();
                let refused = self.ask(ctx, text).unwrap_err();
                ctx.send(&refused.to_string());
            }
            text => {
                if let Err(why) = self.ask(ctx, text) {
                    ctx.send(&why.to_string());
                }
            }
        }
    }

    fn on_answer(&self, ctx: &mut Context<'_, ()>, answer: TaskAnswer) {
        let answer = answer.downcast::<u8>().unwrap_err();
        ctx.send(&answer.downcast::<String>().unwrap());
    }

    fn on_close(&self, _: &mut Context<'_, ()>, reason: &CloseReason) {
        let _ = self.closed.send(reason.clone());
    }
}

struct Stage {
    server: TestServer,
    asked: Receiver<String>,
    answer: Sender<String>,
    closed: Receiver<CloseReason>,
}

/// A server with one worker and one thread for tasks.
fn stage(at_open: bool, queue_max: usize) -> Stage {
    let (asked_sender, asked) = crossbeam_channel::unbounded();
    let (answer, answers) = crossbeam_channel::unbounded();
    let (closed_sender, closed) = crossbeam_channel::unbounded();
    let handler =
        Lookup { asked: asked_sender, answers, at_open, queue_max, closed: closed_sender };
    let echo = |ctx: &mut Context<'_, ()>, message: Message<'_>| {
        ctx.send(message);
        let refused = ctx.defer(|| ()).unwrap_err();
        assert_eq!(refused, NotDeferred::NoThreads);
    };
    let server = Server::builder()
        .config(rusty_socks::Config { thread_pool_size: 1, ..config() })
        .route("/lookup", handler)
        .route("/echo", echo)
        .bind()
        .unwrap();
    Stage { server: TestServer::run(server), asked, answer, closed }
}

impl Stage {
    fn expect_asked(&self, question: &str) {
        assert_eq!(self.asked.recv_timeout(DEADLINE).unwrap(), question);
    }

    fn answer(&self, answer: &str) {
        self.answer.send(answer.to_owned()).unwrap();
    }

    fn others_are_served(&self) {
        let mut other = self.server.connect("/echo");
        other.send("still here");
        assert_eq!(text(&mut other), "still here");
    }
}

fn text(client: &mut Client) -> String {
    client.next().to_text().unwrap().to_owned()
}

#[test]
fn a_connection_waits_for_its_answer_and_nobody_else_does() {
    let stage = stage(false, 10);
    let mut client = stage.server.connect("/lookup");
    client.send("a");
    client.send("now");
    client.send("b");
    stage.expect_asked("a");
    stage.others_are_served();
    assert!(stage.asked.is_empty(), "one at a time");
    stage.answer("1");
    assert_eq!([text(&mut client), text(&mut client)], ["a: 1", "now"]);
    stage.expect_asked("b");
    stage.answer("2");
    assert_eq!(text(&mut client), "b: 2");
    client.send("twice");
    let refused = text(&mut client);
    assert_eq!(refused, NotDeferred::Pending.to_string());
    stage.answer("3");
    assert_eq!(text(&mut client), "twice: 3");
}

#[test]
fn what_came_with_the_upgrade_waits_for_what_the_open_deferred() {
    let stage = stage(true, 10);
    let mut client = stage.server.raw_client();
    let mut bytes = support::upgrade_head("/lookup").into_bytes();
    bytes.extend(frame(0x81, b"now"));
    client.send(&bytes);
    assert_eq!(client.answer().status, 101);
    stage.expect_asked("open");
    stage.answer("1");
    assert_eq!(client.take(2 + 7 + 2 + 3), b"\x81\x07open: 1\x81\x03now");
}

#[test]
fn what_the_queue_cannot_take_is_refused_and_a_panic_closes_its_connection() {
    let stage = stage(false, 1);
    let mut clients: Vec<Client> = (0..3).map(|_| stage.server.connect("/lookup")).collect();
    clients[0].send("first");
    stage.expect_asked("first");
    clients[1].send("second");
    stage.server.wait_for("one waits", |stats| stats.tasks_queued == 1);
    clients[2].send("third");
    assert_eq!(text(&mut clients[2]), NotDeferred::Full.to_string());
    stage.answer("1");
    stage.answer("2");
    assert_eq!(text(&mut clients[0]), "first: 1");
    assert_eq!(text(&mut clients[1]), "second: 2");
    clients[2].send("panic");
    assert_eq!(u16::from(clients[2].closed().unwrap().code), 1011);
    assert_eq!(stage.server.stats().handler_panics, 1);
    clients[0].send("now");
    assert_eq!(text(&mut clients[0]), "now");
}

#[test]
fn an_answer_for_a_connection_that_has_gone_reaches_nobody() {
    let stage = stage(false, 10);
    let mut client = stage.server.upgrade("/lookup");
    client.send(&frame(0x81, b"a"));
    stage.expect_asked("a");
    drop(client);
    // Its end is read once the answer is there.
    stage.answer("1");
    assert_eq!(stage.closed.recv_timeout(DEADLINE).unwrap(), CloseReason::LOST);
    stage.server.wait_until_empty();
    stage.others_are_served();
}

#[test]
fn a_drain_does_not_wait_for_an_answer() {
    let stage = stage(false, 10);
    let mut client = stage.server.connect("/lookup");
    client.send("a");
    stage.expect_asked("a");
    stage.server.handle.shutdown(Duration::from_secs(10));
    assert_eq!(u16::from(client.closed().unwrap().code), 1001);
    stage.answer("1");
    stage.server.handle.join();
}

#[test]
fn a_stepped_server_does_tasks_at_once() {
    let (asked_sender, asked) = crossbeam_channel::unbounded();
    let (answer, answers) = crossbeam_channel::unbounded();
    let (closed, _closed) = crossbeam_channel::unbounded();
    let handler = Lookup { asked: asked_sender, answers, at_open: true, queue_max: 1, closed };
    answer.send("1".to_owned()).unwrap();
    let mut server = Server::builder().route("/", handler).stepped().unwrap();
    let client = server.connect().unwrap();
    client.write(support::upgrade_head("/").as_bytes());
    server.settle();
    assert_eq!(asked.recv().unwrap(), "open");
    assert!(client.read().ends_with(b"\x81\x07open: 1"));
}
