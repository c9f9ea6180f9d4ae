//! Tests of the link, against a server that has bad days, and against a real Redis if there is one.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use rusty_socks_testing::certificates::Authority;

use super::{
    address::RedisAddress,
    fake::{Fake, bulk},
    links::Links,
    settings::Mark,
    *,
};

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

static PUBLISH: Script = Script {
    name: "publish",
    text: "redis.call('PUBLISH', KEYS[1], ARGV[1]) return redis.call('INCR', KEYS[1])",
};
static FAIL: Script = Script { name: "fail", text: "return redis.error_reply('OOM ' .. ARGV[1])" };
static SCRIPTS: [&Script; 2] = [&PUBLISH, &FAIL];

/// A link, and what it told.
struct Tester {
    link: Links,
    events: VecDeque<Event>,
}

impl Tester {
    fn new(address: &str) -> Tester {
        Self::with_ca(address, None)
    }

    fn with_ca(address: &str, ca: Option<&Path>) -> Tester {
        let settings = LinkSettings {
            address: RedisAddress::parse(address).unwrap(),
            ca: ca.map(Path::to_owned),
            node: "n1".to_owned(),
            scripts: &SCRIPTS,
            mark: None,
        };
        Self::with(settings)
    }

    fn with(settings: LinkSettings) -> Tester {
        Tester { link: Links::new(vec![settings]).unwrap(), events: VecDeque::new() }
    }

    fn of(fake: &Fake) -> Tester {
        Self::new(&format!("redis://127.0.0.1:{}", fake.port()))
    }

    fn next(&mut self) -> Event {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            assert!(Instant::now() < end, "nothing happens");
            let mut events = Vec::new();
            self.link.poll(Some(Duration::from_millis(100)), &mut events);
            self.events.extend(events.into_iter().map(|(_, event)| event));
        }
    }

    /// Passes over what comes before the link is up.
    fn until_up(&mut self) -> ServerFacts {
        loop {
            if let Event::Up(facts) = self.next() {
                return facts;
            }
        }
    }

    fn failed(&mut self) -> String {
        match self.next() {
            Event::Failed(why) => why,
            other => panic!("{other:?} instead of a failure"),
        }
    }

    fn down(&mut self) -> String {
        match self.next() {
            Event::Down(why) => why,
            other => panic!("{other:?} instead of a loss"),
        }
    }

    fn answer(&mut self) -> (u64, Result<Value, Refused>) {
        match self.next() {
            Event::Answer { tag, answer } => (tag, answer),
            other => panic!("{other:?} instead of an answer"),
        }
    }

    fn command(&mut self, tag: u64, parts: &[&str]) {
        let args = parts.iter().map(|part| part.to_string().into()).collect();
        self.link.order(0, Order::Command { tag, args });
    }

    fn script(&mut self, tag: u64, script: &'static Script, key: &str, arg: &str) {
        let (keys, args) = (vec![key.to_owned().into()], vec![arg.to_owned().into()]);
        self.link.order(0, Order::Script { tag, script, keys, args });
    }

    fn subscribe(&mut self, channel: &'static str) {
        self.link.order(0, Order::Subscribe(vec![channel.into()]));
        match self.next() {
            Event::Subscribed(confirmed) => assert_eq!(confirmed, channel),
            other => panic!("{other:?} instead of a confirmation"),
        }
    }
}

fn text(text: &str) -> Value {
    Value::Bytes(text.to_owned().into())
}

fn is(command: &[String], parts: &[&str]) -> bool {
    command.iter().map(String::as_str).take(parts.len()).eq(parts.iter().copied())
}

#[test]
fn a_link_says_who_it_is_and_loads_its_scripts() {
    let fake = Fake::start(|_| None);
    let mut tester = Tester::new(&format!("redis://al:pw@localhost:{}/3", fake.port()));
    assert!(!tester.link.is_up());
    let facts = tester.until_up();
    assert!(tester.link.is_up());
    assert_eq!((facts.run_id.as_str(), facts.version.as_str()), ("abc", "7.0.15"));
    let heard = fake.heard();
    let count = |parts: &[&str]| heard.iter().filter(|command| is(command, parts)).count();
    assert_eq!(count(&["AUTH", "al", "pw"]), 2);
    assert_eq!(count(&["SELECT", "3"]), 2);
    assert_eq!(count(&["CLIENT", "SETNAME", "rusty_socks:n1"]), 2);
    assert_eq!(count(&["SCRIPT", "LOAD", PUBLISH.text]), 1);
    assert!(is(&heard[0], &["AUTH"]), "{heard:?}");
}

