//! Separable convolutions in one kernel: the bits of the interpreter and of the two kernels,
//! whatever the shape, the layout, the instruction set and the number of threads; and what is
//! refused.

use convgen::check::separable::{PairData, check};
use convgen::fusion::{FusionError, fuse};
use convgen::ir::interpret;
use convgen::ir::nest::{Nest, Role};
use convgen::ir::parse::parse_nest;
use convgen::ir::separable::SeparableTextError;
use convgen::ir::{ConvProblem, Separable};
use convgen::scheduler::separable::{SeparablePlan, plan, plan_by};
use convgen::{Compiler, Host, Isa, RunError, SeparableKernel};

/// Random pairs a test tries on each instruction set.
const CASES: u64 = 25;

/// The instruction sets of this host.
fn compilers() -> Vec<Compiler> {
    let host = Host::detect();
    let compilers = Isa::ALL.into_iter().filter_map(|isa| Compiler::new(&host, isa).ok());
    let compilers: Vec<Compiler> = compilers.collect();
    assert!(!compilers.is_empty(), "the host has no instruction set");
    compilers
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A pair of one to three axes whose channels are mostly no multiples of the lanes.
    fn pair(&mut self) -> Separable {
        let rank = [1, 2, 2, 2, 3][self.below(5) as usize];
        let (batch, groups) = (1 + self.below(3), 1 + self.below(40));
        let multiplier = [1, 1, 1, 2, 3][self.below(5) as usize];
        let (middle, channels) = (groups * multiplier, 1 + self.below(40));
        let layout = self.pick(&["nhwc", "nhwc", "nchw"]);
        let epilogue =
            ["", " | relu", " | relu6", " | hardswish", " | scale | add", " | clamp(-2,3)"];
        let bias = ["", " bias"];
        let head = |kind: &str| format!("conv{rank}d {layout} n{batch} {kind}");
        let mut first = head(&format!("g{groups} ic{groups} oc{middle}"));
        let mut second = head(&format!("ic{middle} oc{channels}"));
        for axis in &["d", "h", "w"][3 - rank..] {
            let kernel = [1, 3, 3, 5][self.below(4) as usize];
            let stride = 1 + self.below(2);
            let (before, after) = (self.below(kernel), self.below(kernel));
            let input = kernel + self.below(if rank == 3 { 4 } else { 16 });
            let output = (input + before + after - kernel) / stride + 1;
            first +=
                &format!(" i{axis}{input} k{axis}{kernel} s{axis}{stride} p{axis}{before}:{after}");
            second += &format!(" i{axis}{output} k{axis}1");
        }
        for half in [&mut first, &mut second] {
            *half += self.pick(&bias);
            *half += self.pick(&epilogue);
        }
        format!("{first} -> {second}")
            .parse()
            .unwrap_or_else(|e| panic!("{e}: {first} -> {second}"))
    }
}

