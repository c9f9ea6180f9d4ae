//! Makes the two connections of a link, and asks Sentinels where the primary is. All of it blocks.

use std::{
    net::ToSocketAddrs,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    address::{Credentials, HostPort, Place},
    order::{Code, Refused, ServerFacts, Value},
    settings::{LinkSettings, Mark},
    stream::{Blocking, Stream},
    talk::{Talk, Target},
    trust::Trust,
};

/// How long it may take to connect to a Redis, from the first packet to the last answer. Looking up
/// the address of its name is not in it: the system has its own bounds for that.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long one Sentinel may take to say where the primary is.
pub(crate) const SENTINEL_TIMEOUT: Duration = Duration::from_secs(1);

/// The oldest Redis whose commands suffice; Valkey names one that it is like.
const VERSION_MIN: (u32, u32) = (6, 2);

/// Two connections to a Redis that is ready.
#[derive(Debug)]
pub(super) struct Dialed {
    pub(super) commands: Stream<Blocking>,
    pub(super) subscriptions: Stream<Blocking>,
    pub(super) facts: ServerFacts,
    /// The hash of each script of the settings, in their order.
    pub(super) hashes: Vec<Bytes>,
    /// The number by which the Redis knows the connection for commands, if it tells that.
    number: Option<i64>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum DialError {
    Failed(String),
    /// Nodes that have another list of Redises use this one.
    OtherList(String),
}

impl DialError {
    pub(super) fn into_text(self) -> String {
        match self {
            DialError::Failed(why) | DialError::OtherList(why) => why,
        }
    }

    /// Says where it was.
    fn at(self, address: &str) -> DialError {
        match self {
            DialError::Failed(why) => DialError::Failed(format!("{address}: {why}")),
            DialError::OtherList(why) => DialError::OtherList(format!("{address}: {why}")),
        }
    }
}

impl From<String> for DialError {
    fn from(why: String) -> DialError {
        DialError::Failed(why)
    }
}

impl From<&str> for DialError {
    fn from(why: &str) -> DialError {
        DialError::Failed(why.to_owned())
    }
}

/// Knows the way to the Redis.
#[derive(Debug)]
pub(super) struct Route {
    settings: Arc<LinkSettings>,
    trust: Option<Trust>,
    /// Which Sentinel is asked first: the last one whose word was good.
    sentinel: usize,
    /// The Redis that the last link led to, by its `run_id`, and its connection for commands there.
    earlier: Option<(String, i64)>,
}

impl Route {
    pub(super) fn new(settings: Arc<LinkSettings>, trust: Option<Trust>) -> Route {
        Route { settings, trust, sentinel: 0, earlier: None }
    }

    /// Connects twice, and makes everything ready. The error says what failed where.
    pub(super) fn dial(&mut self) -> Result<Dialed, DialError> {
        let dialed = self.connect(true)?;
        self.earlier = dialed.number.map(|number| (dialed.facts.run_id.clone(), number));
        Ok(dialed)
    }

    /// Connects twice, and leaves nothing behind but scripts.
    pub(super) fn try_out(&mut self) -> Result<ServerFacts, DialError> {
        self.connect(false).map(|dialed| dialed.facts)
    }

    fn connect(&mut self, leaves_mark: bool) -> Result<Dialed, DialError> {
        let settings = Arc::clone(&self.settings);
        let (target, address) = match &settings.address.place {
            Place::Tcp(host) => (resolved(host)?, host.to_string()),
            Place::Unix(path) => (Target::Unix(path.clone()), path.display().to_string()),
            Place::Sentinel { .. } => {
                let host = self.primary()?;
                (resolved(&host)?, host.to_string())
            }
        };
        self.make_ready(target, &address, leaves_mark).map_err(|why| {
            // This one was of no use, or too late to know.
            self.sentinel = self.sentinel.wrapping_add(1);
            why.at(&address)
        })
    }

    /// Asks the Sentinels, one after the other, where the primary is.
    pub(super) fn primary(&mut self) -> Result<HostPort, String> {
        let settings = Arc::clone(&self.settings);
        let Place::Sentinel { sentinels, primary } = &settings.address.place else {
            return Err("there is no Sentinel".to_owned());
        };
        let mut reasons = Vec::new();
        for turn in 0..sentinels.len() {
            let index = self.sentinel.wrapping_add(turn) % sentinels.len();
            match self.ask_sentinel(&sentinels[index], primary) {
                Ok(host) => {
                    self.sentinel = index;
                    return Ok(host);
                }
                Err(why) => reasons.push(format!("Sentinel {}: {why}", sentinels[index])),
            }
        }
        Err(reasons.join("; "))
    }

