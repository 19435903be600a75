//! Runs targets on many inputs without cargo-fuzz.
//!
//! Inputs are tried in a process of their own, which has a limit of memory, and which this one
//! watches: on a crash, or after too much time, it is ended, the input is saved, and another
//! process goes on behind it. A panic is caught where it happens. A run is the same for the same
//! seed, whatever the number of processes.
//!
//! Time is that of the processor, and what takes too much of it is tried again, so that a busy
//! machine finds nothing. Needs a shell with `ulimit -v`.

use std::backtrace::Backtrace;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::targets::{BACKENDS, Target};
use crate::{corpus, mutate};

/// Processor time of one stage of an input. The largest function that is compiled takes about one
/// second.
const LIMIT: Duration = Duration::from_secs(2);

/// How often an input takes too long before that is a finding: the time that a host takes away from
/// a virtual machine counts as its processor's.
const ATTEMPTS: u32 = 3;

/// Time by the clock after which an input waits for what does not come.
const STUCK: Duration = Duration::from_secs(60);

/// Address space of a process in KiB: 1 GiB for an input, and what a process has before the first
/// one, of which the arena of a thread and the code of the program are most.
const MEMORY_KIB: u64 = (1 << 20) + (256 << 10);

/// Inputs after which a process is replaced, so that what one leaves behind is no other's memory.
const INPUTS_A_PROCESS: u64 = 20_000;

/// Inputs that are saved of each kind of finding, by one process.
const SAVED: usize = 2;

/// What a process is told.
const ORDER: &str = "CONVGEN_FUZZ_ORDER";

/// The exit code of a process that did its share, and is not at the end.
const MORE: i32 = 100;

