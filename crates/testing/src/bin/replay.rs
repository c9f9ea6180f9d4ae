//! Runs the hot paths for `scripts/perf-gate.sh`, which counts the instructions of [`counted`].
//!
//! `replay list` lists them, `replay machine` prints the detected features of the processor, and
//! `replay NAME` runs one of them.

use std::{hint::black_box, process::ExitCode};

use rusty_socks_testing::replay::{PATHS, Path, Round};

/// Rounds before the count, so that buffers and tables have grown.
const WARM_UP_ROUNDS: u64 = 20;

/// Rounds that are counted: enough to average out chance, such as the seed of a hash table.
const ROUNDS: u64 = 100;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["list"] => {
            for Path { name, unit, units, .. } in PATHS {
                println!("{name}\t{}\t{unit}", units * ROUNDS);
            }
        }
        ["machine"] => println!("{}", machine()),
        [name] => match PATHS.iter().find(|path| path.name == name) {
            Some(path) => play(path),
            None => return fault(&format!("there is no path '{name}'; see: replay list")),
        },
        _ => return fault("usage: replay list | machine | NAME"),
    }
    ExitCode::SUCCESS
}

fn fault(why: &str) -> ExitCode {
    eprintln!("replay: {why}");
    ExitCode::from(2)
}

fn play(path: &Path) {
    let mut round = path.open();
    for number in 0..WARM_UP_ROUNDS + ROUNDS {
        round.lay_out();
        match number < WARM_UP_ROUNDS {
            true => round.play(),
            false => counted(&mut *round),
        }
        assert_eq!(round.done(), path.units, "{}, round {number}", path.name);
    }
}

/// Runs the counted rounds: the entry of this function starts the count, the return stops it.
#[inline(never)]
fn counted(round: &mut dyn Round) {
    round.play();
    // Prevents a tail call, so that the function returns here.
    black_box(());
}

/// Returns the architecture and the features that libraries detect at run time.
#[cfg(target_arch = "x86_64")]
fn machine() -> String {
    use std::arch::is_x86_feature_detected as has;
    let features = [
        ("ssse3", has!("ssse3")),
        ("sse4.2", has!("sse4.2")),
        ("pclmulqdq", has!("pclmulqdq")),
        ("avx2", has!("avx2")),
        ("bmi2", has!("bmi2")),
        ("avx512f", has!("avx512f")),
    ];
    let found = features.iter().filter(|(_, has)| *has).map(|(name, _)| format!(" {name}"));
    format!("x86_64{}", found.collect::<String>())
}

/// Returns the architecture.
#[cfg(not(target_arch = "x86_64"))]
fn machine() -> String {
    std::env::consts::ARCH.to_owned()
}