    fn ask_sentinel(&self, sentinel: &HostPort, primary: &str) -> Result<HostPort, String> {
        let target = resolved(sentinel)?;
        let deadline = Instant::now() + SENTINEL_TIMEOUT;
        let mut talk = Talk::open(&target, self.trust.as_ref(), deadline)?;
        let question = || vec![command(&["SENTINEL", "get-master-addr-by-name", primary])];
        let mut answer = one(talk.ask(question())?);
        // Sentinels have passwords less often than what they watch, and refuse one not asked for.
        if let Err(refused) = &answer
            && refused.code == Code::NoPermission
            && let Some(credentials) = &self.settings.address.credentials
        {
            authenticate(&mut talk, credentials)?;
            answer = one(talk.ask(question())?);
        }
        let address = match answer.map_err(|refused| refused.text)? {
            Value::List(parts) => parts,
            Value::Nil => return Err(format!("knows no primary {primary:?}")),
            _ => return Err("its answer is no address".to_owned()),
        };
        let text = |value: Option<&Value>| match value {
            Some(Value::Bytes(bytes)) => String::from_utf8(bytes.to_vec()).ok(),
            _ => None,
        };
        let port = text(address.get(1)).and_then(|port| port.parse().ok());
        match (text(address.first()), port) {
            (Some(host), Some(port)) => Ok(HostPort { host, port }),
            _ => Err("its answer is no address".to_owned()),
        }
    }

    fn make_ready(
        &self,
        target: Target,
        address: &str,
        leaves_mark: bool,
    ) -> Result<Dialed, DialError> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let settings = &self.settings;
        let mut commands = Talk::open(&target, self.trust.as_ref(), deadline)?;
        self.greet(&mut commands)?;

        let asked =
            [&["INFO", "replication"][..], &["INFO", "server"], &["TIME"], &["CLIENT", "ID"]];
        let mut questions: Vec<_> = asked.into_iter().map(command).collect();
        let load = |text| command(&["SCRIPT", "LOAD", text]);
        questions.extend(settings.scripts.iter().map(|script| load(script.text)));
        let mut answers = commands.ask(questions)?.into_iter();
        let mut info = || match answers.next() {
            Some(Ok(Value::Bytes(text))) => Ok(String::from_utf8_lossy(&text).into_owned()),
            Some(Err(refused)) => Err(refused.text),
            _ => Err("its answer to INFO is no text".to_owned()),
        };
        let (replication, server) = (info()?, info()?);
        let now_ms = match answers.next() {
            Some(Ok(time)) => time_ms(&time).ok_or("its answer to TIME is no time")?,
            Some(Err(refused)) => return Err(refused.text.into()),
            None => return Err("no answer to TIME".into()),
        };
        // Who forbids the command can be used all the same.
        let number = match answers.next() {
            Some(Ok(Value::Int(number))) => Some(number),
            _ => None,
        };
        let facts = facts(&replication, &server, address, now_ms)?;
        let mut hashes = Vec::new();
        for (script, answer) in settings.scripts.iter().zip(answers) {
            match answer {
                Ok(Value::Bytes(hash)) => hashes.push(hash),
                Err(refused) => {
                    return Err(format!("script {}: {}", script.name, refused.text).into());
                }
                Ok(_) => return Err(format!("script {}: no hash", script.name).into()),
            }
        }
        if let Some(mark) = &settings.mark {
            check_mark(&mut commands, mark, leaves_mark)?;
        }
        if let Some((run_id, earlier)) = &self.earlier
            && leaves_mark
            && *run_id == facts.run_id
        {
            // What is on its way there still would undo what is told from now on: a session that
            // is written down late is the one from before.
            commands.ask(vec![command(&["CLIENT", "KILL", "ID", &earlier.to_string()])])?;
        }

        // A name with several addresses may be several servers.
        let same = match (target, commands.reached) {
            (Target::Tcp { host, .. }, Some(address)) => {
                Target::Tcp { host, addresses: vec![address] }
            }
            (target, _) => target,
        };
        let mut subscriptions = Talk::open(&same, self.trust.as_ref(), deadline)?;
        self.greet(&mut subscriptions)?;
        let (commands, subscriptions) = (commands.into_stream(), subscriptions.into_stream());
        Ok(Dialed { commands, subscriptions, facts, hashes, number })
    }

    /// Says who speaks, and chooses the database.
    fn greet(&self, talk: &mut Talk) -> Result<(), String> {
        let settings = &self.settings;
        if let Some(credentials) = &settings.address.credentials {
            authenticate(talk, credentials)?;
        }
        let name = format!("rusty_socks:{}", settings.node);
        let mut commands = vec![command(&["CLIENT", "SETNAME", &name])];
        let database = settings.address.database;
        if database != 0 {
            commands.push(command(&["SELECT", &database.to_string()]));
        }
        let mut answers = talk.ask(commands)?.into_iter();
        // The name is for people. Who forbids the command, or has none, can be used all the same,
        // unless nothing may be asked before a password.
        if let Some(Err(refused)) = answers.next()
            && refused.text.starts_with("NOAUTH")
        {
            return Err(refused.text);
        }
        match answers.next() {
            Some(Err(refused)) => Err(format!("database {database}: {}", refused.text)),
            _ => Ok(()),
        }
    }
}