/// What the fused nest means.
fn interpreted(kernel: &SeparableKernel, data: &PairData) -> Vec<f32> {
    let [nest] = kernel.nests().collect::<Vec<_>>()[..] else { panic!("one nest") };
    let batch = kernel.separable().depthwise().batch() as i64;
    let weights = [data.depthwise().weights(), data.pointwise().weights()];
    let packed = interpret::pack_all(nest, &weights).unwrap();
    let extras = data.extras();
    let weights = kernel.pack_weights(weights[0], weights[1]).unwrap();
    let arguments = data.arguments(&weights, &extras);
    let mut packed = packed.iter().map(Vec::as_slice);
    let mut biases = [arguments.depthwise_bias, arguments.pointwise_bias].into_iter().flatten();
    let mut rest = extras.iter().copied();
    let given: Vec<&[f32]> = interpret::arguments(nest.nest())
        .into_iter()
        .map(|id| match nest.nest().buffer(id).role {
            Role::Input => arguments.input,
            Role::Weights | Role::Packed => packed.next().unwrap(),
            Role::Bias => biases.next().unwrap(),
            Role::Gradient | Role::Scale | Role::Residual => rest.next().unwrap(),
            Role::Output | Role::Scratch | Role::Reg => unreachable!("no argument"),
        })
        .collect();
    let mut output = vec![f32::NAN; data.pointwise().output_len()];
    let tasks = 0..nest.nest().tasks(batch).unwrap();
    interpret::run(nest, batch, tasks, &given, &mut output).unwrap();
    output
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// The kernel by this plan: against the two kernels, the interpreter, and itself on threads.
fn hold(compiler: &Compiler, separable: &Separable, plan: &SeparablePlan) {
    let kernel = compiler
        .compile_separable_with(separable, plan)
        .unwrap_or_else(|error| panic!("{separable}: {plan:?}: {error}"));
    let place = format!("{} rows of {}: {separable}", plan.rows, kernel.name());
    check(compiler, &kernel).unwrap_or_else(|error| panic!("{place}: {error}"));
    let data = PairData::reals(separable);
    let output = data.run(&kernel).unwrap();
    assert_eq!(bits(&output), bits(&interpreted(&kernel, &data)), "{place}");
    let (weights, extras) = (data.pack(&kernel).unwrap(), data.extras());
    let mut shared = vec![f32::NAN; output.len()];
    kernel.prepare(&data.arguments(&weights, &extras), &mut shared).unwrap().share(3);
    assert_eq!(bits(&output), bits(&shared), "{place}");
}

#[test]
fn random_pairs_have_the_bits_of_two_kernels() {
    for compiler in compilers() {
        let mut random = Random(7);
        for _ in 0..CASES {
            let separable = random.pair();
            let rows = 1 + random.below(8);
            hold(&compiler, &separable, &plan(&separable, compiler.target()));
            let parts = 1 + random.below(3);
            let by_rows = plan_by(&separable, compiler.target(), rows, parts);
            hold(&compiler, &separable, &SeparablePlan { fetch: true, ..by_rows });
        }
    }
}

/// Channels of 7x7 pixels in and out of a pointwise half whose weights fill more than half of the
/// second cache.
fn far_channels(compiler: &Compiler) -> usize {
    let l2 = compiler.target().caches().l2;
    (16..).step_by(16).find(|c| c * c * size_of::<f32>() > l2 / 2).unwrap()
}

fn pair_of_seven(images: usize, channels: usize, out: usize, layout: &str) -> Separable {
    let text = format!(
        "conv2d {layout} n{images} g{channels} ic{channels} oc{channels} ih7 iw7 kh3 kw3 ph1 pw1
         -> conv2d {layout} n{images} ic{channels} oc{out} ih7 iw7 kh1 kw1"
    );
    text.parse().unwrap()
}

#[test]
fn an_image_is_a_task_where_its_weights_come_from_afar() {
    for compiler in compilers() {
        let (target, channels) = (compiler.target(), far_channels(&compiler));
        let rows =
            |out: usize| plan(&pair_of_seven(target.cores(), channels, out, "nhwc"), target).rows;
        assert_eq!([rows(16), rows(channels)], [1, 7]);
    }
}

#[test]
fn cores_share_the_output_channels_of_few_images() {
    for compiler in compilers() {
        let (cores, channels) = (compiler.target().cores(), far_channels(&compiler));
        for layout in ["nhwc", "nchw"] {
            let separable = pair_of_seven(1, channels, channels, layout);
            let plan = plan(&separable, compiler.target());
            let tasks = 7 / plan.rows * plan.parts;
            assert!(tasks as usize >= cores.min(7), "{tasks} tasks: {separable}");
            assert!(cores < 2 || plan.parts > 1, "{plan:?}: {separable}");
            hold(&compiler, &separable, &plan);
        }
    }
}

#[test]
fn rows_of_few_columns_fill_vectors_together() {
    let target = Host::detect().target(Isa::Clif).unwrap();
    let pair = pair_of_seven(target.cores(), 96, 96, "nchw");
    // Seven columns are a vector of four and three more, 49 pixels twelve and one more.
    assert_eq!(plan(&pair, &target).rows, 7);
}

#[test]
fn blocks_of_networks_have_the_bits_of_two_kernels() {
    let blocks = [
        "conv2d n2 g32 ic32 oc32 ih28 iw28 kh3 kw3 ph1 pw1 bias | relu6 -> conv2d n2 ic32 oc64 ih28 iw28 kh1 kw1 bias | relu6",
        "conv2d g96 ic96 oc96 ih28 iw28 kh3 kw3 sh2 sw2 ph1 pw1 bias | relu6 -> conv2d ic96 oc24 ih14 iw14 kh1 kw1 bias",
        "conv2d g72 ic72 oc72 ih14 iw14 kh5 kw5 ph2 pw2 bias | hardswish -> conv2d ic72 oc40 ih14 iw14 kh1 kw1 bias | add",
        // Tiles of columns divide no row.
        "conv2d n2 g18 ic18 oc18 ih9 iw8 kh3 kw5 sh2 pw2:4 -> conv2d n2 ic18 oc1 ih4 iw10 kh1 kw1",
        "conv2d g2 ic2 oc2 ih64 iw64 kh5 kw5 ph2 pw2 bias | relu6 -> conv2d ic2 oc2 ih64 iw64 kh1 kw1 bias",
        // Joined with the columns before them, also in the hints.
        "conv2d g3 ic3 oc3 ih400 iw400 kh3 kw3 ph1 pw1 -> conv2d ic3 oc8 ih400 iw400 kh1 kw1 | relu",
        "conv2d g512 ic512 oc512 ih7 iw7 kh3 kw3 ph1 pw1 -> conv2d ic512 oc32 ih7 iw7 kh1 kw1 | relu",
    ];
    for compiler in compilers() {
        for block in blocks {
            let separable: Separable = block.parse().unwrap();
            hold(&compiler, &separable, &plan(&separable, compiler.target()));
        }
    }
}

#[test]
fn default_kernels_have_the_same_bits() {
    let separable: Separable = BLOCK.parse().unwrap();
    for compiler in compilers() {
        let compiler = compiler.with_database(Default::default());
        let half = |problem: &ConvProblem| compiler.compile(problem).unwrap();
        let data = PairData::reals(&separable);
        let fused = data.run(&compiler.compile_separable(&separable).unwrap()).unwrap();
        let halves = [half(separable.depthwise()), half(separable.pointwise())];
        assert_eq!(bits(&fused), bits(&data.run_halves(&halves[0], &halves[1]).unwrap()));
    }
}

const BLOCK: &str = "conv2d g24 ic24 oc24 ih12 iw15 kh3 kw3 ph1 pw1 bias | relu6 -> \
                     conv2d ic24 oc20 ih12 iw15 kh1 kw1 | add";

#[test]
fn calls_check_what_they_are_given() {
    let separable: Separable = BLOCK.parse().unwrap();
    let compiler = Compiler::new(&Host::detect(), Isa::Clif).unwrap();
    let kernel = compiler.compile_separable(&separable).unwrap();
    let data = PairData::integers(&separable);
    let (weights, extras) = (data.pack(&kernel).unwrap(), data.extras());
    let arguments = data.arguments(&weights, &extras);
    let mut output = vec![0.0; data.pointwise().output_len()];
    let mut refused = |arguments: &convgen::SeparableArguments, len: usize| match kernel
        .run(arguments, &mut output[..len])
    {
        Err(convgen::Error::Run(error)) => error,
        other => panic!("{other:?}"),
    };
    let len = data.pointwise().output_len();
    let error = refused(&arguments, len - 1);
    assert_eq!(error, RunError::Length { what: "output", given: len - 1, expected: len });
    let short = convgen::SeparableArguments { input: &arguments.input[1..], ..arguments };
    assert!(matches!(refused(&short, len), RunError::Batch { image: 4320, .. }));
    let none = convgen::SeparableArguments { depthwise_bias: None, ..arguments };
    assert_eq!(refused(&none, len), RunError::Bias { expected: "a", given: "no" });
    let two = convgen::SeparableArguments { pointwise_bias: Some(&[0.0; 20]), ..arguments };
    assert_eq!(refused(&two, len), RunError::Bias { expected: "no", given: "a" });
    let bias = convgen::SeparableArguments { depthwise_bias: Some(&[0.0; 23]), ..arguments };
    let error = RunError::Length { what: "bias", given: 23, expected: 24 };
    assert_eq!(refused(&bias, len), error);
    let extra = convgen::SeparableArguments { extras: &[], ..arguments };
    assert_eq!(refused(&extra, len), RunError::Extras { given: 0, expected: 1 });
    let swapped = kernel.pack_weights(data.pointwise().weights(), data.depthwise().weights());
    assert_eq!(
        swapped.map(|_| ()),
        Err(RunError::Length { what: "weights", given: 480, expected: 216 }.into())
    );
    let other =
        compiler.compile_separable_with(&separable, &plan_by(&separable, compiler.target(), 12, 1));
    let other = data.pack(&other.unwrap()).unwrap();
    let other = convgen::SeparableArguments { weights: &other, ..arguments };
    assert!(matches!(refused(&other, len), RunError::Packed { .. }));
}

#[test]
fn a_row_that_does_not_fit_the_scratch_is_refused() {
    let text = "conv2d g512 ic512 oc512 ih3 iw4096 kh3 kw3 -> conv2d ic512 oc1 ih1 iw4094 kh1 kw1";
    let compiler = Compiler::new(&Host::detect(), Isa::Clif).unwrap();
    let refused = compiler.compile_separable(&text.parse().unwrap()).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("the scratch of a task, with `middle`"), "{refused}");
}

