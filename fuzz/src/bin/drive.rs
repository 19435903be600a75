//! Feeds targets many inputs, and says what was found: `cargo run --release --bin drive -- --help`.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{env, fs, thread};

use convgen_fuzz::drive::{self, Run};
use convgen_fuzz::targets::Target;

const USAGE: &str = "\
drive [--target NAME] [--inputs N] [--seed N] [--seconds N] [--jobs N] [--save FOLDER]
drive --target NAME --replay FILE...

Without a target, each in turn, by its share of the inputs. The exit code is 1 if anything was found; the inputs
are in the folder then, by default target/findings. --replay feeds files, without limits.";

fn main() -> ExitCode {
    if drive::is_ordered() {
        // As much stack as any thread of Rust has, not as much as the first one.
        let worker = thread::spawn(|| drive::work());
        let _ = worker.join();
        return ExitCode::from(3);
    }
    match options() {
        Ok(Some(options)) => options.run(),
        Ok(None) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

struct Options {
    target: Option<Target>,
    inputs: u64,
    seed: u64,
    seconds: u64,
    jobs: u64,
    folder: PathBuf,
    replay: Vec<PathBuf>,
}

fn options() -> Result<Option<Options>, String> {
    let mut options = Options {
        target: None,
        inputs: 1_000_000,
        seed: 1,
        seconds: u64::from(u32::MAX),
        jobs: thread::available_parallelism().map_or(1, |n| n.get() as u64),
        folder: PathBuf::from("target/findings"),
        replay: vec![],
    };
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("no number: {text}"));
        match word.as_str() {
            "--target" => options.target = Some(value()?.parse()?),
            "--inputs" => options.inputs = number(value()?)?,
            "--seed" => options.seed = number(value()?)?,
            "--seconds" => options.seconds = number(value()?)?,
            "--jobs" => options.jobs = number(value()?)?.max(1),
            "--save" => options.folder = value()?.into(),
            "--replay" => {
                options.replay.push(value()?.into());
                options.replay.extend(words.by_ref().map(PathBuf::from));
            }
            "--help" => return Ok(None),
            other => return Err(format!("unknown word `{other}`")),
        }
    }
    Ok(Some(options))
}

impl Options {
    fn run(self) -> ExitCode {
        if let Some(target) = self.target.filter(|_| !self.replay.is_empty()) {
            for path in &self.replay {
                println!("{}", path.display());
                let data = fs::read(path).expect("readable");
                (0..target.isas()).for_each(|isa| target.run(&data, Some(isa)));
            }
            return ExitCode::SUCCESS;
        }
        let program = env::current_exe().expect("this program has a path");
        let mut found = false;
        for target in Target::ALL {
            let inputs = match self.target {
                None => self.inputs * target.share() / 100,
                Some(wanted) if wanted == target => self.inputs,
                Some(_) => continue,
            };
            let time = Duration::from_secs(self.seconds);
            let (seed, jobs, folder) = (self.seed, self.jobs, self.folder.clone());
            let run = Run { target, inputs, seed, jobs, time, folder };
            let report =
                drive::drive(&run, || Command::new(&program)).expect("processes can be started");
            drive::print(&run, &report);
            found |= !report.findings.is_empty();
        }
        if found { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
