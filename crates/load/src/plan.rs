//! What the arguments mean: one plan for every mode, with its bounds checked.

use std::{
    fs,
    hash::{BuildHasher, Hasher, RandomState},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    thread,
    time::Duration,
};

use rusty_socks_client::{Target, TlsConnector};
use rusty_socks_ws::client_handshake::ClientRequest;

use super::{
    args::{
        Common, EchoArgs, EchoFlags, FanoutArgs, FanoutFlags, IdleArgs, LoadArgs, Measuring,
        ModeArgs, Protocol, StormArgs,
    },
    expect::ExpectMessages,
    request,
};

/// More source addresses than this would ask a machine for more sockets than it has memory for.
const SOURCES_MAX: usize = 64;

/// Each is asked for its figures once a second.
const SERVERS_MAX: usize = 64;

/// Everything this client may have in flight: a load test shall not be its own out-of-memory test.
const IN_FLIGHT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The ports of one address are not used to the last: some are taken, some not yet free again.
const PORTS_USED: f64 = 0.9;

/// Ports of one source address where the system does not tell.
const PORTS_ASSUMED: u32 = 16_000;

/// The routes that are asked for where the address names none.
const CHAT_PATH: &str = "/ws";
const ECHO_PATH: &str = "/echo";

/// How long one address of a name with several may take to show that somebody listens there.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// What is to be done, whatever was typed to say so.
#[derive(Debug)]
pub struct Plan {
    /// At least one. The connections are spread over them.
    pub(crate) servers: Vec<TestedServer>,
    /// As typed. The sources are empty when the system shall choose.
    pub(crate) common: Common,
    /// How many connections are to be opened.
    pub connections: u32,
    pub(crate) threads: usize,
    /// New connections per second; 0 for all at once.
    pub(crate) rate: f64,
    /// How often a connection comes back after a refusal.
    pub(crate) retry: u32,
    /// What runs before anything is measured, and how long the measuring lasts.
    pub(crate) warmup: Duration,
    pub(crate) hold: Duration,
    pub(crate) mode: Mode,
    pub(crate) expect_messages: ExpectMessages,
    /// What tells this run's rooms and messages from those of another.
    pub(crate) run: u32,
}

/// A server under load.
#[derive(Debug)]
pub(crate) struct TestedServer {
    pub(crate) target: Target,
    /// Whom to trust, where the target asks for TLS.
    pub(crate) tls: Option<TlsConnector>,
    /// Unspecified until the plan is resolved.
    pub(crate) address: SocketAddr,
    pub(crate) request: ClientRequest,
}

/// What the connections do once they are served.
#[derive(Debug)]
pub(crate) enum Mode {
    Storm { message: Option<String>, every: Option<Duration> },
    Echo(EchoFlags),
    Fanout(FanoutFlags),
    Idle { ping: Option<Duration> },
}

/// Why there is no plan: whose arguments are wrong is told apart from who cannot be found.
#[derive(Debug)]
pub enum NoPlan {
    /// An argument, and what is allowed instead.
    BadArguments(String),
    /// A server that cannot be found.
    Unreachable(String),
}

impl Plan {
    /// Checks the arguments, looks up the server and tries which of its addresses answers, which
    /// may block for some seconds.
    pub fn new(args: LoadArgs) -> Result<Plan, NoPlan> {
        let plan = Plan::of(args).map_err(NoPlan::BadArguments)?;
        plan.resolved()
    }

    /// The plan before its server is looked up.
    fn of(args: LoadArgs) -> Result<Plan, String> {
        match args.mode {
            None => Plan::of_storm(args.storm),
            Some(ModeArgs::Echo(args)) => Plan::of_echo(args),
            Some(ModeArgs::Fanout(args)) => Plan::of_fanout(args),
            Some(ModeArgs::Idle(args)) => Plan::of_idle(args),
        }
        .and_then(Plan::checked)
    }

    fn of_storm(args: StormArgs) -> Result<Plan, String> {
        // `load -c 5 echo` would else be a storm on a host of that name.
        let is_typed = |mode: &&&str| args.urls.iter().any(|url| url == **mode);
        if let Some(mode) = ["echo", "fanout", "idle"].iter().find(is_typed) {
            return Err(format!(
                "the mode comes before its flags: load {mode} …; a host of that name is {mode}:3030"
            ));
        }
        let mode = Mode::Storm { message: args.message, every: args.every };
        let mut plan = Plan::with(args.common, &args.urls, CHAT_PATH, args.connections, mode)?;
        (plan.hold, plan.retry) = (args.hold, args.retry);
        if args.rate > 0 {
            plan.rate = f64::from(args.rate);
        }
        Ok(plan)
    }