#[test]
fn pairs_print_and_read_back() {
    let mut random = Random(11);
    for _ in 0..200 {
        let separable = random.pair();
        assert_eq!(separable.to_string().parse(), Ok(separable));
    }
    let named = r#"conv1d g2 ic2 oc2 iw5 kw3 "a -> b" -> conv1d ic2 oc1 iw3 kw1 "c""#;
    assert!(named.parse::<Separable>().is_ok());
}

#[test]
fn what_is_no_pair_is_refused_with_its_place() {
    let depthwise = "conv2d g8 ic8 oc8 ih9 iw9 kh3 kw3";
    let cases = [
        (format!("{depthwise} conv2d ic8 oc4"), "0 `->` between descriptors, expected one"),
        (format!("{depthwise} -> {depthwise} -> {depthwise}"), "2 `->` between descriptors"),
        (format!("{depthwise} -> conv2d ic8 oc4 iw7 kh1 kw1"), "column 37: `ih` is missing"),
        (format!("{depthwise} ->"), "column 37: empty descriptor"),
        (
            format!("{depthwise} -> conv2d ic8 oc4 ih7 iw7 kh1 kw3"),
            "column 38: the pointwise convolution has kw 3, expected 1",
        ),
        (
            format!("{depthwise} -> conv2d ic8 oc4 ih7 iw7 kh1 kw1 pw0:1"),
            "the pointwise convolution has pw 1, expected 0",
        ),
        (
            format!("{depthwise} -> conv2d g2 ic8 oc4 ih7 iw7 kh1 kw1"),
            "the pointwise convolution has g 2, expected 1",
        ),
        (
            format!("{depthwise} -> conv2d ic8 oc4 ih7 iw9 kh1 kw1"),
            "the depthwise convolution writes w 7, the pointwise one reads 9",
        ),
        (
            format!("{depthwise} -> conv2d ic9 oc4 ih7 iw7 kh1 kw1"),
            "column 38: the depthwise convolution writes channels 8, the pointwise one reads 9",
        ),
        (format!("{depthwise} -> conv2d n2 ic8 oc4 ih7 iw7 kh1 kw1"), "writes n 1"),
        (format!("{depthwise} nchw -> conv2d ic8 oc4 ih7 iw7 kh1 kw1"), "writes layout nchw"),
        (
            " conv2d g4 ic8 oc8 ih9 iw9 kh3 kw3 -> conv2d ic8 oc4 ih7 iw7 kh1 kw1".to_string(),
            "column 2: the depthwise convolution has ic 8 in g 4, expected one a group",
        ),
        (
            format!("{depthwise} -> conv2d ic8 oc4 ih7 iw7 kh1 kw1 bwd_d"),
            "the pointwise convolution is bwd_d, expected fwd",
        ),
        (
            format!("{depthwise} -> conv1d ic8 oc4 iw7 kw1"),
            "writes axes 2, the pointwise one reads 1",
        ),
    ];
    for (text, message) in cases {
        let error: SeparableTextError = text.parse::<Separable>().unwrap_err();
        assert!(error.to_string().contains(message), "{text}\n{error}");
        assert!(text.get(error.at()..).is_some(), "{text}");
    }
}

