//! Problems that are much slower than what is like them: a schedule fell off a cliff.
//!
//! `cargo bench --bench cliffs -- --sample 300 --seed 1`
//!
//! The sample is random: one and two dimensions, both layouts, forward and transposed sums and the
//! gradients of input and weights; one group, two, or many of one to four channels; images of 1 to
//! 33 by as many, rows of up to 513, kernels of 1 to 7 taps, strides and dilations of 1 to 3. Each
//! problem is timed in turns with
//!
//! - its slightly larger neighbours: one and two more channels or rows and columns, by the mean of
//!   their seconds for a multiply-add on an element of the input;
//! - itself in the other layout, and with strict accuracy;
//! - the sum over one group that contains it, with zeros in its weights.
//!
//! One rule: a problem is a cliff if it takes more than [`CLIFF`] times as long as one of these
//! lets expect, and a call without images on top. The latter is what every call costs, whatever it
//! computes: tiny problems are dominated by it, and may lose by that much. What looks like a cliff
//! is timed again, for longer, before it is believed.

#[path = "common/calls.rs"]
mod calls;

use clap::Parser;
use convgen::ir::elem::Layout;
use convgen::ir::problem::{ConvProblem, ConvSpec, Direction, SpatialAxis};
use convgen::{Accuracy, Arguments, Compiler, Host, Kernel, timing};

use calls::call;

/// How much slower than expected a problem may be.
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
    /// Problems to compare with what is like them
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
    direction: Direction,
    rank: usize,
    groups: u64,
    /// Channels of a group.
    reads: u64,
    writes: u64,
    size: u64,
    taps: u64,
    stride: u64,
    dilation: u64,
    layout: Layout,
}

/// Channels of a problem whose sum over one group is timed beside it, at most.
const MOST_CHANNELS: u64 = 64;

impl Point {
    fn random(random: &mut Random) -> Point {
        let direction = match random.below(8) {
            0 => Direction::Transposed,
            1 => Direction::BackwardData,
            2 => Direction::BackwardWeights,
            _ => Direction::Forward,
        };
        let layout = [Layout::ChannelsFirst, Layout::ChannelsLast][random.below(2)];
        let rank = [1, 2, 2][random.below(3)];
        let kind = random.below(4);
        let mut up_to = |most: usize| 1 + random.below(most) as u64;
        let (groups, reads, writes) = match kind {
            0 | 1 => (1, up_to(65), up_to(65)),
            2 => (2, up_to(32), up_to(32)),
            _ => (1 + up_to(64), up_to(4), up_to(4)),
        };
        // As many channels as before in the kind that most networks have.
        let writes = if kind == 3 && up_to(2) == 1 { reads } else { writes };
        let size = if rank == 1 { up_to(513) } else { up_to(33) };
        let (taps, stride, dilation) = (up_to(7), up_to(3), up_to(3));
        Point { direction, rank, groups, reads, writes, size, taps, stride, dilation, layout }
    }

    /// The same with one size larger by one and two steps.
    fn neighbours(&self) -> Vec<Point> {
        let larger = |by: u64| {
            let (reads, writes, size) = (self.reads + by, self.writes + by, self.size + by);
            let sizes = Point { size, ..self.clone() };
            match self.groups {
                1 | 2 => {
                    vec![Point { reads, ..self.clone() }, Point { writes, ..self.clone() }, sizes]
                }
                groups => vec![Point { groups: groups + by, ..self.clone() }, sizes],
            }
        };
        (1..=2).flat_map(larger).collect()
    }

    /// What it is like, in words, and what that takes the time of.
    fn others(&self) -> Vec<(&'static str, Point, Accuracy)> {
        let layout = match self.layout {
            Layout::ChannelsFirst => Layout::ChannelsLast,
            Layout::ChannelsLast => Layout::ChannelsFirst,
        };
        let (reads, writes) = (self.groups * self.reads, self.groups * self.writes);
        let whole = Point { groups: 1, reads, writes, ..self.clone() };
        let contained = self.groups > 1 && reads.max(writes) <= MOST_CHANNELS;
        let other = Point { layout, ..self.clone() };
        let mut others = vec![
            ("in the other layout", other, Accuracy::Default),
            ("with strict accuracy", self.clone(), Accuracy::Strict),
        ];
        others.extend(contained.then_some(("in one group", whole, Accuracy::Default)));
        others
    }

    fn forward(&self) -> ConvProblem {
        let axis = SpatialAxis {
            stride: self.stride,
            dilation: self.dilation,
            ..SpatialAxis::new(self.size, self.taps)
        };
        let (reads, writes) = (self.groups * self.reads, self.groups * self.writes);
        let spec = ConvSpec::new(reads, writes, vec![axis; self.rank]).same();
        ConvProblem::new(spec.groups(self.groups).layout(self.layout)).expect("sizes that fit")
    }

    fn problem(&self) -> ConvProblem {
        self.forward().with_direction(self.direction).expect("the adjoint of one that fits")
    }

    /// Multiply-adds on elements of the input.
    fn products(&self) -> f64 {
        products(&self.forward())
    }
}

/// Multiply-adds of a forward sum on elements of the input.
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

/// A problem beside what is like it.
struct Comparison {
    kernel: Kernel,
    seconds: f64,
    /// What lets expect least time, and how much.
    beside: &'static str,
    expected: f64,
    empty: f64,
}

impl Bench {
    fn compare(&self, point: &Point, seconds: f64) -> Comparison {
        let compile = |point: &Point, accuracy| {
            let compiler = self.compiler.clone().with_accuracy(accuracy);
            compiler.compile(&point.problem()).expect("every problem compiles")
        };
        let (neighbours, others) = (point.neighbours(), point.others());
        let default = Accuracy::Default;
        let mut kernels = vec![compile(point, default)];
        kernels.extend(neighbours.iter().map(|neighbour| compile(neighbour, default)));
        kernels.extend(others.iter().map(|(_, other, accuracy)| compile(other, *accuracy)));
        let mut calls: Vec<Box<dyn FnMut()>> = kernels.iter().map(call).collect();
        let mut turns: Vec<&mut dyn FnMut()> =
            calls.iter_mut().map(|call| &mut **call as _).collect();
        let best = timing::interleaved(seconds, ROUNDS, &mut turns);
        drop(calls);
        let (of_neighbours, of_others) = best[1..].split_at(neighbours.len());
        let rates = neighbours.iter().zip(of_neighbours).map(|(p, t)| t.min / p.products());
        let mean = rates.sum::<f64>() / neighbours.len() as f64;
        let others = others.iter().zip(of_others).map(|((name, ..), t)| (*name, t.min));
        let expected = [("its neighbours", mean * point.products())].into_iter().chain(others);
        let least = expected.min_by(|a, b| a.1.total_cmp(&b.1));
        let (beside, expected) = least.expect("a problem has neighbours");
        let kernel = kernels.swap_remove(0);
        Comparison { kernel, seconds: best[0].min, beside, expected, empty: self.empty }
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
    println!("times as slow as expected, problems");
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
        let (ratio, beside) = (cliff.ratio(), cliff.beside);
        println!("{ratio:5.2} times {beside}, {us:.2} us: {problem}\n    {name}");
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
