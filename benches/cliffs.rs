//! Problems that are much slower than their neighbours: a schedule fell off a cliff.
//!
//! `cargo bench --bench cliffs -- --sample 300 --seed 1`
//!
//! Each of a random sample of problems with 1 to 65 channels, images of 1 to 33 by as many, kernels
//! of 1 to 7 taps, strides and dilations of 1 to 3, in one group, two, or as many as channels, is
//! timed in turns with its slightly larger neighbours: those of one and two more input channels,
//! output channels, or rows and columns, in steps that the groups allow. Compared are seconds for a
//! multiply-add on an element of the input; those on padding do not count.
//!
//! One rule: a problem is a cliff if it takes more than [`CLIFF`] times as long as its
//! multiply-adds do in the mean of its neighbours, and a call without images on top. The latter is
//! what every call costs, whatever it computes: tiny problems are dominated by it, and may lose to
//! their neighbours by that much. What looks like a cliff is timed again, for longer, before it is
//! believed.

#[path = "common/calls.rs"]
mod calls;

use clap::Parser;
use convgen::ir::elem::Layout;
use convgen::ir::problem::{ConvProblem, ConvSpec, SpatialAxis};
use convgen::{Arguments, Compiler, Host, Kernel, timing};

use calls::call;

/// How much slower than its neighbours a problem may be.
const CLIFF: f64 = 2.0;

/// Seconds for each problem, and for each that looks like a cliff.
const SECONDS: f64 = 1e-3;
const SECONDS_AGAIN: f64 = 10e-3;

/// Turns that neighbours take.
const ROUNDS: usize = 8;

/// The slope of a bar of the histogram: each ratio is that much larger than the one before.
const BAR: f64 = 1.25;

/// What is said on the command line.
#[derive(Parser)]
struct Args {
    /// Problems to compare with their neighbours
    #[arg(long, default_value_t = 100)]
    sample: usize,
    /// Which sample
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let host = Host::detect();
    let compiler = Compiler::new(&host, host.widest_isa()).expect("a host Cranelift knows");
    let bench = Bench { empty: empty_call(&compiler), compiler };
    println!(
        "{}: a call without images takes {:.0} ns",
        bench.compiler.target(),
        bench.empty * 1e9
    );
    let mut random = Random(args.seed);
    let found: Vec<Comparison> = (0..args.sample)
        .map(|_| {
            let point = Point::random(&mut random);
            let first = bench.compare(&point, SECONDS);
            if first.is_cliff() { bench.compare(&point, SECONDS_AGAIN) } else { first }
        })
        .collect();
    print_histogram(&found);
    print_cliffs(&found);
}

/// A problem of the sweep.
#[derive(Clone, Debug)]
struct Point {
    reads: u64,
    writes: u64,
    groups: Groups,
    size: u64,
    taps: u64,
    stride: u64,
    dilation: u64,
    layout: Layout,
}

/// Groups of a point.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Groups {
    One,
    Two,
    Channels,
}

impl Point {
    fn random(random: &mut Random) -> Point {
        let groups = [Groups::One, Groups::One, Groups::Two, Groups::Channels][random.below(4)];
        let layout = match random.below(4) {
            0 => Layout::ChannelsFirst,
            _ => Layout::ChannelsLast,
        };
        let mut up_to = |most: usize| 1 + random.below(most) as u64;
        let point = Point {
            reads: up_to(65),
            writes: up_to(65),
            groups,
            size: up_to(33),
            taps: up_to(7),
            stride: up_to(3),
            dilation: up_to(3),
            layout,
        };
        let even = |channels: u64| (channels + channels % 2).min(64);
        match groups {
            Groups::One => point,
            Groups::Two => Point { reads: even(point.reads), writes: even(point.writes), ..point },
            Groups::Channels => Point { writes: point.reads, ..point },
        }
    }

    /// The same with one size larger by one and two steps.
    fn neighbours(&self) -> Vec<Point> {
        let larger = |by: u64| -> Vec<Point> {
            let step = if self.groups == Groups::Two { 2 * by } else { by };
            let (reads, writes, size) = (self.reads + step, self.writes + step, self.size + by);
            let taller = Point { size, ..self.clone() };
            match self.groups {
                Groups::One | Groups::Two => {
                    vec![Point { reads, ..self.clone() }, Point { writes, ..self.clone() }, taller]
                }
                Groups::Channels => vec![Point { reads, writes, ..self.clone() }, taller],
            }
        };
        (1..=2).flat_map(larger).collect()
    }