#[test]
fn a_link_ends_the_earlier_one_where_its_orders_may_still_arrive() {
    let known = Arc::new(parking_lot::Mutex::new(("abc", true)));
    let says = Arc::clone(&known);
    let fake = Fake::start(move |command| {
        let (run_id, tells_ids) = *says.lock();
        match command {
            [info, server] if info == "INFO" && server == "server" => {
                Some(bulk(&format!("redis_version:7.0.15\r\nrun_id:{run_id}\r\n")))
            }
            [client, ..] if client == "CLIENT" && !tells_ids => Some("-NOPERM no\r\n".to_owned()),
            _ => None,
        }
    });
    let mut tester = Tester::of(&fake);
    tester.until_up();
    // The same Redis; one that tells no ids, or allows no end; another one behind the same address.
    let cases = [
        (("abc", true), true),
        (("abc", false), true),
        (("abc", true), false),
        (("other", true), false),
        (("other", true), true),
    ];
    let ends = |command: &Vec<String>| is(command, &["CLIENT", "KILL"]);
    assert!(!fake.heard().iter().any(ends), "there is none before the first");
    for (at, (now, is_ended)) in cases.into_iter().enumerate() {
        *known.lock() = now;
        fake.hang_up();
        tester.down();
        tester.until_up();
        let heard: Vec<_> = fake.heard().into_iter().filter(ends).collect();
        let expected = [["CLIENT", "KILL", "ID", "7"]];
        assert_eq!(heard, &expected[..usize::from(is_ended)], "{at}: {now:?}");
    }
}

#[test]
fn answers_come_in_order_and_orders_leave_together() {
    let fake = Fake::start(|_| None);
    let mut tester = Tester::of(&fake);
    tester.until_up();
    for tag in 0..1000 {
        tester.command(tag, &["ECHO", &tag.to_string()]);
    }
    assert!(tester.link.unsent_bytes() > 1000);
    for tag in 0..1000 {
        assert_eq!(tester.answer(), (tag, Ok(text(&tag.to_string()))));
    }
    assert_eq!(tester.link.unsent_bytes(), 0);
}

#[test]
fn a_redis_that_has_forgotten_the_scripts_is_connected_to_anew() {
    let knows = Arc::new(AtomicBool::new(false));
    let known = Arc::clone(&knows);
    let fake = Fake::start(move |command| {
        let has_it = known.load(Ordering::Relaxed);
        match command[0].as_str() {
            "SCRIPT" => {
                known.store(true, Ordering::Relaxed);
                None
            }
            "EVALSHA" if has_it => Some(":7\r\n".to_owned()),
            "EVALSHA" => Some("-NOSCRIPT No matching script.\r\n".to_owned()),
            _ => None,
        }
    });
    let mut tester = Tester::of(&fake);
    tester.until_up();
    knows.store(false, Ordering::Relaxed);
    fake.heard();
    tester.script(5, &PUBLISH, "k", "a");
    tester.command(6, &["ECHO", "later"]);
    // No answer, and nothing runs once more behind what was ordered later.
    assert_eq!(tester.down(), "NOSCRIPT No matching script.");
    assert!(fake.heard().iter().all(|command| command[0] != "EVAL"));
    tester.until_up();
    tester.script(5, &PUBLISH, "k", "a");
    assert_eq!(tester.answer(), (5, Ok(Value::Int(7))));
}

#[test]
fn a_redis_that_is_silent_is_left_and_found_again() {
    let is_silent = Arc::new(AtomicBool::new(true));
    let silent = Arc::clone(&is_silent);
    let fake = Fake::start(move |command| {
        (command[0] == "ECHO" && silent.load(Ordering::Relaxed)).then(String::new)
    });
    let mut tester = Tester::of(&fake);
    tester.until_up();
    let since = Instant::now();
    tester.command(1, &["ECHO", "a"]);
    assert_eq!(tester.down(), "no answer for 2000 ms");
    assert!(since.elapsed() >= ANSWER_TIMEOUT);
    assert!(!tester.link.is_up());
    // Forgotten, and not an error.
    tester.command(2, &["ECHO", "b"]);
    is_silent.store(false, Ordering::Relaxed);
    tester.until_up();
    tester.command(3, &["ECHO", "c"]);
    assert_eq!(tester.answer(), (3, Ok(text("c"))));
}

