//! Nests as text, carried out by every emitter of this host, against the interpreter.
//!
//! What a loop's first value is decides which numbers the emitters meet, and nothing else: so each
//! nest is also run with all its loops begun far away, and the variables taken back in every index
//! and condition.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use convgen_ir::interpret;
use convgen_ir::nest::{Affine, AxisId, Dim, Mode, Nest, Role, Stmt, substitute, visit_loops_mut};
use convgen_ir::parse::{parse_nest, parse_schedule};
use convgen_ir::problem::ConvProblem;
use convgen_ir::verify::{Limits, VerifiedNest, verify};
use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_frontend::FunctionBuilderContext;

use super::isa::MicroKernel;
use super::isa::clif::{self, Emitted};
use super::{Entry, MOST_STACK_BYTES};
use crate::algorithm::Algorithm;
use crate::compiler::Compiler;
use crate::jit::{Code, Inputs, MAX_SUMS};
use crate::lower::{Outlined, lower, outline};
use crate::runtime::run_alone;
use crate::scheduler::default_schedule;
use crate::scheduler::space::Space;
use crate::target::{Caches, Host, Isa, Target};
use crate::tune::search::Draw;
use crate::vir::Program;

/// Images of a call.
const BATCH: usize = 2;

/// Elements of the largest buffer that is worth a test.
const MOST_ELEMENTS: i64 = 1 << 20;

/// How far loops are moved: beyond what a float mask, 32 bits of bytes or of elements hold, and as
/// far as a loop may begin.
const SHIFTS: [i64; 3] = [1 << 30, (1 << 32) - 5, (1 << 40) - 4096];

fn compilers() -> Vec<(Isa, Compiler)> {
    let host = Host::detect();
    let made = Isa::ALL.into_iter().filter_map(|isa| match Compiler::new(&host, isa) {
        Ok(compiler) => Some((isa, compiler)),
        Err(error) => {
            eprintln!("skipped on {isa}: {error}");
            None
        }
    });
    made.collect()
}

/// The buffers of a call: those that the body reads, in order, and the weights as given.
struct Values {
    weights: Vec<Vec<f32>>,
    input: Vec<f32>,
    biases: Vec<Vec<f32>>,
    extras: Vec<Vec<f32>>,
}

impl Values {
    fn new(nest: &Nest) -> Values {
        let mut state = 1_u64;
        let mut value = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        };
        let mut of = |roles: &[Role]| -> Vec<Vec<f32>> {
            let ids = nest.buffer_ids().filter(|id| roles.contains(&nest.buffer(*id).role));
            ids.map(|id| (0..nest.buffer(id).len(BATCH as i64).unwrap()).map(|_| value()).collect())
                .collect()
        };
        Values {
            weights: of(&[Role::Weights]),
            input: of(&[Role::Input]).pop().unwrap_or_default(),
            biases: of(&[Role::Bias]),
            extras: of(&[Role::Gradient, Role::Scale, Role::Residual]),
        }
    }

    fn output(&self, nest: &Nest) -> Vec<f32> {
        let id = nest.find_role(Role::Output).expect("V3: an output");
        vec![f32::NAN; nest.buffer(id).len(BATCH as i64).unwrap() as usize]
    }

    fn interpret(&self, nest: &VerifiedNest) -> Vec<u32> {
        let ir = nest.nest();
        let weights: Vec<&[f32]> = self.weights.iter().map(Vec::as_slice).collect();
        let packed = interpret::pack_all(nest, &weights).expect("weights of the nest's shapes");
        let others = self.biases.iter().chain(&self.extras).map(Vec::as_slice);
        let packed = packed.iter().map(Vec::as_slice);
        let given: Vec<&[f32]> =
            [self.input.as_slice()].into_iter().chain(packed).chain(others).collect();
        let mut output = self.output(ir);
        let batch = BATCH as i64;
        interpret::run(nest, batch, 0..ir.tasks(batch).expect("few"), &given, &mut output)
            .expect("its shapes");
        bits(&output)
    }

    fn run(&self, nest: &VerifiedNest, code: &Code) -> Vec<u32> {
        let weights: Vec<&[f32]> = self.weights.iter().map(Vec::as_slice).collect();
        let mut packed = vec![0.0; code.packed_len()];
        code.pack(&weights, &mut packed).expect("weights of the nest's shapes");
        let mut biases = [None; MAX_SUMS];
        for (place, bias) in biases.iter_mut().zip(&self.biases) {
            *place = Some(bias.as_slice());
        }
        let extras: Vec<&[f32]> = self.extras.iter().map(Vec::as_slice).collect();
        let inputs = Inputs { input: &self.input, weights: &packed, biases, extras: &extras };
        let mut output = self.output(nest.nest());
        run_alone(code.call(BATCH, inputs, &mut output).expect("its shapes"));
        bits(&output)
    }
}