    fn of_echo(args: EchoArgs) -> Result<Plan, String> {
        let echo = args.flags;
        let in_flight =
            u64::from(echo.depth()) * u64::from(echo.size) * u64::from(args.connections);
        if in_flight > IN_FLIGHT_BYTES_MAX {
            return Err(format!(
                "--connections × --depth × --size is {in_flight} bytes in flight; \
                 at most {IN_FLIGHT_BYTES_MAX} are allowed"
            ));
        }
        let (mode, connections) = (Mode::Echo(echo), args.connections);
        let plan = Plan::with(args.common, &args.urls, ECHO_PATH, connections, mode)?;
        Ok(plan.measuring(args.measuring))
    }

    fn of_fanout(args: FanoutArgs) -> Result<Plan, String> {
        let fanout = args.flags;
        if fanout.protocol == Protocol::Raw && fanout.rooms > 1 {
            return Err("--rooms needs --protocol chat: a raw broadcast has one room".to_owned());
        }
        if fanout.rooms > fanout.subscribers {
            return Err("--rooms must not exceed --subscribers: somebody shall listen".to_owned());
        }
        let connections = fanout.publishers + fanout.subscribers;
        let mode = Mode::Fanout(fanout);
        let plan = Plan::with(args.common, &args.urls, CHAT_PATH, connections, mode)?;
        Ok(plan.measuring(args.measuring))
    }

    fn of_idle(args: IdleArgs) -> Result<Plan, String> {
        let mode = Mode::Idle { ping: Some(args.ping).filter(|every| !every.is_zero()) };
        let plan = Plan::with(args.common, &args.urls, CHAT_PATH, args.connections, mode)?;
        Ok(Plan { hold: args.hold, ..plan })
    }

    fn with(
        common: Common,
        urls: &[String],
        path: &str,
        connections: u32,
        mode: Mode,
    ) -> Result<Plan, String> {
        if urls.len() > SERVERS_MAX {
            return Err(format!("at most {SERVERS_MAX} servers are loaded at once"));
        }
        let server = |url: &String| TestedServer::new(url, path, &common);
        let servers = urls.iter().map(server).collect::<Result<Vec<TestedServer>, String>>()?;
        let threads = match (common.threads, &mode) {
            (Some(threads), _) => threads as usize,
            (None, Mode::Storm { .. } | Mode::Idle { .. }) => 1,
            // The other half is for the server, if it is on this machine.
            (None, Mode::Echo(_) | Mode::Fanout(_)) => (cores() / 2).clamp(1, 8),
        };
        let rate = match common.ramp.as_secs_f64() {
            0.0 => 0.0,
            ramp => f64::from(connections) / ramp,
        };
        Ok(Plan {
            servers,
            common,
            connections,
            threads: threads.min(connections as usize),
            rate,
            retry: 0,
            warmup: Duration::ZERO,
            hold: Duration::ZERO,
            mode,
            expect_messages: ExpectMessages::default(),
            // The standard library's hasher is seeded at random for each state.
            run: RandomState::new().build_hasher().finish() as u32,
        })
    }

    fn measuring(self, Measuring { duration, warmup, expect_messages }: Measuring) -> Plan {
        Plan { warmup, hold: duration, expect_messages, ..self }
    }

    fn checked(self) -> Result<Plan, String> {
        if self.common.source.len() > SOURCES_MAX {
            return Err(format!("--source takes at most {SOURCES_MAX} addresses"));
        }
        if self.connections > 200_000 {
            return Err("--publishers and --subscribers are at most 200000 together".to_owned());
        }
        Ok(self)
    }

    fn resolved(mut self) -> Result<Plan, NoPlan> {
        for server in &mut self.servers {
            server.address =
                address_of(&server.target, &self.common.source).map_err(NoPlan::Unreachable)?;
            if !self.common.allow_remote && !server.address.ip().is_loopback() {
                return Err(NoPlan::BadArguments(format!(
                    "{} is not on this machine: say --allow-remote if its owner agrees",
                    server.target
                )));
            }
        }
        if self.common.source.is_empty() {
            let addresses: Vec<IpAddr> =
                self.servers.iter().map(|server| server.address.ip()).collect();
            self.common.source = sources_for(&addresses, self.connections);
        }
        Ok(self)
    }

    /// The server of one connection, by its number in the run.
    pub(crate) fn server_of(&self, number: usize) -> &TestedServer {
        let turn = match &self.mode {
            Mode::Fanout(fanout) => fanout.seat(number).turn,
            Mode::Storm { .. } | Mode::Echo(_) | Mode::Idle { .. } => number,
        };
        &self.servers[turn % self.servers.len()]
    }

    /// The servers as they were named, for people.
    pub(crate) fn targets(&self) -> String {
        joined(self.servers.iter().map(|server| &server.target))
    }

