//! The driver of `tests/filetests`: each `.conv` file says what it tests, and is held to it.
//!
//! | kind | what must hold |
//! |---|---|
//! | `parse` | every nest, schedule line and descriptor prints back as it is written |
//! | `verify` | every nest is accepted |
//! | `schedule` | the rewritten nest is the snapshot, and computes the problem |
//! | `lower` | the lowered nest is the snapshot, and computes the problem |
//! | `interpret` | the lowered nest computes the problem, or writes what `expect:` lists |
//! | `jit` | the kernel computes the problem, with the interpreter's bits |
//! | `vir` | the micro-kernels of the lowered nest, of AVX2 and of AVX-512, are the snapshot |
//! | `clif` | the Cranelift functions of the lowered nest are the snapshot |
//!
//! A line that carries `# error: text` must instead be refused, on that line, with that text.
//! A directive that is refused as expected is skipped, and the schedule goes on.
//! To accept a changed snapshot: `cargo insta review`, or `INSTA_UPDATE=always cargo test`.

#[path = "filetests/data.rs"]
mod data;
#[path = "filetests/format.rs"]
mod format;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use convgen::algorithm::{Algorithm, Part};
use convgen::codegen::vir_text;
use convgen::target::Caches;
use convgen::{Compiler, Host, Isa, Kernel, Target, lower, transform};
use convgen_ir::nest::{Nest, Role};
use convgen_ir::parse::{ParseError, parse_nest, parse_schedule};
use convgen_ir::print::print_nest;
use convgen_ir::problem::{ConvProblem, Descriptor};
use convgen_ir::source_map::SourceMap;
use convgen_ir::verify::{Place, VerifiedNest, VerifyError, verify};
use convgen_ir::{interpret, schedule};
use data::{Data, bits, compare};
use format::{File, Line, Section};
use target_lexicon::Triple;

/// What went wrong in a file, or nothing.
type Outcome = Result<(), String>;

#[test]
fn parse_files() {
    check_all("parse", |file| {
        file.allow(&["problem", "schedule", "nest"])?;
        file.sections.iter().try_for_each(|section| match section.key.as_str() {
            "problem" => section.lines.iter().try_for_each(descriptor_prints_back),
            "schedule" => section.lines.iter().try_for_each(directive_prints_back),
            _ => nest_prints_back(section),
        })
    });
}

#[test]
fn verify_files() {
    check_all("verify", |file| {
        file.allow(&["nest"])?;
        file.all("nest").try_for_each(|section| {
            let (nest, map) = parse_nest(&section.text()).map_err(|error| error.to_string())?;
            match verify(nest, &file.limits) {
                Ok(_) => Ok(()),
                Err(error) => section.refused(line_of(&error, &map, section), &error),
            }
        })
    });
}

#[test]
fn schedule_files() {
    check_all("schedule", |file| {
        file.allow(&["problem", "schedule", "nest"])?;
        let nest = scheduled(file)?;
        if file.one("schedule")?.is_some_and(|s| s.lines.iter().any(|line| line.error.is_some())) {
            return Ok(());
        }
        snapshot(file, &nest)?;
        computes_the_problem(file, &lowered(file, nest)?)
    });
}

#[test]
fn lower_files() {
    check_all("lower", |file| {
        file.allow(&["problem", "schedule", "nest"])?;
        let source = file.sections.first().ok_or("no section")?;
        let first = source.lines.first().ok_or("an empty section")?;
        match lower::lower(scheduled(file)?, &file.limits) {
            Ok(nest) => {
                file.all_met()?;
                snapshot(file, nest.nest())?;
                computes_the_problem(file, &nest)
            }
            Err(error) => first.refused(&error),
        }
    });
}

#[test]
fn interpret_files() {
    check_all("interpret", |file| {
        file.allow(&["problem", "schedule", "nest", "expect"])?;
        let nest = lowered(file, scheduled(file)?)?;
        match file.one("expect")? {
            Some(section) => writes(&nest, section),
            None if file.one("problem")?.is_some() => computes_the_problem(file, &nest),
            None => Err("neither `problem:` nor `expect:`".to_string()),
        }
    });
}

#[test]
fn jit_files() {
    let host = Host::detect();
    check_all("jit", |file| {
        file.allow(&["problem", "schedule"])?;
        let problem = problem(file)?.ok_or("no `problem:`")?;
        let schedule = file.one("schedule")?.map(Section::compact).unwrap_or_default();
        let schedule = parse_schedule(&schedule).map_err(|error| error.to_string())?;
        for isa in Isa::ALL {
            // The plainest set is never missing; a missing wider one is said, not passed over.
            let compiler = match Compiler::new(&host, isa) {
                Ok(compiler) => compiler,
                Err(error) if isa != Isa::Clif => {
                    eprintln!("skipped on {isa}: {error}");
                    continue;
                }
                Err(error) => return Err(error.to_string()),
            };
            let kernel = compiler.compile_with(&problem, Algorithm::Direct, &schedule);
            runs(&kernel.map_err(|error| format!("{isa}: {error}"))?)
                .map_err(|error| format!("{isa}: {error}"))?;
        }
        Ok(())
    });
}

