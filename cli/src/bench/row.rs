//! A line of the report.

use serde::Serialize;

/// One problem measured. The names of the fields are the keys of the JSON object.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The canonical descriptor.
    pub problem: String,
    /// Its name.
    pub name: Option<String>,
    /// The group of layers it belongs to.
    pub group: String,
    /// The kernel's name, in the table only.
    #[serde(skip)]
    pub kernel: String,
    /// The algorithm.
    pub algorithm: &'static str,
    /// The schedule on one line.
    pub schedule: String,
    /// What the kernel is compiled for.
    pub isa: String,
    /// The layout.
    pub layout: &'static str,
    /// Threads of a call.
    pub threads: usize,
    /// What the caches held when a call began.
    pub caches: &'static str,
    /// The figure, in the table only: the shortest call, or the median one if cold.
    #[serde(skip)]
    pub ms: f64,
    /// The shortest call.
    pub min_ms: f64,
    /// The median call.
    pub median_ms: f64,
    /// Times as fast as on the first number of threads, if there are several.
    pub speedup: Option<f64>,
    /// Operations of the definition a nanosecond, in the call of the figure.
    pub gflops: f64,
    /// The peak of all threads.
    pub peak_gflops: f64,
    /// The part of the peak reached.
    pub frac_peak: f64,
    /// Bytes that have to move, each once.
    pub traffic_bytes: u64,
    /// How fast they moved, in that call.
    pub gb_per_s: f64,
    /// The smallest cache of a core that holds them, or memory if cold.
    pub data_in: &'static str,
    /// How fast one core reads from its first-level cache.
    pub l1_gb_per_s: Option<f64>,
    /// From its second-level cache.
    pub l2_gb_per_s: Option<f64>,
    /// From the third-level cache.
    pub l3_gb_per_s: Option<f64>,
    /// From the problem to the kernel.
    pub compile_ms: f64,
    /// Scratch memory a thread.
    pub workspace_bytes: usize,
    /// Whether the results were right, if they were compared.
    pub verified: Option<bool>,
}
