//! Objects for aarch64 give the interpreter's bits, linked into a C program and run by QEMU.
//!
//! For each problem: the object file of its default schedule, the inputs, and what the interpreter
//! makes of them. The program ([harness](harness.c)) runs every kernel and compares every bit.
//! Ignored unless asked for, since it needs a cross compiler and QEMU: see `run.sh`.

mod problems;
#[path = "../common/suites.rs"]
mod suites;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use convgen::target::Caches;
use convgen::{Compiler, Isa, Target, lower, object, scheduler};
use convgen_ir::interpret;
use convgen_ir::nest::{Nest, Role};
use convgen_ir::problem::ConvProblem;
use convgen_ir::verify::VerifiedNest;
use problems::Random;

const PROBLEMS: usize = 200;

const COMPILER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64";

#[test]
#[ignore = "needs qemu-aarch64 and aarch64-linux-gnu-gcc; tests/aarch64/run.sh checks for them"]
fn objects_have_the_bits_of_the_interpreter() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("aarch64");
    // What an earlier run left must not be linked.
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    let mut program = Program::new(&directory);
    for (i, problem) in problems::sample(PROBLEMS).iter().enumerate() {
        program.add(&format!("k{i}_"), problem);
    }
    let run = Command::new(EMULATOR).arg(program.link()).arg(directory.join("cases.bin")).output();
    let run = run.unwrap_or_else(|error| panic!("{EMULATOR}: {error}"));
    let said = String::from_utf8_lossy(&run.stdout);
    print!("{said}{}", String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{}", run.status);
    assert!(said.ends_with(&format!("aarch64: {PROBLEMS} problems, {PROBLEMS} identical\n")));
}

/// The parts of the C program, as they are written.
struct Program<'d> {
    directory: &'d Path,
    target: Target,
    random: Random,
    objects: Vec<PathBuf>,
    /// C declarations of the entry points, and the rows of the table of kernels.
    declarations: String,
    rows: String,
    /// What the program reads: see `harness.c`.
    cases: Vec<u8>,
}

impl<'d> Program<'d> {
    fn new(directory: &'d Path) -> Program<'d> {
        let triple = "aarch64-unknown-linux-gnu".parse().unwrap();
        let target = Target::new(triple, Isa::Clif, true, Caches::TYPICAL, 1).unwrap();
        Program {
            directory,
            target,
            random: Random::new(1),
            objects: vec![],
            declarations: String::new(),
            rows: String::new(),
            cases: vec![],
        }
    }

    fn add(&mut self, prefix: &str, problem: &ConvProblem) {
        let (algorithm, schedule) = scheduler::default_schedule(problem, &self.target);
        let nests = Compiler::schedule(problem, algorithm, &schedule).unwrap();
        let Ok([nest]) = <[Nest; 1]>::try_from(nests) else { panic!("{problem}: several nests") };
        let nest = lower::lower(nest, &self.target.limits())
            .unwrap_or_else(|error| panic!("{problem}: {error}"));
        let object = object::object(&nest, &self.target, prefix)
            .unwrap_or_else(|error| panic!("{problem}: {error}"));
        let path = self.directory.join(format!("{prefix}.o"));
        fs::write(&path, object).unwrap();
        self.objects.push(path);
        self.add_row(prefix, problem, &nest);
        self.add_case(problem, &nest);
    }

    fn add_row(&mut self, prefix: &str, problem: &ConvProblem, nest: &VerifiedNest) {
        let body = format!("{prefix}convgen_body");
        self.declarations += &format!("extern entry {body};\n");
        let mut pack = "0".to_string();
        if !nest.nest().pack.is_empty() {
            pack = format!("{prefix}convgen_pack");
            self.declarations += &format!("extern entry {pack};\n");
        }
        self.rows += &format!("    {{\"{problem}\", {body}, {pack}}},\n");
    }

    fn add_case(&mut self, problem: &ConvProblem, nest: &VerifiedNest) {
        let ir = nest.nest();
        let batch = problem.batch() as i64;
        let ids = interpret::arguments(ir);
        let weights = ir.find_role(Role::Weights).unwrap();
        let weights = self.random.reals(ir.buffer(weights).len(batch).unwrap());
        let packed = interpret::pack(nest, &weights).unwrap();
        let is_weights = |role| matches!(role, Role::Weights | Role::Packed);
        let arguments: Vec<Vec<f32>> = ids
            .iter()
            .map(|id| match ir.buffer(*id) {
                buffer if is_weights(buffer.role) => packed.clone(),
                buffer => self.random.reals(buffer.len(batch).unwrap()),
            })
            .collect();
        let slices: Vec<&[f32]> = arguments.iter().map(Vec::as_slice).collect();
        let output = ir.buffer(ir.find_role(Role::Output).unwrap()).len(batch).unwrap();
        let mut output = vec![f32::NAN; output as usize];
        let tasks = ir.tasks(batch).unwrap();
        interpret::run(nest, batch, 0..tasks, &slices, &mut output).unwrap();

        let place = ids.iter().position(|id| is_weights(ir.buffer(*id).role)).unwrap();
        let counts = [batch, tasks, nest.scratch_bytes(), place as i64, arguments.len() as i64];
        counts.into_iter().for_each(|count| self.put(count));
        for tensor in arguments.iter().chain([&weights, &output]) {
            self.put(tensor.len() as i64);
            self.cases.extend(tensor.iter().flat_map(|x| x.to_le_bytes()));
        }
    }

    fn put(&mut self, count: i64) {
        self.cases.extend(count.to_le_bytes());
    }

    /// The path of the program.
    fn link(&self) -> PathBuf {
        let table = format!(
            "#include \"harness.h\"\n{}const struct kernel kernels[] = {{\n{}}};\n\
             const int kernel_count = sizeof kernels / sizeof kernels[0];\n",
            self.declarations, self.rows
        );
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/aarch64");
        let (program, kernels) = (self.directory.join("harness"), self.directory.join("table.c"));
        fs::write(&kernels, table).unwrap();
        fs::write(self.directory.join("cases.bin"), &self.cases).unwrap();
        // Static, so that QEMU needs no library of the other machine.
        let status = Command::new(COMPILER)
            .args(["-std=c11", "-O1", "-Wall", "-Werror", "-static", "-Wl,-z,noexecstack", "-I"])
            .arg(&source)
            .arg("-o")
            .arg(&program)
            .arg(source.join("harness.c"))
            .arg(&kernels)
            .args(&self.objects)
            .status();
        assert!(status.unwrap_or_else(|error| panic!("{COMPILER}: {error}")).success());
        program
    }
}