/// The vector IR knows no host: only Cranelift, which writes the functions around it, may have been
/// built without x86-64.
#[test]
fn vir_files() {
    let triple: Triple = "x86_64-unknown-linux-gnu".parse().expect("a triple");
    let targets = [Isa::Avx2, Isa::Avx512]
        .map(|isa| Target::new(triple.clone(), isa, true, Caches::TYPICAL, 1).expect("known"));
    check_all("vir", |file| {
        file.allow(&["problem", "schedule", "nest"])?;
        let nest = lowered(file, scheduled(file)?)?;
        let mut text = String::new();
        for target in &targets {
            let outlined = lower::outline(nest.clone(), target);
            match vir_text(&outlined, target) {
                Ok(kernels) => text += &format!("# {}\n{kernels}\n", target.isa()),
                Err(error) if !cfg!(target_arch = "x86_64") => {
                    eprintln!("skipped: {error}");
                    return Ok(());
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        if !text.contains("micro-kernel of") {
            return Err("no micro-kernel".to_string());
        }
        compare_snapshot(file, text.trim_end());
        Ok(())
    });
}

/// The functions differ in calling convention and in instructions offered from host to host, so
/// they are compared on one kind of host and reported as skipped on others.
#[test]
fn clif_files() {
    let compiler = Compiler::new(&Host::detect(), Isa::Clif).expect("a host Cranelift knows");
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) || !compiler.target().fma() {
        return eprintln!("skipped on {}", compiler.target());
    }
    check_all("clif", |file| {
        file.allow(&["problem", "schedule", "nest"])?;
        compare_snapshot(file, &compiler.clif_text(&lowered(file, scheduled(file)?)?));
        Ok(())
    });
}

/// V13 is the exception: with one element type no operands can differ.
#[test]
fn every_rule_is_refused_somewhere() {
    let files = files("verify").into_iter().map(|path| File::read(&path).expect("well formed"));
    let sections = files.flat_map(|file| file.sections);
    let errors = sections.flat_map(|section| section.lines).filter_map(|line| line.error);
    let refused: BTreeSet<String> =
        errors.filter_map(|text| Some(text.split_once(':')?.0.to_string())).collect();
    let rules: BTreeSet<String> = (1..=12).map(|n| format!("V{n}")).collect();
    assert_eq!(refused, rules);
}

/// A snapshot whose file is gone would pass forever.
#[test]
fn every_snapshot_has_its_file() {
    for kind in ["schedule", "lower", "vir", "clif"] {
        let stems: BTreeSet<_> =
            files(kind).iter().map(|path| path.file_stem().map(OsString::from)).collect();
        for entry in fs::read_dir(directory(kind).join("snapshots")).expect("snapshots") {
            let path: PathBuf = entry.expect("readable").path();
            let stem = path.file_stem().map(OsString::from);
            assert!(stems.contains(&stem), "{} belongs to no file", path.display());
        }
    }
}

fn directory(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests").join(kind)
}

/// The test files of a kind, by name.
fn files(kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory(kind)).expect("a directory a kind");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "conv")).collect();
    files.sort();
    files
}

/// Checks every file of a kind; panics in the end with the names of those that failed.
fn check_all(kind: &str, check: impl Fn(&File) -> Outcome) {
    let paths = files(kind);
    assert!(!paths.is_empty(), "no files of kind {kind}");
    let failed: Vec<String> = paths
        .iter()
        .filter_map(|path| {
            let checked = || {
                let file = File::read(path)?;
                match file.kind == kind {
                    true => check(&file).and_then(|()| file.all_met()),
                    false => Err(format!("`test {}` stands in {kind}/", file.kind)),
                }
            };
            // A panic, or a snapshot that differs, has been shown in full by then.
            let outcome = catch_unwind(AssertUnwindSafe(checked));
            let error = outcome.unwrap_or_else(|_| Err("panicked, see above".to_string())).err()?;
            Some(format!("{}: {error}", path.display()))
        })
        .collect();
    assert!(failed.is_empty(), "\n{}\n", failed.join("\n"));
}

/// The nest is the snapshot, and in the language.
fn snapshot(file: &File, nest: &Nest) -> Outcome {
    let text = print_nest(nest);
    compare_snapshot(file, &text);
    let (again, _) = parse_nest(&text).map_err(|error| format!("the nest printed: {error}"))?;
    prints_as(&print_nest(&again), &text)
}

