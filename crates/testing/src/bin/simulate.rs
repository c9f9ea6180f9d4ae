//! Runs the simulator for `scripts/simulate.sh`: one seed, or one seed after the other.
//!
//! Ends with 0 when every promise was kept, with 1 when one was broken, with 2 when it was called
//! wrongly.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use rusty_socks_testing::{
    cluster::{self, Cluster},
    random::Random,
    simulator::{Plan, Report, Simulation},
};

const USAGE: &str = "usage: simulate [--cluster no|yes|lossy] [--seed N] [--seeds N] [--minutes N] [--shards N] [--clients N] [--steps N] [--until-step N]";

/// What is simulated.
enum Kind {
    OneServer,
    /// Several servers that share a Redis or several, which lose nothing that they have answered.
    Cluster,
    /// The same, with all that can go wrong.
    LossyCluster,
}

/// What was asked for on the command line.
struct Options {
    /// The only seed, or the first of several.
    seed: Option<u64>,
    /// Runs, one seed after the other.
    seeds: Option<u64>,
    /// New runs begin until so much time has passed.
    minutes: Option<f64>,
    clients: Option<usize>,
    steps: Option<u64>,
    /// The last step of each run. Where a run ends changes nothing of what comes before.
    until_step: Option<u64>,
    cluster: Kind,
    /// Redises among which a cluster spreads its rooms and sessions.
    shards: Option<usize>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            seed: None,
            seeds: None,
            minutes: None,
            clients: None,
            steps: None,
            until_step: None,
            cluster: Kind::OneServer,
            shards: None,
        };
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            let number = || value.parse().map_err(|_| format!("{word} {value}: not a number"));
            match word.as_str() {
                "--seed" => options.seed = Some(number()?),
                "--seeds" => options.seeds = Some(number()?),
                "--clients" => options.clients = Some(number()?.clamp(1, 100_000) as usize),
                "--steps" => options.steps = Some(number()?),
                "--until-step" => options.until_step = Some(number()?),
                "--cluster" => match value.as_str() {
                    "no" => options.cluster = Kind::OneServer,
                    "yes" => options.cluster = Kind::Cluster,
                    "lossy" => options.cluster = Kind::LossyCluster,
                    _ => return Err(format!("--cluster {value}: no, yes or lossy")),
                },
                "--shards" => options.shards = Some(number()?.clamp(1, 64) as usize),
                "--minutes" => match value.parse() {
                    Ok(minutes) if (0.0..1e6).contains(&minutes) => options.minutes = Some(minutes),
                    _ => return Err(format!("--minutes {value}: 0 to 1000000")),
                },
                _ => return Err(format!("{word} is unknown")),
            }
        }
        if options.shards.is_some() && matches!(options.cluster, Kind::OneServer) {
            return Err("--shards is for --cluster yes or lossy".to_owned());
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("simulate: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let first = options.seed.unwrap_or_else(Random::seed);
    let deadline = options.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let runs = options.seeds.unwrap_or(if deadline.is_some() { u64::MAX } else { 1 });
    let began = Instant::now();
    for run in 0..runs {
        if deadline.is_some_and(|deadline| began.elapsed() >= deadline) {
            break;
        }
        let seed = first.wrapping_add(run);
        let (report, again) = match options.cluster {
            Kind::OneServer => run_one(seed, &options),
            Kind::Cluster | Kind::LossyCluster => run_cluster(seed, &options),
        };
        println!("{report}");
        if options.seed.is_some() {
            println!("heard: {:?}", report.kinds);
        }
        if report.broken.is_some() {
            println!("again: scripts/simulate.sh --seed {seed} {again}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// One server with its clients. Returns also what to ask for to have the run again.
fn run_one(seed: u64, options: &Options) -> (Report, String) {
    // Few clients meet in odd ways, many in many; a seed with neither given has its own number.
    let crowds = [8, 40, 200, 1000];
    let clients = options.clients.unwrap_or(crowds[(seed % 4) as usize]);
    // Each of a crowd hears all the others: as many steps as take some seconds.
    let steps = options.steps.unwrap_or((40_000 / clients as u64).clamp(40, 4000));
    let mut plan = Plan::draw(seed, steps, clients);
    plan.steps = options.until_step.unwrap_or(steps).min(steps);
    let again = format!("--cluster no --clients {clients} --steps {steps}");
    (Simulation::new(plan).run(), again)
}

/// Several servers with their clients and their Redises. Returns also what to ask for to have the
/// run again.
fn run_cluster(seed: u64, options: &Options) -> (Report, String) {
    let clients = options.clients.unwrap_or([3, 6, 12, 30][(seed % 4) as usize]);
    let steps = options.steps.unwrap_or(2000);
    let shards = options.shards.unwrap_or([1, 1, 2, 3][(seed / 4 % 4) as usize]);
    let mut plan = cluster::Plan::draw(seed, steps, clients).with_shards(shards);
    plan.steps = options.until_step.unwrap_or(steps).min(steps);
    let mut kind = "lossy";
    if matches!(options.cluster, Kind::Cluster) {
        (kind, plan) = ("yes", plan.without_losses());
    }
    println!("{}", plan.words());
    let again = format!("--cluster {kind} --shards {shards} --clients {clients} --steps {steps}");
    (Cluster::new(plan).run(), again)
}