#[test]
fn a_subscription_that_is_not_confirmed_ends_the_link() {
    let fake = Fake::start(|command| (command[0] == "SUBSCRIBE").then(String::new));
    let mut tester = Tester::of(&fake);
    tester.until_up();
    tester.link.order(0, Order::Subscribe(vec!["c".into()]));
    assert_eq!(tester.down(), "no answer for 2000 ms");
}

#[test]
fn a_lost_connection_is_told_once_and_made_again() {
    let fake = Fake::start(|_| None);
    let mut tester = Tester::of(&fake);
    tester.until_up();
    fake.hang_up();
    assert_eq!(tester.down(), "it has closed the connection");
    assert!(matches!(tester.next(), Event::Up(_)));
    tester.link.reconnect(0, "the probe is silent");
    tester.link.reconnect(0, "once more");
    assert_eq!(tester.down(), "the probe is silent");
    assert!(matches!(tester.next(), Event::Up(_)));
}

#[test]
fn who_became_a_replica_is_left_after_its_answer() {
    let fake = Fake::start(|command| {
        (command[0] == "SET").then(|| "-READONLY You can't write against a replica.\r\n".to_owned())
    });
    let mut tester = Tester::of(&fake);
    tester.until_up();
    tester.command(9, &["SET", "a", "b"]);
    let (tag, answer) = tester.answer();
    assert_eq!((tag, answer.unwrap_err().code), (9, Code::ReadOnly));
    assert!(tester.down().starts_with("READONLY"));
    tester.until_up();
}

#[test]
fn what_is_no_answer_ends_the_link() {
    let fake = Fake::start(|_| None);
    let mut tester = Tester::of(&fake);
    for (said, told) in [
        ("+OK\r\n", "it answers what nobody asked"),
        ("-ERR max number of clients reached\r\n", "ERR max number of clients reached"),
        ("HTTP/1.1 400\r\n", "not a reply of Redis"),
        ("$99999999999\r\n", "a reply of more than 67108864 bytes"),
    ] {
        tester.until_up();
        fake.say(said);
        let why = tester.down();
        assert!(
            [told, "no message of a subscription"].contains(&why.as_str()) || why.ends_with(told),
            "{why}"
        );
        fake.hang_up();
    }
}

#[test]
fn why_there_is_no_link_is_told() {
    for (wrong, said, told) in [
        ("AUTH", "-WRONGPASS invalid username-password pair.\r\n", "WRONGPASS invalid"),
        ("AUTH", "-ERR unknown command AUTH, with: 'secret'\r\n", "it refuses the password"),
        ("CLIENT", "-NOAUTH Authentication required.\r\n", "NOAUTH"),
        ("SELECT", "-ERR DB index is out of range\r\n", "database 9: ERR DB index"),
        ("SCRIPT", "-LOADING Redis is loading\r\n", "script publish: LOADING"),
        ("INFO", "$12\r\nrole:slave\r\n\r\n", "it is a replica"),
    ] {
        let fake = Fake::start(move |command| (command[0] == wrong).then(|| said.to_owned()));
        let mut tester = Tester::new(&format!("redis://:secret@127.0.0.1:{}/9", fake.port()));
        for _ in 0..2 {
            let why = tester.failed();
            let address = format!("127.0.0.1:{}: ", fake.port());
            assert!(why.starts_with(&address) && why.contains(told), "{why}");
            assert!(!why.contains("secret"), "{why}");
        }
    }
    let port = free_port();
    assert!(Tester::new(&format!("redis://127.0.0.1:{port}")).failed().contains("refused"));
    let fake = Fake::start(|_| Some(String::new()));
    assert!(Tester::of(&fake).failed().ends_with("it does not answer in time"));
}