    /// Where the servers are, for people.
    pub(crate) fn addresses(&self) -> String {
        joined(self.servers.iter().map(|server| server.address))
    }

    /// Whether the figures are wanted as JSON instead of the table.
    pub fn json(&self) -> bool {
        self.common.json
    }

    /// Where the page is to be written, if it is wanted.
    pub fn report(&self) -> Option<&Path> {
        self.common.report.as_deref()
    }

    /// The name of the mode, as it is typed.
    pub(crate) fn mode_name(&self) -> &'static str {
        match self.mode {
            Mode::Storm { .. } => "storm",
            Mode::Echo(_) => "echo",
            Mode::Fanout(_) => "fanout",
            Mode::Idle { .. } => "idle",
        }
    }

    /// Whether messages are the matter, rather than the connections themselves.
    pub(crate) fn has_traffic(&self) -> bool {
        matches!(self.mode, Mode::Echo(_) | Mode::Fanout(_))
    }

    /// Whether messages leave by a timetable.
    pub(crate) fn is_open_loop(&self) -> bool {
        match &self.mode {
            Mode::Echo(echo) => echo.rate.is_some(),
            Mode::Fanout(_) => true,
            Mode::Storm { .. } | Mode::Idle { .. } => false,
        }
    }

    /// How many messages are to be measured, where that is the end of the run.
    pub(crate) fn messages(&self) -> Option<u64> {
        match &self.mode {
            Mode::Echo(echo) => echo.messages,
            Mode::Storm { .. } | Mode::Fanout(_) | Mode::Idle { .. } => None,
        }
    }
}

impl TestedServer {
    fn new(url: &str, path: &str, common: &Common) -> Result<TestedServer, String> {
        let target = target(url, path)?;
        let request = request::request(&target, common.origin.iter().chain(&common.headers))?;
        let tls = target.is_secure().then(|| common.tls.options().connector());
        let tls = tls.transpose().map_err(|error| error.to_string())?;
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Ok(TestedServer { target, tls, address, request })
    }
}

fn joined(parts: impl Iterator<Item = impl ToString>) -> String {
    parts.map(|part| part.to_string()).collect::<Vec<_>>().join(", ")
}

/// Reads an address, or says what is wrong with it.
fn target(address: &str, path: &str) -> Result<Target, String> {
    Target::parse_for(address, path).map_err(|error| error.to_string())
}

/// The one address all connections of a server go to, reachable from `sources` where these are
/// given.
///
/// A name may stand for several addresses, as `localhost` does, and the server may listen on only
/// one of them; so each is tried with one connection, lest all connections be refused at the wrong
/// one.
fn address_of(target: &Target, sources: &[IpAddr]) -> Result<SocketAddr, String> {
    let mut addresses = target.addresses().map_err(|error| error.to_string())?;
    let fits =
        |address: &SocketAddr| sources.iter().all(|source| source.is_ipv4() == address.is_ipv4());
    addresses.retain(fits);
    let Some(first) = addresses.first() else {
        return Err(format!(
            "{target} has no address of the same family (IPv4, IPv6) as every --source"
        ));
    };
    let is_heard = |address: &&SocketAddr| {
        addresses.len() == 1 || TcpStream::connect_timeout(address, TRIAL_TIMEOUT).is_ok()
    };
    Ok(*addresses.iter().find(is_heard).unwrap_or(first))
}

/// How many threads this machine runs at once.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The addresses to connect from so that all connections find a port. Only Linux has all of 127/8
/// on its loopback; elsewhere, and to other machines, the system chooses.
fn sources_for(servers: &[IpAddr], connections: u32) -> Vec<IpAddr> {
    let usable = (f64::from(ports_per_address()) * PORTS_USED) as u32;
    let on_loopback =
        servers.iter().all(|server| matches!(server, IpAddr::V4(at) if at.is_loopback()));
    if !cfg!(target_os = "linux") || !on_loopback || connections <= usable {
        return Vec::new();
    }
    let wanted = (connections.div_ceil(usable.max(1)) as usize).min(SOURCES_MAX);
    (1..=wanted).map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last as u8))).collect()
}

/// How many ports the system hands out for each address.
fn ports_per_address() -> u32 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = range.split_whitespace().filter_map(|end| end.parse::<u32>().ok());
    match (ends.next(), ends.next()) {
        (Some(low), Some(high)) if low < high => high - low + 1,
        _ => PORTS_ASSUMED,
    }
}