#[test]
fn the_fused_nest_is_this() {
    let text =
        "conv2d g4 ic4 oc4 ih4 iw4 kh3 kw3 ph1 pw1 bias -> conv2d ic4 oc4 ih4 iw4 kh1 kw1 | relu";
    let separable: Separable = text.parse().unwrap();
    let host = Host::detect();
    let target = host.target(Isa::Clif).unwrap();
    let plan = plan_by(&separable, &target, 2, 1);
    let nest = Compiler::schedule_separable(&separable, &plan).unwrap();
    insta::assert_snapshot!(nest);
    let (parsed, _) = parse_nest(&nest.to_string()).unwrap();
    assert_eq!(parsed.to_string(), nest.to_string());
}

#[test]
fn tasks_of_parts_repeat_the_depthwise_half() {
    let text = "conv1d g4 ic4 oc4 iw6 kw3 -> conv1d ic4 oc20 iw4 kw1";
    let separable: Separable = text.parse().unwrap();
    let target = Host::detect().target(Isa::Clif).unwrap();
    let plan = plan_by(&separable, &target, 2, 2);
    let nest = Compiler::schedule_separable(&separable, &plan).unwrap();
    insta::assert_snapshot!(nest);
}

#[test]
fn what_is_used_later_is_fetched_in_the_innermost_loop() {
    let text = "conv2d g4 ic4 oc4 ih8 iw4 kh3 kw3 sh2 ph1 pw1 -> conv2d ic4 oc4 ih4 iw4 kh1 kw1";
    let separable: Separable = text.parse().unwrap();
    let target = Host::detect().target(Isa::Clif).unwrap();
    let plan = SeparablePlan { fetch: true, ..plan_by(&separable, &target, 2, 1) };
    let nest = Compiler::schedule_separable(&separable, &plan).unwrap().to_string();
    let hints: Vec<&str> = nest.lines().filter(|line| line.contains(" fetch ")).collect();
    // Two rows of output are four of input, 64 elements, in two tiles of four steps.
    insta::assert_snapshot!(hints.join("\n"));
}

