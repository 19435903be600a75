//! What inputs are made from: the texts and models of the project's tests, and the files under
//! `corpus/`, which were found to break something once.

use std::fs;
use std::path::{Path, PathBuf};

use convgen::algorithm::Algorithm;
use convgen::record::{Key, Record};
use convgen::scheduler;
use convgen_ir::parse::parse_schedule;
use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::Schedule;

use crate::targets::{BACKENDS, Target, is_small};

/// The inputs that a target begins with; those that broke something first.
pub fn read(target: Target) -> Vec<Vec<u8>> {
    let root = root();
    let mut seeds: Vec<Vec<u8>> = files(&root.join("fuzz/corpus").join(target.name()))
        .iter()
        .map(|path| fs::read(path).expect("readable"))
        .collect();
    match target {
        Target::Descriptor => {
            seeds.extend(monsters::descriptors());
            seeds.extend(bytes(problems(&root)));
        }
        Target::Schedule => seeds.extend(bytes(schedules(&root))),
        Target::Nest => {
            seeds.extend(monsters::nests());
            let sections = sections(&root).into_iter().filter(|section| section.key == "nest:");
            seeds.extend(bytes(sections.map(|section| section.text)));
        }
        Target::Record => {
            seeds.iter_mut().for_each(|seed| *seed = for_this_host(seed));
            seeds.extend(bytes(records(&root)));
        }
        Target::Onnx => {
            let models = files(&root.join("onnx/tests"));
            let models = models.iter().filter(|path| path.extension().is_some_and(|e| e == "onnx"));
            seeds.extend(models.map(|path| fs::read(path).expect("readable")));
        }
        Target::Npy => seeds.extend(tensors()),
    }
    assert!(seeds.len() > 2, "no seeds for {target}");
    seeds
}

/// The project's folder: this file is part of two crates.
fn root() -> PathBuf {
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let root = folders.into_iter().find(|folder| folder.join("tests/filetests").is_dir());
    root.expect("the sources lie in the project").to_owned()
}

fn bytes(texts: impl IntoIterator<Item = String>) -> impl Iterator<Item = Vec<u8>> {
    texts.into_iter().map(String::into_bytes)
}

/// All files below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("readable").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// A part of a test file.
struct Section {
    /// The problem of the same file, or nothing.
    problem: String,
    key: String,
    text: String,
}

fn sections(root: &Path) -> Vec<Section> {
    let mut found: Vec<Section> = vec![];
    for path in files(&root.join("tests/filetests")) {
        if path.extension().is_none_or(|extension| extension != "conv") {
            continue;
        }
        let (mut problem, first) = (String::new(), found.len());
        for line in fs::read_to_string(path).expect("readable").lines() {
            let text = line.split("# error").next().unwrap_or_default().trim_end();
            match line {
                "problem:" | "schedule:" | "nest:" | "expect:" => {
                    let key = line.to_string();
                    found.push(Section { problem: problem.clone(), key, text: String::new() });
                }
                _ if found.len() > first && !text.is_empty() => {
                    let section = found.last_mut().expect("begun");
                    if section.key == "problem:" {
                        problem = text.to_string();
                    }
                    section.text += &format!("{text}\n");
                }
                _ => {}
            }
        }
    }
    found
}

/// Lines that are problems, pairs among them, or are refused as such.
fn problems(root: &Path) -> Vec<String> {
    let own = sections(root).into_iter().filter(|section| section.key == "problem:");
    let mut lines: Vec<String> = own
        .flat_map(|section| section.text.lines().map(String::from).collect::<Vec<_>>())
        .collect();
    for path in files(&root.join("cli/suites")) {
        let text = fs::read_to_string(path).expect("readable");
        lines.extend(text.lines().filter(|line| !line.starts_with('#')).map(String::from));
    }
    lines.extend(BENCHDNN.map(String::from));
    lines.extend(PAIRS.map(String::from));
    lines.retain(|line| !line.is_empty());
    lines.sort();
    lines.dedup();
    lines
}

/// Descriptors as benchdnn writes them.
const BENCHDNN: [&str; 3] = [
    r#"g32mb1ic128ih56oc128oh56kh3ph1n"resnext""#,
    "mb2ic3ih9oc4kh3sh2dh1ph2",
    "mb1ic4id4ih5iw6oc4kd2kh2kw2",
];

const PAIRS: [&str; 4] = [
    "conv1d g4 ic4 oc4 iw8 kw3 -> conv1d ic4 oc5 iw6 kw1",
    "conv2d nchw n2 g5 ic5 oc10 ih7 iw9 kh3 kw3 ph1 pw1 bias | relu -> conv2d nchw n2 ic10 oc17 ih7 iw9 kh1 kw1",
    "conv2d g32 ic32 oc32 ih14 iw14 kh3 kw3 sh2 sw2 ph1 pw1 | relu6 -> conv2d ic32 oc64 ih7 iw7 kh1 kw1 bias",
    "conv3d g3 ic3 oc6 id4 ih5 iw6 kd3 kh3 kw3 pd1 ph1 pw1 circular -> conv3d ic6 oc4 id4 ih5 iw6 kd1 kh1 kw1 | add",
];

/// Problems under the schedules that were written for them, and those that are small under the
/// default one.
fn schedules(root: &Path) -> Vec<String> {
    let sections = sections(root).into_iter().filter(|section| section.key == "schedule:");
    let written = sections.filter(|section| !section.problem.is_empty());
    let mut texts: Vec<String> =
        written.map(|section| format!("{}\n{}", section.problem, section.text)).collect();
    texts.extend(scheduled(root).map(|(_, problem, schedule)| format!("{problem}\n{schedule}")));
    texts
}