#[test]
fn sentinels_say_where_the_primary_is_and_where_it_went() {
    let first = Fake::start(|_| None);
    let second = Fake::start(|_| None);
    let ports = [first.port(), second.port()];
    let now = Arc::new(AtomicUsize::new(0));
    let primary = Arc::clone(&now);
    let knows_it = Fake::start(move |command| {
        let port = ports[primary.load(Ordering::Relaxed)].to_string();
        is(command, &["SENTINEL", "get-master-addr-by-name", "tea"])
            .then(|| format!("*2\r\n{}{}", bulk("127.0.0.1"), bulk(&port)))
    });
    let knows_nothing =
        Fake::start(|command| is(command, &["SENTINEL"]).then(|| "*-1\r\n".to_owned()));
    let hosts = [free_port(), knows_nothing.port(), knows_it.port()];
    let hosts = hosts.map(|port| format!("127.0.0.1:{port}")).join(",");
    let mut tester = Tester::new(&format!("redis+sentinel://{hosts}/tea"));
    assert_eq!(tester.until_up().address, format!("127.0.0.1:{}", ports[0]));
    now.store(1, Ordering::Relaxed);
    let address = format!("127.0.0.1:{}", ports[1]);
    assert_eq!(tester.down(), format!("the Sentinels say that the primary is {address}"));
    assert_eq!(tester.until_up().address, address);

    let mut tester = Tester::new(&format!("redis+sentinel://127.0.0.1:{}/x", knows_nothing.port()));
    assert!(tester.failed().ends_with("knows no primary \"x\""));
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A real Redis, which ends with the test.
struct Redis(Child);

impl Redis {
    /// Starts one, or returns `None` where there is none.
    fn start(dir: &Path, options: &[&str]) -> Option<Redis> {
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(dir)
            .args(options)
            .stdout(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Some(Redis(child)),
            Err(_) => {
                eprintln!("left out: there is no redis-server here");
                None
            }
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_redis_is_used_lost_and_found() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port().to_string());
    let options = ["--port", &port, "--requirepass", "pw", "--maxmemory", "50mb"];
    let Some(redis) = Redis::start(dir.path(), &options) else { return };
    let mut tester = Tester::new(&format!("redis://:pw@127.0.0.1:{port}/2"));
    let facts = tester.until_up();
    assert_eq!(facts.run_id.len(), 40);
    tester.subscribe("tea");

    // More than sockets hold, while their answers are not read.
    let large = "x".repeat(10_000);
    for tag in 0..2000 {
        tester.script(tag, &PUBLISH, "tea", &format!("{tag} {large}"));
    }
    let (mut messages, mut answers) = (0, 0);
    while messages < 2000 || answers < 2000 {
        match tester.next() {
            Event::Message { channel, payload } => {
                assert_eq!(channel, "tea");
                assert!(payload.starts_with(format!("{messages} x").as_bytes()));
                messages += 1;
            }
            Event::Answer { tag, answer } => {
                assert_eq!((tag, answer), (answers, Ok(Value::Int(answers as i64 + 1))));
                answers += 1;
            }
            other => panic!("{other:?}"),
        }
    }

    tester.subscribe("milk");
    tester.link.order(0, Order::Unsubscribe(vec!["milk".into()]));
    let nobody = Value::List(vec![text("milk"), Value::Int(0)]);
    let end = Instant::now() + PATIENCE;
    while {
        tester.command(0, &["PUBSUB", "NUMSUB", "milk"]);
        tester.answer() != (0, Ok(nobody.clone()))
    } {
        assert!(Instant::now() < end, "it is still subscribed");
    }

    tester.command(1, &["SCRIPT", "FLUSH"]);
    tester.script(2, &FAIL, "k", "no");
    assert_eq!(tester.answer(), (1, Ok(text("OK"))));
    assert!(tester.down().starts_with("NOSCRIPT "));
    tester.until_up();
    tester.subscribe("tea");
    tester.script(2, &FAIL, "k", "no");
    let (tag, refused) = tester.answer();
    assert_eq!((tag, refused.unwrap_err().code), (2, Code::OutOfMemory));

    tester.command(3, &["CLIENT", "KILL", "TYPE", "pubsub"]);
    // The answer comes first, or is forgotten.
    let why = loop {
        match tester.next() {
            Event::Down(why) => break why,
            other => assert!(matches!(other, Event::Answer { tag: 3, .. }), "{other:?}"),
        }
    };
    assert_eq!(why, "it has closed the connection");
    let again = tester.until_up();
    let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    assert!((facts.now_ms..=since_1970).contains(&again.now_ms), "{facts:?} {again:?}");
    assert!(since_1970 - facts.now_ms < PATIENCE.as_millis() as u64, "{facts:?}");
    assert_eq!(ServerFacts { now_ms: facts.now_ms, ..again }, facts);

    drop(redis);
    tester.down();
    assert!(tester.failed().contains("refused"));
    let _redis = Redis::start(dir.path(), &options);
    assert_ne!(tester.until_up().run_id, facts.run_id);
}

#[cfg(unix)]
#[test]
fn a_unix_socket_leads_to_a_redis() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.sock");
    let path = path.to_str().unwrap();
    let options = ["--port", "0", "--unixsocket", path];
    let Some(_redis) = Redis::start(dir.path(), &options) else { return };
    let mut tester = Tester::new(&format!("unix://{path}?db=1"));
    assert_eq!(tester.until_up().address, path);
    tester.command(1, &["ECHO", "a"]);
    assert_eq!(tester.answer(), (1, Ok(text("a"))));
}

#[test]
fn tls_leads_to_a_redis_that_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("the authority");
    let [cert, key] = authority.server(&["127.0.0.1"]).write(dir.path(), "redis");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let port = free_port().to_string();
    let [cert, key] = [cert.to_str().unwrap(), key.to_str().unwrap()];
    let mut options = vec!["--tls-port", &port, "--port", "0", "--tls-cert-file", cert];
    options.extend(["--tls-key-file", key, "--tls-auth-clients", "no"]);
    options.extend(["--tls-ca-cert-file", ca.to_str().unwrap()]);
    let Some(_redis) = Redis::start(dir.path(), &options) else { return };
    let mut tester = Tester::with_ca(&format!("rediss://127.0.0.1:{port}"), Some(&ca));
    tester.until_up();
    tester.subscribe("tea");
    let large = "x".repeat(200_000);
    for tag in 0..20 {
        tester.command(tag, &["ECHO", &large]);
    }
    for tag in 0..20 {
        assert_eq!(tester.answer(), (tag, Ok(text(&large))));
    }

    let why = Tester::new(&format!("rediss://127.0.0.1:{port}")).failed();
    assert!(why.contains("UnknownIssuer"), "{why}");
}