fn compare_snapshot(file: &File, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(directory(&file.kind).join("snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_description(file.purpose.clone());
    settings.bind(|| insta::assert_snapshot!(file.stem(), text));
}

fn prints_as(printed: &str, written: &str) -> Outcome {
    match printed == written {
        true => Ok(()),
        false => Err(format!("prints as\n{printed}")),
    }
}

fn descriptor_prints_back(line: &Line) -> Outcome {
    match line.text.parse::<Descriptor>() {
        Ok(descriptor) => prints_as(&descriptor.to_string(), &line.text),
        Err(error) => line.refused(&error),
    }
}

fn directive_prints_back(line: &Line) -> Outcome {
    match parse_schedule(&line.text) {
        Ok(one) => prints_as(one.to_string().trim_end(), &line.text),
        Err(error) => line.refused(&error),
    }
}

fn nest_prints_back(section: &Section) -> Outcome {
    match parse_nest(&section.text()) {
        Ok((nest, _)) => {
            // Blank lines are layout; the printer's own tests fix them.
            let printed: String = print_nest(&nest)
                .lines()
                .filter(|l| !l.is_empty())
                .map(|l| l.to_owned() + "\n")
                .collect();
            prints_as(&printed, &section.compact())
        }
        Err(error @ ParseError { line, .. }) => section.refused(line as usize, &error),
    }
}

/// The line a broken rule is reported on.
fn line_of(error: &VerifyError, map: &SourceMap, section: &Section) -> usize {
    match error.place {
        Place::Buffer(id) => map.buffers[id.0 as usize] as usize,
        Place::Stmt(number) => map.stmts[number as usize] as usize,
        Place::Nest => section.lines.first().map_or(0, |line| line.number),
    }
}

/// The problem's unscheduled nest, or the nest as written.
fn unscheduled(file: &File) -> Result<Nest, String> {
    match (file.one("nest")?, problem(file)?) {
        (Some(section), _) => {
            parse_nest(&section.text()).map(|(nest, _)| nest).map_err(|error| error.to_string())
        }
        (None, Some(problem)) => {
            let parts = Algorithm::Direct.parts(&problem).map_err(|error| error.to_string())?;
            let count = parts.len();
            let one = <[Part; 1]>::try_from(parts);
            one.map(|[part]| part.nest).map_err(|_| format!("the problem has {count} nests"))
        }
        (None, None) => Err("neither `problem:` nor `nest:`".to_string()),
    }
}

fn problem(file: &File) -> Result<Option<ConvProblem>, String> {
    let Some(section) = file.one("problem")? else { return Ok(None) };
    section.single()?.text.parse().map(Some).map_err(|error| format!("problem: {error}"))
}

/// The nest after every directive that is not refused as expected.
fn scheduled(file: &File) -> Result<Nest, String> {
    let mut nest = unscheduled(file)?;
    let lines = file.one("schedule")?.map_or(&[][..], |section| &section.lines);
    for line in lines {
        for directive in directives(line)? {
            match transform::apply_one(&nest, &directive) {
                Ok(rewritten) => nest = rewritten,
                Err(refusal) => line.refused(&refusal)?,
            }
        }
    }
    Ok(nest)
}

fn directives(line: &Line) -> Result<Vec<schedule::Directive>, String> {
    let schedule = parse_schedule(&line.text);
    schedule.map(|s| s.directives).map_err(|error| format!("line {}: {error}", line.number))
}

fn lowered(file: &File, nest: Nest) -> Result<VerifiedNest, String> {
    lower::lower(nest, &file.limits).map_err(|error| format!("lowered: {error}"))
}

/// The interpreter equals the reference, if the file states a problem.
fn computes_the_problem(file: &File, nest: &VerifiedNest) -> Outcome {
    let Some(problem) = problem(file)? else { return Ok(()) };
    let data = Data::integers(&problem);
    compare(&data.interpret([nest])?, &data.reference()?)
}

/// The kernel equals the reference on integers, and the interpreter to the bit on reals.
fn runs(kernel: &Kernel) -> Outcome {
    let integers = Data::integers(kernel.problem());
    compare(&integers.run(kernel)?, &integers.reference()?)?;
    let reals = Data::reals(kernel.problem());
    match bits(&reals.run(kernel)?) == bits(&reals.interpret(kernel.nests())?) {
        true => Ok(()),
        false => Err("the kernel differs from the interpreter".to_string()),
    }
}

/// A nest without a problem: input and weights count up from one; the output must be as listed.
fn writes(nest: &VerifiedNest, expect: &Section) -> Outcome {
    let count = |role| {
        let buffer = nest.nest().find_role(role).and_then(|id| nest.nest().buffer(id).len(1));
        (1..=buffer.unwrap_or(0)).map(|x| x as f32).collect::<Vec<f32>>()
    };
    let packed = interpret::pack(nest, &count(Role::Weights)).map_err(|error| error.to_string())?;
    let mut output = vec![f32::NAN; count(Role::Output).len()];
    let given = [count(Role::Input), packed];
    let given: Vec<&[f32]> = given.iter().map(Vec::as_slice).collect();
    let tasks = 0..nest.nest().tasks(1).unwrap();
    interpret::run(nest, 1, tasks, &given, &mut output).map_err(|error| error.to_string())?;
    let text = expect.compact();
    let wanted: Result<Vec<f32>, _> = text.split_whitespace().map(str::parse).collect();
    let wanted = wanted.map_err(|error| format!("expect: {error}"))?;
    match bits(&output) == bits(&wanted) {
        true => Ok(()),
        false => Err(format!("the output is {output:?} instead of {wanted:?}")),
    }
}