/// Small problems with the default schedule of each algorithm on an instruction set, by its number.
fn scheduled(root: &Path) -> impl Iterator<Item = (usize, ConvProblem, Schedule)> {
    let parsed = problems(root).into_iter().filter_map(|line| line.parse::<ConvProblem>().ok());
    let small = parsed.filter(is_small).enumerate();
    small.flat_map(|(number, problem)| {
        let isa = number % BACKENDS.len();
        let compiler = &BACKENDS[isa].compiler;
        let (_, sum) = scheduler::default_schedule(&problem, compiler.target());
        let empty = Schedule::default();
        let tiles = [Algorithm::Winograd, Algorithm::Fourier].into_iter();
        let tiles = tiles.filter_map(|a| compiler.completed(&problem, a, &empty).ok());
        let all: Vec<Schedule> = std::iter::once(sum).chain(tiles).collect();
        all.into_iter().map(move |schedule| (isa, problem.clone(), schedule))
    })
}

/// Databases of a record or two.
fn records(root: &Path) -> Vec<String> {
    let written = sections(root).into_iter().filter(|section| section.key == "schedule:");
    let written = written.enumerate().filter_map(|(number, section)| {
        let problem = section.problem.parse::<ConvProblem>().ok()?;
        Some((number % BACKENDS.len(), problem, parse_schedule(&section.text).ok()?))
    });
    let lines: Vec<String> = written
        .chain(scheduled(root))
        .filter_map(|(isa, problem, schedule)| record(isa, &problem, &schedule))
        .collect();
    let two = lines.chunks(2).map(|two| two.join("\n"));
    two.chain(lines.iter().take(20).cloned()).collect()
}

fn record(isa: usize, problem: &ConvProblem, schedule: &Schedule) -> Option<String> {
    let record = Record {
        key: Key::new(problem, BACKENDS[isa].compiler.target(), 1),
        algorithm: Algorithm::of(schedule),
        schedule: schedule.clone(),
        batch: 1,
        seconds: 1e-6,
        default_seconds: 2e-6,
        candidates: 40,
        date: "2027-01-15T08:00:00Z".into(),
    };
    record.to_line().ok()
}

/// A line of the folder names no machine: one for each instruction set of this host, so that it is
/// used.
fn for_this_host(line: &[u8]) -> Vec<u8> {
    let line = String::from_utf8_lossy(line);
    let keys = BACKENDS.iter().map(|backend| backend.compiler.target().key());
    let lines: Vec<String> = keys.map(|key| line.trim_end().replace("TARGET", &key)).collect();
    lines.join("\n").into_bytes()
}

/// Files as numpy writes them, of both orders and all versions of the format.
fn tensors() -> Vec<Vec<u8>> {
    let mut files = vec![];
    for (version, descr, fortran, shape, elements) in [
        (1, "<f4", "False", "(3,)", 3),
        (1, "<f4", "True", "(2, 3)", 6),
        (2, "<f4", "False", "(2, 1, 2, 2)", 8),
        (3, "<f4", "False", "()", 1),
        (1, "<f4", "False", "(0, 4)", 0),
        (1, "<f8", "False", "(2,)", 4),
        (1, ">f4", "False", "(2,)", 2),
        (1, "|u1", "False", "(4,)", 1),
    ] {
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
        let header = format!("{header:<116}\n");
        let mut bytes = b"\x93NUMPY".to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        bytes.extend(header.as_bytes());
        bytes.extend((0..elements).flat_map(|x| (x as f32).to_le_bytes()));
        files.push(bytes);
    }
    files
}

/// Texts that are only large, deep or long, which nobody wants to read in a folder.
mod monsters {
    pub fn descriptors() -> Vec<Vec<u8>> {
        let long = format!("conv1d ic1 oc1 iw1 kw1{}", " | relu".repeat(20_000));
        vec![long.into_bytes(), "0".repeat(100_000).into_bytes()]
    }

    pub fn nests() -> Vec<Vec<u8>> {
        let texts = [
            deep("for a in 0..2 { "),
            deep("if 0 < 1 { "),
            deep("output[0] = add(1.0, "),
            deep("output[0] = neg("),
            format!("nest x {{ output f32[{}", "1,".repeat(100_000)),
            // Each is counted, and its place looked for.
            declarations(20_000),
            unrolled_expression(),
        ];
        texts.map(String::into_bytes).to_vec()
    }

    fn deep(open: &str) -> String {
        format!("nest x {{ output f32[1] {}", open.repeat(50_000))
    }

    fn declarations(count: usize) -> String {
        let lines = (0..count).map(|i| format!("scratch s{i} f32[1]\n"));
        let lines: String = lines.collect();
        format!(
            "nest x {{\ninput f32[4]\noutput f32[4]\n{lines}for i in 0..4 {{ output[i] = input[i] }}\n}}"
        )
    }

    /// 64 KB, a thousand times.
    fn unrolled_expression() -> String {
        let depth = 40;
        let value = format!("{}input[i]{}", "neg(".repeat(depth), ")".repeat(depth));
        let sum = (0..150).fold(value.clone(), |sum, _| format!("add({sum}, {value})"));
        let sum = if sum.len() > 64 << 10 { value } else { sum };
        format!(
            "nest x {{\ninput f32[1024]\noutput f32[1024]\nunroll i in 0..1024 {{ output[i] = {sum} }}\n}}"
        )
    }
}