/// Every NaN counts as the same NaN.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// Whether a nest is small enough to run, and has no more biases than a call.
fn is_small(nest: &Nest) -> bool {
    let small = |id| nest.buffer(id).len(BATCH as i64).is_some_and(|len| len <= MOST_ELEMENTS);
    nest.buffer_ids().all(small) && nest.find_all(Role::Bias).count() <= MAX_SUMS
}

/// The same iterations with every loop over numbers begun `by` later.
fn shifted(nest: &Nest, by: i64) -> Nest {
    let mut nest = nest.clone();
    let mut axes: Vec<AxisId> = Vec::new();
    for block in [&mut nest.pack, &mut nest.body] {
        visit_loops_mut(block, &mut |l| {
            if let Dim::Fixed(hi) = l.hi {
                axes.push(l.axis);
                (l.lo, l.hi) = (l.lo + by, Dim::Fixed(hi + by));
            }
        });
    }
    axes.sort_unstable();
    axes.dedup();
    for axis in axes {
        let back = Affine::axis(axis).plus(-by);
        for block in [&mut nest.pack, &mut nest.body] {
            substitute(block, axis, &back);
        }
    }
    nest
}

/// Each nest of the filetests that a caller could run.
fn written() -> Vec<(PathBuf, Nest)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests");
    let mut found = Vec::new();
    for kind in ["interpret", "verify", "lower", "schedule"] {
        let entries = std::fs::read_dir(root.join(kind)).expect("a directory a kind");
        for path in entries.map(|entry| entry.expect("readable").path()) {
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            for section in text.split("\nnest:\n").skip(1) {
                let end = ["\nexpect:\n", "\nschedule:\n", "\nproblem:\n"].iter();
                let end = end.filter_map(|key| section.find(key)).min();
                if let Ok((nest, _)) = parse_nest(&section[..end.unwrap_or(section.len())]) {
                    found.push((path.clone(), nest));
                }
            }
        }
    }
    found
}

/// Runs a nest as it is and moved, after and before lowering; how many forms the verifier took.
fn check(name: &str, nest: &Nest, compilers: &[(Isa, Compiler)]) -> usize {
    let mut forms = 0;
    for (isa, compiler) in compilers {
        let limits = Limits { scratch_bytes: 1 << 26, ..compiler.target().limits() };
        let Ok(plain) = lower(nest.clone(), &limits) else { continue };
        let values = Values::new(plain.nest());
        let want = values.interpret(&plain);
        let moved = SHIFTS.iter().flat_map(|by| {
            let whole = |nest: Nest| Some(nest);
            [
                whole(shifted(nest, *by)).and_then(|nest| lower(nest, &limits).ok()),
                verify(shifted(plain.nest(), *by), &limits).ok(),
            ]
        });
        for form in std::iter::once(Some(plain.clone())).chain(moved).flatten() {
            let form = outline(form, compiler.target());
            let text = || convgen_ir::print::print_nest(form.nest());
            let code = compiler.code(vec![form.clone()]).expect("a verified nest has code");
            assert_eq!(values.interpret(&form), want, "{name}: the interpreter on\n{}", text());
            assert_eq!(values.run(&form, &code), want, "{name} on {isa}:\n{}", text());
            forms += 1;
        }
    }
    forms
}

#[test]
fn where_loops_begin_changes_no_bit_of_written_nests() {
    let compilers = compilers();
    let mut forms = 0;
    for (path, nest) in written() {
        if is_small(&nest) {
            forms += check(&path.display().to_string(), &nest, &compilers);
        }
    }
    println!("{forms} forms");
    assert!(forms > 100, "{forms}");
}

