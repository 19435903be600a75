//! `convgen machine`: what the compiler knows of this machine, with its measured peaks.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use convgen::{Host, Isa, machine as measure};
use serde::Serialize;

use super::failure::Verdict;
use super::output::{bytes, json_line};
use super::source::STDIN;

/// How long each peak is measured, in seconds.
const SECONDS: f64 = 0.2;

/// How long each rate of a profile is measured, in seconds.
const CALIBRATION_SECONDS: f64 = 0.5;

/// The arguments of `convgen machine`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  convgen machine --json
  convgen machine --calibrate here.json; convgen bench --suite resnet50 --profile here.json

The compiler chooses by the rates of a core, which it knows of some CPUs; of another it takes the
nearest. --calibrate measures those of this one, for --profile to choose by.")]
pub struct MachineArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Measure the rates of a core for some seconds, on a machine that is otherwise idle, and write
    /// them to this file, or to standard output for -
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    calibrate: Option<PathBuf>,
}

/// Everything known. The names of the fields are the keys of the JSON object.
#[derive(Serialize)]
struct Facts {
    cpu: String,
    features: Vec<&'static str>,
    cores: usize,
    l1d_bytes: usize,
    l2_bytes: usize,
    l3_bytes: usize,
    targets: Vec<String>,
    fma_peak: Vec<Peak>,
    bandwidth: Vec<Bandwidth>,
    rates: Vec<Rate>,
}

/// What the cost model counts with besides, of one core.
#[derive(Serialize)]
struct Rate {
    isa: &'static str,
    fma_ns: f64,
    latency_ns: f64,
    load_ns: f64,
}

/// Fused multiply-adds of one core.
#[derive(Serialize)]
struct Peak {
    bits: u32,
    gflops: f64,
}

/// Reads of one core from one level of memory.
#[derive(Serialize)]
struct Bandwidth {
    level: &'static str,
    bytes: usize,
    gb_per_s: f64,
}

/// Prints what is known and what is measured now.
pub fn machine(args: &MachineArgs, out: &mut impl Write) -> anyhow::Result<Verdict> {
    if let Some(path) = &args.calibrate {
        return calibrate(path, out);
    }
    let facts = Facts::gather(&Host::detect());
    match args.json {
        true => json_line(out, &facts)?,
        false => facts.write(out)?,
    }
    Ok(Verdict::Good)
}

/// Measures the rates of a core, and keeps them.
fn calibrate(path: &Path, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let host = Host::detect();
    if path != Path::new(STDIN) {
        // A file that cannot be written is said before the machine is measured.
        let file = File::options().append(true).create(true).open(path);
        file.with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    let measured = measure::profile(&host, CALIBRATION_SECONDS);
    let profile = measured.ok_or_else(|| anyhow!("this host gives no memory for code"))?;
    let text = profile.to_json();
    if path == Path::new(STDIN) {
        writeln!(out, "{text}")?;
        return Ok(Verdict::Good);
    }
    std::fs::write(path, text + "\n")
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    let shipped = host.profile();
    writeln!(out, "cpu          {}", host.cpu_name())?;
    for (what, here, known) in [
        ("multiply-add of 512 bits, cycles", profile.fma[2], shipped.fma[2]),
        ("load of 512 bits, cycles", profile.load[2], shipped.load[2]),
        ("bytes a cycle from L2", profile.l2, shipped.l2),
        ("bytes a cycle from L3", profile.l3, shipped.l3),
        ("bytes a cycle from memory", profile.memory, shipped.memory),
    ] {
        writeln!(out, "{what:<34} {here:>7.2}   (shipped for this CPU: {known:.2})")?;
    }
    writeln!(out, "written to {}; `--profile {0}` chooses by it", path.display())?;
    Ok(Verdict::Good)
}

impl Facts {
    fn gather(host: &Host) -> Facts {
        let target = |isa: Isa| match host.target(isa) {
            Ok(target) => target.to_string(),
            Err(error) => error.to_string(),
        };
        let peaks = measure::peak_gflops(host, SECONDS);
        let bandwidth = measure::bandwidth(host, SECONDS);
        let rate = |isa: Isa| {
            let [fma, latency, load] = measure::vector_rates(host, isa.vector_bits(), SECONDS)?;
            let (fma_ns, latency_ns, load_ns) = (fma * 1e9, latency * 1e9, load * 1e9);
            Some(Rate { isa: isa.name(), fma_ns, latency_ns, load_ns })
        };
        Facts {
            cpu: host.cpu_name().to_owned(),
            features: host.features().to_vec(),
            cores: host.cores(),
            l1d_bytes: host.caches().l1d,
            l2_bytes: host.caches().l2,
            l3_bytes: host.caches().l3,
            targets: Isa::ALL.into_iter().map(target).collect(),
            fma_peak: peaks.into_iter().map(|(bits, gflops)| Peak { bits, gflops }).collect(),
            bandwidth: bandwidth
                .into_iter()
                .map(|b| Bandwidth { level: b.level, bytes: b.bytes, gb_per_s: b.gb_s })
                .collect(),
            rates: Isa::ALL.into_iter().filter_map(rate).collect(),
        }
    }

    fn write(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let [l1d, l2, l3] = [self.l1d_bytes, self.l2_bytes, self.l3_bytes].map(|b| bytes(b as u64));
        writeln!(out, "cpu          {}", self.cpu)?;
        writeln!(out, "features     {}", self.features.join(" "))?;
        writeln!(out, "cores        {}", self.cores)?;
        writeln!(out, "caches       l1d {l1d}, l2 {l2}, l3 {l3}")?;
        for target in &self.targets {
            writeln!(out, "target       {target}")?;
        }
        for Peak { bits, gflops } in &self.fma_peak {
            writeln!(out, "fma peak     {gflops:.1} GFLOP/s a core at {bits} bits")?;
        }
        for Bandwidth { level, bytes: size, gb_per_s } in &self.bandwidth {
            let size = bytes(*size as u64);
            writeln!(out, "bandwidth    {gb_per_s:.1} GB/s from {level} ({size} read)")?;
        }
        for Rate { isa, fma_ns, latency_ns, load_ns } in &self.rates {
            writeln!(
                out,
                "{:<12} a multiply-add every {fma_ns:.3} ns, after another {latency_ns:.3} ns, a load \
                 every {load_ns:.3} ns",
                format!("{isa} rates")
            )?;
        }
        Ok(())
    }
}