    fn problem(&self) -> ConvProblem {
        let groups = match self.groups {
            Groups::One => 1,
            Groups::Two => 2,
            Groups::Channels => self.reads,
        };
        let axis = SpatialAxis {
            stride: self.stride,
            dilation: self.dilation,
            ..SpatialAxis::new(self.size, self.taps)
        };
        let spec = ConvSpec::new(self.reads, self.writes, vec![axis; 2]).same();
        ConvProblem::new(spec.groups(groups).layout(self.layout)).expect("sizes that fit")
    }
}

/// Multiply-adds on elements of the input.
fn products(problem: &ConvProblem) -> f64 {
    let inside = |axis: &SpatialAxis| {
        let places = (0..axis.output()).flat_map(|output| {
            (0..axis.kernel).map(move |tap| output * axis.stride + tap * axis.dilation)
        });
        let places = places.map(|place| place as i64 - axis.pad_before);
        places.filter(|place| (0..axis.input as i64).contains(place)).count() as f64
    };
    let channels = problem.in_channels_per_group() * problem.out_channels();
    problem.spatial().iter().map(inside).product::<f64>() * channels as f64
}

struct Bench {
    compiler: Compiler,
    /// Seconds of a call without images.
    empty: f64,
}

/// A problem beside its neighbours.
struct Comparison {
    kernel: Kernel,
    seconds: f64,
    /// Seconds of its multiply-adds at the mean rate of its neighbours.
    expected: f64,
    empty: f64,
}

impl Bench {
    fn compare(&self, point: &Point, seconds: f64) -> Comparison {
        let points = [point.clone()].into_iter().chain(point.neighbours());
        let compile =
            |point: Point| self.compiler.compile(&point.problem()).expect("every problem compiles");
        let mut kernels: Vec<Kernel> = points.map(compile).collect();
        let mut calls: Vec<Box<dyn FnMut()>> = kernels.iter().map(call).collect();
        let mut turns: Vec<&mut dyn FnMut()> =
            calls.iter_mut().map(|call| &mut **call as _).collect();
        let best = timing::interleaved(seconds, ROUNDS, &mut turns);
        drop(calls);
        let each =
            |(kernel, timing): (&Kernel, &timing::Timing)| timing.min / products(kernel.problem());
        let rates: Vec<f64> = kernels.iter().zip(&best).map(each).collect();
        let neighbours = rates[1..].iter().sum::<f64>() / (rates.len() - 1) as f64;
        let kernel = kernels.swap_remove(0);
        let expected = neighbours * products(kernel.problem());
        Comparison { kernel, seconds: best[0].min, expected, empty: self.empty }
    }
}

impl Comparison {
    fn ratio(&self) -> f64 {
        self.seconds / self.expected
    }

    fn is_cliff(&self) -> bool {
        self.seconds > CLIFF * self.expected + self.empty
    }
}

/// Seconds of a call that computes nothing.
fn empty_call(compiler: &Compiler) -> f64 {
    let spec = ConvSpec::conv2d(1, 1, 1, 1, 1, 1);
    let problem = ConvProblem::new(spec).expect("sizes that fit");
    let kernel = compiler.compile(&problem).expect("every problem compiles");
    let weights = kernel.pack_weights(&[1.0]).expect("one weight");
    let arguments = Arguments { input: &[], weights: &weights, bias: None, extras: &[] };
    timing::time(SECONDS_AGAIN, 1, || kernel.run_with(&arguments, &mut []).expect("no images")).min
}

/// How many ratios lie between powers of [`BAR`].
fn print_histogram(found: &[Comparison]) {
    let bar = |comparison: &Comparison| (comparison.ratio().ln() / BAR.ln()).floor() as i32;
    let bars: Vec<i32> = found.iter().map(bar).collect();
    let (Some(first), Some(last)) = (bars.iter().min(), bars.iter().max()) else { return };
    println!("times as slow as their neighbours, problems");
    for at in *first..=*last {
        let count = bars.iter().filter(|bar| **bar == at).count();
        println!("{:8.2} {count:5} {}", BAR.powi(at), "#".repeat(count * 60 / found.len()));
    }
}

/// The cliffs, steepest first, with what their kernels are.
fn print_cliffs(found: &[Comparison]) {
    let mut cliffs: Vec<&Comparison> = found.iter().filter(|c| c.is_cliff()).collect();
    cliffs.sort_by(|a, b| b.ratio().total_cmp(&a.ratio()));
    println!("{} cliffs of {} problems", cliffs.len(), found.len());
    for cliff in cliffs {
        let us = cliff.seconds * 1e6;
        let (name, problem) = (cliff.kernel.name(), cliff.kernel.problem());
        println!("{:5.2} times, {us:.2} us: {problem}\n    {name}", cliff.ratio());
        let schedule = cliff.kernel.schedule().to_string();
        println!("    {}", schedule.lines().collect::<Vec<_>>().join("; "));
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}