/// Small problems whose default schedules have everything that schedules have: cut and guarded
/// tiles, packed weights, copies, vectors on both layouts, lanes that lie apart or are spread,
/// masks, phases.
const PROBLEMS: [&str; 24] = [
    "conv1d ic3 oc10 iw19 kw3 pw1",
    "conv1d nchw ic2 oc3 iw37 kw3 sw2",
    "conv2d ic16 oc20 ih9 iw9 kh3 kw3 ph1 pw1 bias | relu",
    "conv2d ic20 oc24 ih9 iw9 kh1 kw1 | gelu | silu | tanh",
    "conv2d g40 ic40 oc40 ih9 iw9 kh3 kw3 ph1 pw1",
    "conv2d nchw ic3 oc5 ih20 iw20 kh3 kw3 | leaky_relu(0.5)",
    "conv2d nchw ic20 oc24 ih19 iw19 kh3 kw3 ph1 pw1 sh2 sw2 bias | relu",
    "conv2d nchw g40 ic40 oc40 ih9 iw9 kh3 kw3 ph1 pw1",
    "conv2d nchw g16 ic16 oc16 ih16 iw16 kh3 kw3 ph1 pw1",
    "conv2d g4 ic16 oc32 ih8 iw8 kh3 kw3 ph1 pw1",
    "conv2d g8 ic16 oc16 ih8 iw8 kh3 kw3 ph1 pw1",
    "conv2d g5 ic15 oc25 ih8 iw8 kh3 kw3 ph1 pw1",
    "conv2d ic64 oc33 ih7 iw13 kh3 kw3 dh2 dw2 ph2 pw2 bias | hardswish | add",
    "conv2d ic3 oc64 ih33 iw33 kh7 kw7 sh2 sw2 ph3 pw3 bias | relu",
    "conv2d ic8 oc8 ih9 iw10 kh3 kw3 ph1 pw1 reflect",
    "conv2d ic8 oc8 ih9 iw10 kh3 kw3 ph1 pw1 circular",
    "conv2d nchw ic4 oc8 ih9 iw10 kh3 kw3 ph1 pw1 replicate",
    "conv2d ic8 oc12 ih9 iw10 kh3 kw3 sh2 sw2 ph1 pw1 bwd_d",
    "conv2d ic8 oc12 ih9 iw10 kh3 kw3 ph1 pw1 bwd_w",
    "conv2d ic8 oc12 ih9 iw10 kh3 kw3 ph1 pw1 bwd_b",
    "deconv2d ic8 oc12 ih5 iw6 kh3 kw3 sh2 sw2",
    "conv3d ic4 oc8 id4 ih5 iw6 kd3 kh3 kw3 pd1 ph1 pw1",
    "conv1d ic1 oc1 iw65 kw3",
    "conv1d ic17 oc5 iw33 kw4 sw3 pw2:-1",
];

#[test]
fn where_loops_begin_changes_no_bit_of_default_schedules() {
    let compilers = compilers();
    let mut forms = 0;
    for problem in PROBLEMS.iter().map(|text| text.parse().expect("a problem")) {
        for one in &compilers {
            let target = one.1.target();
            let (algorithm, schedule) = default_schedule(&problem, target);
            let nests = Compiler::schedule_for(target, &problem, algorithm, &schedule);
            for nest in nests.expect("the default schedule applies") {
                let name = format!("{problem} by {algorithm:?}");
                forms += check(&name, &nest, std::slice::from_ref(one));
            }
        }
    }
    println!("{forms} forms");
    assert!(forms > 500, "{forms}");
}

/// A nest with that many values alive at once: each is named before the first is used.
fn crowded(values: usize) -> VerifiedNest {
    let lets: String = (0..values).map(|i| format!("let x{i} = input[n,{i}]\n")).collect();
    let stores: String =
        (0..values).rev().map(|i| format!("output[n,{i}] = mul(x{i}, 2.0)\n")).collect();
    let text = format!(
        "nest crowded {{
           input f32[N,{values}]
           output f32[N,{values}]
           parallel n in 0..N {{ {lets} {stores} }}
         }}"
    );
    let (nest, _) = parse_nest(&text).expect("a nest");
    verify(nest, &Limits::INTERPRETER).expect("a legal one")
}