#[test]
fn a_file_of_authorities_must_have_some() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    let told = || Trust::new(Some(&ca)).unwrap_err().to_string();
    assert!(told().contains("ca.pem: No such file"), "{}", told());
    std::fs::write(&ca, "no").unwrap();
    assert!(told().contains("must hold PEM certificates"), "{}", told());
}

#[test]
fn who_does_not_speak_tls_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answering = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let _ = socket.write_all(b"-ERR Protocol error\r\n");
        // Until the link has read it.
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let mut tester = Tester::new(&format!("rediss://127.0.0.1:{port}"));
    assert!(tester.failed().contains("does not speak TLS: an address without TLS begins"));
    drop(tester);
    answering.join().unwrap();
}

#[test]
fn a_redis_of_another_list_is_not_used() {
    let known = Arc::new(parking_lot::Mutex::new("2/3"));
    let says = Arc::clone(&known);
    let fake = Fake::start(move |command| match is(command, &["GET", "p:list"]) {
        true => Some(bulk(*says.lock())),
        false => None,
    });
    let settings = || LinkSettings {
        address: RedisAddress::parse(&format!("redis://127.0.0.1:{}", fake.port())).unwrap(),
        ca: None,
        node: "n1".to_owned(),
        scripts: &SCRIPTS,
        mark: Some(Mark::new("p:list".into(), 0, 2, 10_000)),
    };
    let mut tester = Tester::with(settings());
    let Event::OtherList(why) = tester.next() else { panic!("no other list") };
    let expected =
        "it is number 1 of 2 in redis_url, and number 2 of 3 for other nodes that use it";
    assert!(why.contains(expected), "{why}");
    assert!(Link::try_out(settings()).unwrap_err().contains(expected));
    *known.lock() = "1/2";
    fake.heard();
    while !matches!(tester.next(), Event::Up(_)) {}
    let set = ["SET", "p:list", "1/2", "NX", "PX", "10000"];
    assert!(fake.heard().iter().any(|command| is(command, &set)));
    Link::try_out(settings()).unwrap();
    assert!(!fake.heard().iter().any(|command| is(command, &set)), "a trial leaves nothing");
}

#[test]
fn a_poll_ends_when_its_waker_rings() {
    let fake = Fake::start(|_| None);
    let mut tester = Tester::of(&fake);
    tester.until_up();
    let waker = tester.link.waker();
    let ringing = thread::spawn(move || waker.wake());
    let since = Instant::now();
    tester.link.poll(Some(PATIENCE), &mut Vec::new());
    assert!(since.elapsed() < PATIENCE);
    ringing.join().unwrap().unwrap();
}