/// What to do.
#[derive(Clone, Debug)]
pub struct Run {
    pub target: Target,
    pub inputs: u64,
    pub seed: u64,
    /// Processes at a time.
    pub jobs: u64,
    /// The time by the clock after which no more inputs are tried.
    pub time: Duration,
    /// Where findings are saved.
    pub folder: PathBuf,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Report {
    pub inputs: u64,
    pub time: Duration,
    /// How often something was found, its first message, and a file with the input.
    pub findings: BTreeMap<String, (usize, String)>,
    /// The longest time of an input by the clock, and its number.
    pub slowest: (Duration, u64),
}

/// Tries the inputs; the command starts this very program again such that it calls [`work`].
pub fn drive(run: &Run, again: impl Fn() -> Command + Sync) -> io::Result<Report> {
    fs::create_dir_all(&run.folder)?;
    let log = run.folder.join(format!("{}.tsv", run.target));
    File::create(&log)?;
    let begin = Instant::now();
    let lanes: Vec<io::Result<Lane>> = thread::scope(|scope| {
        let lane = |job| {
            scope.spawn({
                let again = &again;
                move || Lane::run(run, job, begin, again)
            })
        };
        let lanes: Vec<_> = (0..run.jobs).map(lane).collect();
        lanes.into_iter().map(|lane| lane.join().expect("a lane does not panic")).collect()
    });
    let mut report = Report { time: begin.elapsed(), ..Report::default() };
    for lane in lanes {
        let lane = lane?;
        report.inputs += lane.done;
        report.slowest = report.slowest.max(lane.slowest);
    }
    for line in fs::read_to_string(&log)?.lines() {
        let (number, message) = line.split_once('\t').unwrap_or(("", line));
        let place = saved(&run.folder, run.target, number.parse().unwrap_or(0));
        let file = if place.exists() { place.display().to_string() } else { String::new() };
        let found = report.findings.entry(class(message)).or_insert((0, String::new()));
        found.0 += 1;
        if found.1.is_empty() && !file.is_empty() {
            found.1 = format!("{message}\n      {file}");
        }
    }
    Ok(report)
}

/// Messages that differ in numbers and names are of one kind.
fn class(message: &str) -> String {
    let first = message.split("\\n").next().unwrap_or_default();
    let mut class = String::new();
    for c in first.chars().take(160) {
        match c {
            '0'..='9' if class.ends_with('#') => {}
            '0'..='9' => class.push('#'),
            c => class.push(c),
        }
    }
    // What follows is the problem.
    let end = [": conv", ": deconv", " `"].iter().filter_map(|mark| class.find(mark)).min();
    class[..end.unwrap_or(class.len())].to_string()
}

fn saved(folder: &Path, target: Target, number: u64) -> PathBuf {
    folder.join(format!("{target}-{number}"))
}

fn log(folder: &Path, target: Target, number: u64, message: &str) -> io::Result<()> {
    let path = folder.join(format!("{target}.tsv"));
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    // One write, so that the lines of two processes do not mix.
    file.write_all(format!("{number}\t{}\n", message.replace('\n', "\\n")).as_bytes())
}

/// Every so many-th input, one process after the other.
#[derive(Default)]
struct Lane {
    done: u64,
    slowest: (Duration, u64),
}

impl Lane {
    fn run(run: &Run, job: u64, begin: Instant, again: &impl Fn() -> Command) -> io::Result<Lane> {
        let mut lane = Lane::default();
        let mut next = job;
        // The last input that took too long, and how often it did.
        let mut late = (u64::MAX, 0);
        while next < run.inputs && begin.elapsed() < run.time {
            let beat = run.folder.join(format!("{}.{job}.beat", run.target));
            let errors = run.folder.join(format!("{}.{job}.errors", run.target));
            fs::write(&beat, [&next.to_le_bytes()[..], &[0; 24]].concat())?;
            let order = Order { run: run.clone(), next, beat: beat.clone() };
            let mut child = limited(&again())
                .env(ORDER, order.text())
                .env("RUST_BACKTRACE", "0")
                .stdout(Stdio::null())
                .stderr(File::create(&errors)?)
                .spawn()?;
            let end = watch(&mut child, &beat, begin + run.time)?;
            let Beat { number, slowest, stage } = Beat::read(&beat)?;
            lane.slowest = lane.slowest.max(slowest);
            let whole = (number - next) / run.jobs;
            if matches!(end, End::Slow | End::Stuck) {
                late = (number, if late.0 == number { late.1 + 1 } else { 1 });
                if late.1 < ATTEMPTS {
                    lane.done += whole;
                    next = number;
                    continue;
                }
            }
            let found = match end {
                End::Done | End::More | End::Late => None,
                End::Slow => Some(format!("more than {} s in {stage}", LIMIT.as_secs())),
                End::Stuck => Some(format!("waits in {stage}")),
                End::Died(status) => Some(death(status, &stage, &errors)),
            };
            if let Some(message) = &found {
                let seeds = corpus::read(run.target);
                let (data, _) = mutate::input(&seeds, run.target, run.seed, number);
                fs::write(saved(&run.folder, run.target, number), data)?;
                log(&run.folder, run.target, number, message)?;
            }
            lane.done += whole + u64::from(!matches!(end, End::Late));
            next = number + run.jobs;
            if matches!(end, End::Done) {
                break;
            }
        }
        Ok(lane)
    }
}

/// Why a process ended, and what it said last.
fn death(status: ExitStatus, stage: &str, errors: &Path) -> String {
    let text = fs::read_to_string(errors).unwrap_or_default();
    let telling = ["overflow", "allocation", "signal", "panicked", "double", "corrupted"];
    let mut lines = text.lines().filter(|line| telling.iter().any(|word| line.contains(word)));
    let last = lines.next_back().unwrap_or_default();
    // The address of a fault is another each time.
    let last = last.split(" at address").next().unwrap_or_default();
    let signal =
        status.signal().map_or("no signal".to_string(), |signal| format!("signal {signal}"));
    format!("{signal} in {stage}: {last}")
}

/// The command under a limit of memory.
fn limited(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    let script = format!("ulimit -c 0; ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\"");
    shell.args(["-c", &script]).arg(command.get_program()).args(command.get_args());
    shell
}

/// How a process ended.
enum End {
    Done,
    More,
    /// This run's time is over.
    Late,
    Slow,
    Stuck,
    Died(ExitStatus),
}

/// Waits for the end, or makes it.
fn watch(child: &mut Child, beat: &Path, deadline: Instant) -> io::Result<End> {
    let mut place = (u64::MAX, String::new());
    let (mut since, mut used) = (Instant::now(), Duration::ZERO);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(match status.code() {
                Some(0) => End::Done,
                Some(MORE) => End::More,
                Some(_) | None => End::Died(status),
            });
        }
        let now = Beat::read(beat)?;
        // Before the first input seeds are read, which is not its time.
        let running = !now.stage.is_empty();
        if place != (now.number, now.stage.clone()) {
            place = (now.number, now.stage);
            (since, used) = (Instant::now(), cpu_time(child.id()));
        }
        let slow = running && cpu_time(child.id()).saturating_sub(used) > LIMIT;
        let stuck = since.elapsed() > STUCK;
        let late = Instant::now() > deadline;
        if slow || stuck || late {
            child.kill()?;
            child.wait()?;
            return Ok(if slow {
                End::Slow
            } else if stuck {
                End::Stuck
            } else {
                End::Late
            });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Processor time of a process; that of the clock where the system does not say.
fn cpu_time(process: u32) -> Duration {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    let begin = BEGIN.get_or_init(Instant::now);
    let Ok(text) = fs::read_to_string(format!("/proc/{process}/stat")) else {
        return begin.elapsed();
    };
    // The name of the program, in parentheses, may hold anything.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|x| x.parse::<u64>().ok());
    // A hundred a second, on every Linux.
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// What a process says of itself: the input that it tries, at which stage, and the slowest so far.
struct Beat {
    number: u64,
    stage: String,
    slowest: (Duration, u64),
}

/// Bytes of a beat: number, slowest and its microseconds, stage.
const STAGE_AT: u64 = 24;
const STAGE_BYTES: usize = 24;

impl Beat {
    fn read(path: &Path) -> io::Result<Beat> {
        let bytes = fs::read(path)?;
        let word = |at: usize| {
            bytes
                .get(at..at + 8)
                .and_then(|word| word.try_into().ok())
                .map_or(0, u64::from_le_bytes)
        };
        let stage = bytes.get(STAGE_AT as usize..).unwrap_or_default();
        let stage = String::from_utf8_lossy(stage).trim_matches([' ', '\0']).to_string();
        let slowest = (Duration::from_micros(word(16)), word(8));
        Ok(Beat { number: word(0), stage, slowest })
    }
}

/// Where this process writes its beat.
static BEAT: OnceLock<File> = OnceLock::new();

/// Says what the target is about to do, should it not come back.
pub fn stage(name: &str) {
    if let Some(file) = BEAT.get() {
        let mut text = [b' '; STAGE_BYTES];
        let length = name.len().min(STAGE_BYTES);
        text[..length].copy_from_slice(&name.as_bytes()[..length]);
        // A disk that is full is noticed elsewhere.
        let _ = file.write_all_at(&text, STAGE_AT);
    }
}

/// What a process is to do, as text.
struct Order {
    run: Run,
    next: u64,
    beat: PathBuf,
}

impl Order {
    fn text(&self) -> String {
        let Run { target, inputs, seed, jobs, folder, .. } = &self.run;
        let (folder, beat) = (folder.display(), self.beat.display());
        format!("{target}\n{inputs}\n{seed}\n{jobs}\n{}\n{folder}\n{beat}", self.next)
    }

    fn parse(text: &str) -> Option<Order> {
        let mut lines = text.lines();
        let target = lines.next()?.parse().ok()?;
        let mut number = || lines.next()?.parse::<u64>().ok();
        let [inputs, seed, jobs, next] = [number()?, number()?, number()?, number()?];
        let (folder, beat) = (PathBuf::from(lines.next()?), PathBuf::from(lines.next()?));
        let run = Run { target, inputs, seed, jobs, time: Duration::MAX, folder };
        Some(Order { run, next, beat })
    }
}

/// Whether this process was started by [`drive`].
pub fn is_ordered() -> bool {
    std::env::var_os(ORDER).is_some()
}

/// The last panic, where and why.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Carries out the order that this process was started with, and ends it.
pub fn work() -> ! {
    let order = std::env::var(ORDER).ok().and_then(|text| Order::parse(&text));
    let Order { run, next, beat } = order.expect("an order");
    panic::set_hook(Box::new(|info| {
        let place =
            info.location().map_or(String::new(), |at| format!("{}:{}", at.file(), at.line()));
        let text = info.payload_as_str().unwrap_or("a panic without a text");
        *PANIC.lock().expect("no panic while it is held") = format!("{place}: {text}");
    }));
    let seeds = corpus::read(run.target);
    let _ = &*BACKENDS;
    let beat = BEAT.get_or_init(|| OpenOptions::new().write(true).open(beat).expect("a beat"));
    let mut slowest = (Duration::ZERO, 0);
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let numbers = (next..run.inputs).step_by(run.jobs as usize).take(INPUTS_A_PROCESS as usize);
    for number in numbers.clone() {
        let (data, isa) = mutate::input(&seeds, run.target, run.seed, number);
        beat.write_all_at(&number.to_le_bytes(), 0).expect("a beat is written");
        let begin = Instant::now();
        let done = panic::catch_unwind(AssertUnwindSafe(|| run.target.run(&data, isa)));
        let time = begin.elapsed();
        if time > slowest.0 {
            slowest = (time, number);
            let words = [number, time.as_micros() as u64].map(u64::to_le_bytes).concat();
            beat.write_all_at(&words, 8).expect("a beat is written");
        }
        if done.is_err() {
            let message = PANIC.lock().expect("no panic while it is held").clone();
            let known = kinds.entry(class(&message)).or_default();
            *known += 1;
            if *known <= SAVED {
                fs::write(saved(&run.folder, run.target, number), &data)
                    .expect("a file is written");
            }
            log(&run.folder, run.target, number, &message).expect("a line is written");
        }
    }
    let end = numbers.last().is_none_or(|last| last + run.jobs >= run.inputs);
    std::process::exit(if end { 0 } else { MORE });
}

/// Where this project called what panicked in the standard library.
fn own_frame() -> Option<String> {
    let trace = Backtrace::force_capture().to_string();
    let places = trace.lines().filter_map(|line| line.trim_start().strip_prefix("at "));
    let own = |place: &&str| place.contains("src/") && !place.contains("/rustc/");
    let places = places.filter(own).filter(|place| !place.contains(".cargo/registry"));
    // The first ones are this hook.
    places.into_iter().find(|place| !place.contains("drive.rs")).map(String::from)
}

/// One line for each kind of finding.
pub fn print(run: &Run, report: &Report) {
    let Report { inputs, time, findings, slowest } = report;
    let seconds = time.as_secs_f64();
    let (slow, number) = (slowest.0.as_millis(), slowest.1);
    println!(
        "{}: {inputs} inputs in {seconds:.1} s, {:.0} a second; the slowest, {number}, {slow} ms; {} kinds of findings",
        run.target,
        *inputs as f64 / seconds,
        findings.len()
    );
    for (class, (count, example)) in findings {
        println!("  {count} times {class}\n      {example}");
    }
}