/// Fails if this Redis stands elsewhere in the list of nodes that are alive. If there are none, it
/// learns where it stands in this one.
fn check_mark(talk: &mut Talk, mark: &Mark, leaves_mark: bool) -> Result<(), DialError> {
    let (key, text) = (mark.key.clone(), mark.text.clone());
    let mut commands = Vec::new();
    if leaves_mark {
        let kept_ms: Bytes = mark.kept_ms.to_string().into();
        let [set, nx, px] = ["SET", "NX", "PX"].map(|word| Bytes::from_static(word.as_bytes()));
        commands.push(vec![set, key.clone(), text, nx, px, kept_ms]);
    }
    commands.push(vec![Bytes::from_static(b"GET"), key]);
    match talk.ask(commands)?.pop() {
        Some(Ok(Value::Nil)) => Ok(()),
        Some(Ok(Value::Bytes(known))) if known == mark.text => Ok(()),
        Some(Ok(Value::Bytes(known))) => Err(DialError::OtherList(mark.told_other(&known))),
        Some(Err(refused)) => Err(refused.text.into()),
        _ => Err("its answer to GET is no text".into()),
    }
}

fn authenticate(talk: &mut Talk, credentials: &Credentials) -> Result<(), String> {
    let mut auth = vec!["AUTH"];
    auth.extend(credentials.user.as_deref());
    auth.push(&credentials.password);
    one(talk.ask(vec![command(&auth)])?).map(drop).map_err(|refused| {
        // A server that does not know the command repeats what it was told.
        match refused.text.contains(&credentials.password) {
            true => "it refuses the password".to_owned(),
            false => refused.text,
        }
    })
}

fn command(parts: &[&str]) -> Vec<Bytes> {
    parts.iter().map(|part| Bytes::copy_from_slice(part.as_bytes())).collect()
}

fn one(answers: Vec<Result<Value, Refused>>) -> Result<Value, Refused> {
    answers.into_iter().next().unwrap_or(Ok(Value::Nil))
}

/// Reads what the Redis says of itself, which must be a primary.
fn facts(
    replication: &str,
    server: &str,
    address: &str,
    now_ms: u64,
) -> Result<ServerFacts, String> {
    let field = |text: &str, name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim().to_owned())
    };
    match field(replication, "role").as_deref() {
        Some("master") => {}
        Some("slave") => return Err("it is a replica, and only a primary can be used".to_owned()),
        role => return Err(format!("it is no primary: its role is {}", role.unwrap_or("unknown"))),
    }
    let needed = |text, name| field(text, name).ok_or_else(|| format!("its INFO has no {name}"));
    let version = needed(server, "redis_version")?;
    if !is_new_enough(&version) {
        let (major, minor) = VERSION_MIN;
        return Err(format!("it has version {version}, and {major}.{minor} or newer is needed"));
    }
    let (run_id, address) = (needed(server, "run_id")?, address.to_owned());
    Ok(ServerFacts { run_id, version, address, now_ms })
}

/// Reads an answer to `TIME`, in milliseconds.
fn time_ms(time: &Value) -> Option<u64> {
    let Value::List(parts) = time else { return None };
    let part = |at: usize| match parts.get(at) {
        Some(Value::Bytes(digits)) => std::str::from_utf8(digits).ok()?.parse::<u64>().ok(),
        _ => None,
    };
    part(0)?.checked_mul(1000)?.checked_add(part(1)? / 1000)
}

/// Whether a Redis of this version can be used; one whose version is no number is tried.
fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= VERSION_MIN,
        _ => true,
    }
}

fn resolved(host: &HostPort) -> Result<Target, String> {
    let name = &host.host;
    match (name.as_str(), host.port).to_socket_addrs() {
        Ok(addresses) => Ok(Target::Tcp { host: name.clone(), addresses: addresses.collect() }),
        Err(error) => Err(format!("cannot look up {name}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_redis_is_refused() {
        let of = |version: &str| {
            let server = format!("# Server\r\nredis_version:{version}\r\nrun_id:ab\r\n");
            facts("role:master\r\n", &server, "here", 0)
        };
        for version in ["6.2.0", "7.0.15", "10.0", "unstable", "255.255.255"] {
            assert_eq!(of(version).expect(version).version, version);
        }
        for version in ["6.0.16", "5.0.3", "2.8.24"] {
            let why = of(version).expect_err(version);
            assert_eq!(why, format!("it has version {version}, and 6.2 or newer is needed"));
        }
    }
}