/// The stack that the body of a nest needs, if it calls these besides.
fn stack(
    nest: &VerifiedNest,
    compiler: &Compiler,
    mut called: Vec<MicroKernel>,
) -> Result<u32, crate::Error> {
    let isa = clif::isa(compiler.target(), true, clif::Allocator::Backtracking)?;
    let mut builder = FunctionBuilderContext::new();
    let emitted =
        clif::emit(&nest.clone().into(), Entry::Body, compiler.target(), &*isa, &mut builder);
    let mut context = Context::for_function(emitted.function);
    let code = context.compile(&*isa, &mut ControlPlane::default()).expect("code");
    called.extend(emitted.micro_kernels);
    clif::stack_bytes(code, &called)
}

#[test]
fn a_large_frame_fits_a_stack_of_its_size_and_is_probed() {
    let compilers = compilers();
    let (_, compiler) = &compilers[0];
    let nest = crowded(7000);
    let need = stack(&nest, compiler, vec![]).expect("less than the limit");
    assert!(need > 49 << 10, "{need}");
    let text = compiler.asm_text(&nest).expect("code");
    assert!(
        text.contains("stack_probe_loop") || cfg!(not(target_arch = "x86_64")),
        "{}",
        &text[..2000]
    );
    let small = crowded(20);
    assert!(stack(&small, compiler, vec![]).expect("less than the limit") < 4096);
    assert!(!compiler.asm_text(&small).expect("code").contains("stack_probe_loop"));
    let values = Values::new(nest.nest());
    let want = values.interpret(&nest);
    let code = compiler.code(vec![nest.clone()]).expect("code");
    let builder = std::thread::Builder::new().stack_size((64 << 10) + need as usize);
    std::thread::scope(|scope| {
        let run = || values.run(&nest, &code);
        let thread = builder.spawn_scoped(scope, run).expect("a thread");
        assert_eq!(thread.join().expect("no panic"), want);
    });
}

fn empty() -> Program {
    Program {
        items: vec![],
        lanes: 16,
        types: vec![],
        cells: 0,
        streams: vec![],
        arguments: vec![],
    }
}

#[test]
fn a_stack_beyond_the_limit_is_refused() {
    let compilers = compilers();
    let compiler = &compilers[0].1;
    let called = |stack| MicroKernel { code: vec![], program: Arc::new(empty()), words: 0, stack };
    let need = stack(&crowded(20), compiler, vec![]).expect("less than the limit");
    let rest = MOST_STACK_BYTES - need;
    let most = stack(&crowded(20), compiler, vec![called(rest)]).expect("just the limit");
    assert_eq!(most, MOST_STACK_BYTES);
    let error = stack(&crowded(20), compiler, vec![called(rest + 1)]).expect_err("too much");
    assert!(error.to_string().contains("262145 bytes of stack, the limit is 262144"), "{error}");
}