/// A nest of four rows that are two tasks; `store` and `load` are of row `i` of task `t`.
fn rows(tasks: u32, store: &str, load: &str) -> Nest {
    let text = format!(
        "nest rows {{ input f32[N,4] output f32[N,4]
           parallel n in 0..N {{ parallel t in 0..{tasks} {{
             for i in 0..{} {{ output[n,{store}] = {load} }} }} }} }}",
        4 / tasks
    );
    parse_nest(&text).unwrap().0
}

#[test]
fn nests_that_do_not_fit_together_are_refused() {
    let good = rows(2, "2*t+i", "input[n,2*t+i]");
    let fused = fuse(&good, &good, "first.").unwrap();
    assert_eq!(fused.find_buffer("middle").and_then(|id| fused.buffer(id).len(1)), Some(2));
    let refused =
        |first: &Nest, second: &Nest| fuse(first, second, "first.").unwrap_err().to_string();
    assert_eq!(
        refused(&rows(4, "t", "input[n,t]"), &good),
        "the producer's tasks are [N,4], the consumer's [N,2], which do not begin so"
    );
    let strided = rows(2, "2*i+t", "input[n,2*t+i]");
    assert_eq!(
        refused(&strided, &good),
        "`middle[n,t+first.i*2]` is at no whole block of the task in dimension 1"
    );
    assert!(fuse(&good, &rows(2, "2*t+i", "pad(input[n,2*t+i])"), "").is_ok());
    let beyond = rows(2, "2*t+i", "pad(input[n,2*t+i+1])");
    let dim = 0;
    let access = "middle[n,t*2+i+1]".to_string();
    assert_eq!(fuse(&good, &beyond, "first."), Err(FusionError::Pad { access, dim }));
    let (wide, _) = parse_nest("nest w { input f32[N,5] output f32[N,4] }").unwrap();
    assert!(matches!(fuse(&good, &wide, ""), Err(FusionError::Tasks { .. })));
    let wide =
        rows(2, "2*t+i", "input[n,2*t+i]").to_string().replace("input f32[N,4]", "input f32[N,5]");
    let (wide, _) = parse_nest(&wide).unwrap();
    assert_eq!(refused(&good, &wide), "the producer writes [N,4], the consumer reads [N,5]");
}
