//! Runs the simulator for `scripts/simulate.sh`: one seed, or one seed after the other.
//!
//! Ends with 0 when every promise was kept, with 1 when one was broken, with 2 when it was called
//! wrongly.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use rusty_socks_testing::{
    random::Random,
    simulator::{Plan, Simulation},
};

const USAGE: &str = "usage: simulate [--seed N] [--seeds N] [--minutes N] [--clients N] [--steps N] [--until-step N]";

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
                "--minutes" => match value.parse() {
                    Ok(minutes) if (0.0..1e6).contains(&minutes) => options.minutes = Some(minutes),
                    _ => return Err(format!("--minutes {value}: 0 to 1000000")),
                },
                _ => return Err(format!("{word} is unknown")),
            }
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
        // Few clients meet in odd ways, many in many; a seed with neither given has its own number.
        let crowds = [8, 40, 200, 1000];
        let clients = options.clients.unwrap_or(crowds[(seed % 4) as usize]);
        // Each of a crowd hears all the others: as many steps as take some seconds.
        let steps = options.steps.unwrap_or((40_000 / clients as u64).clamp(40, 4000));
        let mut plan = Plan::draw(seed, steps, clients);
        plan.steps = options.until_step.unwrap_or(steps).min(steps);
        let report = Simulation::new(plan).run();
        println!("{report}");
        if options.seed.is_some() {
            println!("heard: {:?}", report.kinds);
        }
        if report.broken.is_some() {
            println!(
                "again: scripts/simulate.sh --seed {seed} --clients {clients} --steps {steps}"
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
