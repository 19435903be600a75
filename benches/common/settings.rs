//! Criterion's settings for all benchmarks: short, for machines that are shared.

use std::time::Duration;

use criterion::Criterion;

/// Ten samples of tens of milliseconds, no plots.
pub fn brief() -> Criterion {
    Criterion::default()
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300))
}