#[cfg(test)]
impl Plan {
    /// The plan of a command line, for the tests beside the code. Nothing is looked up.
    pub(crate) fn typed(line: &str) -> Plan {
        Plan::of(LoadArgs::typed(line).unwrap()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> String {
        match Plan::new(LoadArgs::typed(line).unwrap()) {
            Err(NoPlan::BadArguments(reason)) => reason,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn another_machine_is_loaded_only_when_asked_to() {
        // An address that belongs to nobody (RFC 5737); it is only looked at, never called.
        assert!(refused("ws://192.0.2.1/").contains("--allow-remote"));
        assert!(refused("echo ws://192.0.2.1/").contains("--allow-remote"));
        assert!(Plan::new(LoadArgs::typed("ws://192.0.2.1/ --allow-remote").unwrap()).is_ok());
        assert!(Plan::new(LoadArgs::typed("ws://[::1]:9/").unwrap()).is_ok());
    }

    #[test]
    fn an_address_is_completed_by_the_route_of_the_mode() {
        for (line, target) in [
            ("localhost", "ws://localhost:3030/ws"),
            ("echo localhost", "ws://localhost:3030/echo"),
            ("fanout localhost:4000", "ws://localhost:4000/ws"),
            ("idle http://localhost:4000/x", "ws://localhost:4000/x"),
            ("echo ws://localhost:4000", "ws://localhost:4000/"),
            ("echo wss://localhost:4000", "wss://localhost:4000/"),
        ] {
            assert_eq!(Plan::typed(line).targets(), target, "{line}");
        }
        assert!(refused("-c 5 echo").contains("load echo"), "a mode, and no host");
    }

    #[test]
    fn each_room_is_on_all_servers() {
        let line = "fanout localhost:1 localhost:2 --publishers 4 --subscribers 8 --rooms 2";
        let plan = Plan::typed(line);
        let Mode::Fanout(fanout) = &plan.mode else { panic!("{plan:?}") };
        let mut seen = std::collections::BTreeMap::new();
        for number in 0..plan.connections as usize {
            let seat = fanout.seat(number);
            let server = plan.server_of(number).target.to_string();
            *seen.entry((seat.publishes, seat.room, server)).or_insert(0) += 1;
        }
        // Two kinds of members, two rooms, two servers: of each as many.
        assert_eq!(seen.len(), 8, "{seen:?}");
        assert!(seen.iter().all(|((publishes, ..), count)| *count == 2 - i32::from(*publishes)));
        let pair = Plan::typed("fanout localhost:1 localhost:2 --subscribers 1");
        assert_ne!(pair.server_of(0).target, pair.server_of(1).target, "a message must travel");
    }

    #[test]
    fn connections_are_spread_over_servers() {
        let plan = Plan::typed("idle localhost:1 localhost:2 localhost:3 -c 7");
        let at = |number| plan.server_of(number).target.to_string();
        assert_eq!((at(0), at(4)), ("ws://localhost:1/ws".into(), "ws://localhost:2/ws".into()));
        assert!(refused(&["localhost"; 65].join(" ")).contains("at most 64"));
        assert!(
            refused("localhost ws://192.0.2.1/").contains("--allow-remote"),
            "each is looked at"
        );
    }

    #[test]
    fn sources_choose_the_family() {
        let target = target("127.0.0.1:9", "/").unwrap();
        assert!(address_of(&target, &["127.0.0.2".parse().unwrap()]).is_ok());
        assert!(address_of(&target, &["::1".parse().unwrap()]).unwrap_err().contains("family"));
    }

    #[test]
    fn what_would_not_fit_is_refused() {
        assert!(refused("echo -c 1000 --depth 100 --size 65536").contains("in flight"));
        assert!(refused("fanout --protocol raw --rooms 2").contains("one room"));
        assert!(refused("fanout --subscribers 3 --rooms 4").contains("somebody shall listen"));
        assert!(refused("fanout --publishers 5 --subscribers 200000").contains("200000 together"));
        let many = vec!["127.0.0.1"; 65].join(",");
        assert!(refused(&format!("--source {many}")).contains("64"));
    }

    #[test]
    fn more_connections_than_ports_bring_more_addresses() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(sources_for(&[loopback], 100).is_empty(), "the system's choice will do");
        assert!(sources_for(&["192.0.2.1".parse().unwrap()], 200_000).is_empty());
        if cfg!(target_os = "linux") {
            let sources = sources_for(&[loopback], 200_000);
            let each = ports_per_address() as usize;
            assert!(sources.len() * each >= 200_000, "{sources:?}");
            assert!(sources.iter().all(IpAddr::is_loopback));
        }
    }

    #[test]
    fn a_ramp_is_a_rate_of_opening() {
        let plan = Plan::typed("idle -c 100 --ramp 4");
        assert!((plan.rate - 25.0).abs() < 1e-9);
        assert_eq!(Plan::typed("echo -c 2 --threads 8").threads, 2, "no thread without work");
    }
}