/// Few operations, and much to allocate registers for: values that are alive over branches, in
/// every part of a kernel; and lanes that lie apart in padding, each with branches of its own.
#[test]
fn what_registers_are_allocated_for_too_long_is_refused() {
    let cases = [
        (
            "deconv2d g2 ic4 oc6 ih3 iw3 kh1 kw86 sh3 sw4 bias | relu",
            "reorder n oh ow g oc; parallel n; accumulate output at oh; unroll ow; vectorize oc; \
             vectorize g; unroll ic; unroll kw; pack weights",
            "values, the limit is 524288",
        ),
        (
            "conv1d ic2027 oc1 iw2 kw5 pw2",
            "reorder n g oc ow; parallel n; accumulate output at g; unroll oc; vectorize ow; unroll ic; \
             unroll kw; pack weights",
            "blocks, the limit is 8192",
        ),
    ];
    let compilers = compilers();
    let compiler = &compilers[0].1;
    for (problem, schedule, why) in cases {
        let problem: ConvProblem = problem.parse().expect("a problem");
        let schedule = parse_schedule(schedule).expect("a schedule");
        let nests = compiler.lower(&problem, Algorithm::Direct, &schedule).expect("verified");
        let error = compiler.code(nests).err().expect("too much").to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// The micro-kernels of a block by its marks: one a copy.
fn marked(block: &[Stmt]) -> usize {
    let of = |stmt: &Stmt| match stmt {
        Stmt::MicroKernel(_) => 1,
        Stmt::Loop(l) => match l.mode {
            Mode::Unroll => l.trip_count().unwrap_or(0) as usize * marked(&l.body),
            Mode::Serial | Mode::Parallel | Mode::Vector => marked(&l.body),
        },
        Stmt::If(_, body) => marked(body),
        Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => 0,
    };
    block.iter().map(of).sum()
}

/// Candidates drawn for each problem and instruction set.
const DRAWN: usize = 24;

#[test]
fn each_mark_is_a_micro_kernel() {
    let triple: target_lexicon::Triple = "x86_64-unknown-linux-gnu".parse().expect("a triple");
    let mut kernels = 0;
    for isa in [Isa::Avx2, Isa::Avx512] {
        let target = Target::new(triple.clone(), isa, true, Caches::TYPICAL, 1).expect("known");
        let Ok(flags) = clif::isa(&target, false, clif::Allocator::Backtracking) else { return };
        let mut context = FunctionBuilderContext::new();
        let mut draw = Draw(1);
        for problem in PROBLEMS {
            let problem: ConvProblem = problem.parse().expect("a problem");
            let Some(space) = Space::of(&problem, &target).into_iter().next() else { continue };
            let drawn = (0..DRAWN).map(|_| space.sample(|below| draw.below(below)));
            for candidate in std::iter::once(space.default_candidate()).chain(drawn) {
                let (algorithm, schedule) = (candidate.algorithm, &candidate.schedule);
                let lowered = crate::stages::lower_for(&target, &problem, algorithm, schedule);
                for outlined in lowered.into_iter().flatten() {
                    let mut emit = |n: &_| clif::emit_entries(n, &target, &*flags, &mut context);
                    let emitted = emit(&outlined);
                    let nest = outlined.nest().nest();
                    let case = || format!("{isa}, {problem}, {schedule}\n{nest}");
                    let found: usize = emitted.iter().map(|(_, f)| f.micro_kernels.len()).sum();
                    assert_eq!(found, marked(&nest.pack) + marked(&nest.body), "{}", case());
                    kernels += found;
                    // The programs are those of lowering, and what they would be if built again.
                    let handed = |k: &MicroKernel| Arc::strong_count(&k.program) == 2;
                    let all = |(_, f): &(_, Emitted)| f.micro_kernels.iter().all(handed);
                    assert!(emitted.iter().all(all), "built again: {}", case());
                    let rebuilt = emit(&Outlined::from(outlined.nest().clone()));
                    for ((_, is), (_, was)) in rebuilt.iter().zip(&emitted) {
                        assert!(codes(is).eq(codes(was)), "other code: {}", case());
                        let [is, was] = [is, was].map(|f| f.function.display().to_string());
                        assert_eq!(is, was, "{}", case());
                    }
                }
            }
        }
    }
    assert!(kernels > 1000, "{kernels}");
}

fn codes(function: &Emitted) -> impl Iterator<Item = &[u8]> {
    function.micro_kernels.iter().map(|kernel| kernel.code.as_slice())
}

/// Each copy that unrolled loops make of a scope has the program that was built for it.
#[test]
fn copies_have_programs_of_their_own() {
    let text = "nest t { input f32[N,6,8] output f32[N,4,3,9] parallel n in 0..N {
        for z in 0..4 { for y in 0..3 { for x in 0..9 { output[n,z,y,x] = 0.0 } } }
        unroll a in 0..4 { for b in 0..5 { unroll c in 0..3 { if a+c < 5 {
            output[n,a,c,8] = 1.0
            for w in 0..2 { vector i in 0..8 { output[n,a,c,i] = input[n,a+c,i] } }
        } } } } } }";
    let (nest, _) = parse_nest(text).expect("a nest");
    let nest = verify(nest, &Limits::INTERPRETER).expect("a legal one");
    for (isa, compiler) in compilers() {
        let outlined = Outlined::new(nest.clone(), compiler.target());
        let flags =
            clif::isa(compiler.target(), true, clif::Allocator::Backtracking).expect("known");
        let mut context = FunctionBuilderContext::new();
        let emitted = clif::emit(&outlined, Entry::Body, compiler.target(), &*flags, &mut context);
        let kernels = &emitted.micro_kernels;
        let copies = if compiler.target().has_micro_kernels() { 11 } else { 0 };
        assert_eq!(kernels.len(), copies, "{isa}");
        assert!(kernels.iter().all(|kernel| Arc::strong_count(&kernel.program) == 2), "{isa}");
    }
}

