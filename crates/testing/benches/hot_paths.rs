//! Benchmarks of the hot paths, in time per unit: `cargo bench -p rusty_socks_testing --features
//! bench`.
//!
//! Times depend on the machine. To judge a change, measure before and after it: `cargo bench -p
//! rusty_socks_testing --features bench -- --save-baseline before`, and then with `--baseline
//! before`.

use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion, Throughput};
use rusty_socks_testing::replay::{PATHS, Path};

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for path in PATHS {
        let mut group = criterion.benchmark_group(path.name);
        group.throughput(Throughput::Elements(path.units));
        group.bench_function(path.unit, |bencher| time(bencher, &path));
        group.finish();
    }
    criterion.final_summary();
}

/// Times each round separately, because preparing its input does not count.
fn time(bencher: &mut Bencher<'_>, path: &Path) {
    let mut round = path.open();
    bencher.iter_custom(|rounds| {
        let mut taken = Duration::ZERO;
        for _ in 0..rounds {
            round.lay_out();
            let began = Instant::now();
            round.play();
            taken += began.elapsed();
            assert_eq!(round.done(), path.units, "{}", path.name);
        }
        taken
    });
}