#[test]
fn a_mark_of_what_is_no_micro_kernel_is_plain_code() {
    let text = "nest t {
        input f32[N,20]
        output f32[N,20]
        parallel n in 0..N {
          micro_kernel {
            for i in 0..20 { output[n,i] = add(input[n,i], 1.0) }
          }
        }
      }";
    let (nest, _) = parse_nest(text).expect("a nest");
    let nest = verify(nest, &Limits::INTERPRETER).expect("a legal one");
    let values = Values::new(nest.nest());
    for (isa, compiler) in compilers() {
        let code = compiler.code(vec![nest.clone()]).expect("code");
        assert_eq!(values.run(&nest, &code), values.interpret(&nest), "{isa}");
    }
}

/// Conditions that follow from others, loops whose range a condition empties: what is known where a
/// mark is set is what is known where its code is made.
#[test]
fn a_mark_is_set_where_its_code_can_be_made() {
    let texts = [
        "nest t { input f32[N,24] output f32[N,10,10,8] parallel n in 0..N {
           for y in 0..10 { for x in 0..10 {
             vector i in 0..8 { output[n,x,y,i] = 0.0 }
             if y*3+x < 10 { if y*2+x < 10 { for w in 0..2 {
               vector i in 0..8 { output[n,x,y,i] = pad(input[n,2*y+2*i]) } } } } } } } }",
        "nest t { input f32[N,8] output f32[N,4,8] parallel n in 0..N { unroll a in 0..4 {
           for w in 0..2 { vector i in 0..8 { output[n,a,i] = 0.0 } }
           for r in 0..2 where a + r >= 3 {
             for w in 0..2 { vector i in 0..8 { output[n,a,i] = input[n,i] } } } } } }",
    ];
    for (isa, compiler) in compilers() {
        for text in texts {
            let (nest, _) = parse_nest(text).expect("a nest");
            let nest = verify(nest, &Limits::INTERPRETER).expect("a legal one");
            let nest = outline(nest, compiler.target());
            let emitted = compiler.emit(&nest);
            let found: usize = emitted.iter().map(|(_, f)| f.micro_kernels.len()).sum();
            assert_eq!(found, marked(&nest.nest().body), "{isa}: {}", nest.nest());
        }
    }
}

/// The calls of a function share the memory of their arguments: one that has thousands needs no
/// more stack than one that has one.
#[test]
fn calls_of_micro_kernels_share_their_arguments() {
    let text = "nest t { input f32[N,1000,8] output f32[N,1000,8] parallel n in 0..N {
        unroll a in 0..1000 { for w in 0..2 { vector i in 0..8 { output[n,a,i] = input[n,a,i] } } } } }";
    let (nest, _) = parse_nest(text).expect("a nest");
    let nest = verify(nest, &Limits::INTERPRETER).expect("a legal one");
    for (isa, compiler) in compilers() {
        let nest = outline(nest.clone(), compiler.target());
        let need = stack(&nest, &compiler, vec![]).expect("less than the limit");
        assert!(need < 1024, "{isa}: {need} bytes");
    }
}

/// Scopes in one another and tiles one after the other, which are tried again and again.
#[test]
fn what_is_tried_has_a_budget() {
    let units: String = (0..1000)
        .map(|i| {
            format!(
                "reg a{i} f32[1] vector i in 0..1 {{ a{i}[i] = input[n,i+{i}] }}
                 vector i in 0..1 {{ output[n,0,i+{i}] = a{i}[i] }}\n"
            )
        })
        .collect();
    let text = format!(
        "nest t {{ input f32[N,1000] output f32[N,1,1000] parallel n in 0..N {{
           for z in 0..1 {{ {units} }} }} }}"
    );
    let (nest, _) = parse_nest(&text).expect("a nest");
    let nest = verify(nest, &Limits::INTERPRETER).expect("a legal one");
    for (isa, compiler) in compilers() {
        let marks = outline(nest.clone(), compiler.target());
        let emitted = compiler.emit(&marks);
        let found: usize = emitted.iter().map(|(_, f)| f.micro_kernels.len()).sum();
        assert_eq!(found, marked(&marks.nest().body), "{isa}");
    }
}
