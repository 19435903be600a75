//! Tuning records where they are used: by the compiler, by the command line, by several processes
//! at once, and after what may happen to a file.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use convgen::algorithm::Algorithm;
use convgen::cache::KernelCache;
use convgen::check;
use convgen::ir::ConvProblem;
use convgen::ir::parse::parse_schedule;
use convgen::record::{Database, Key, Record, Store};
use convgen::{Compiler, Host, Isa, Origin};
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::TempDir;

#[path = "../../tests/common/mutants.rs"]
#[allow(dead_code, reason = "the mutants of test cases are for other tests")]
mod mutants;

const PROBLEM: &str = "conv1d f32 nhwc n1 ic2 oc4 iw5 kw3";
const SCHEDULE: &str = "unroll kw; parallel n";

fn compiler() -> Compiler {
    Compiler::new(&Host::detect(), Isa::Clif).unwrap()
}

/// A record for this machine, as a schedule that is not the default one.
fn record(problem: &str, schedule: &str) -> Record {
    Record {
        key: Key::new(&problem.parse().unwrap(), compiler().target(), 1),
        algorithm: Algorithm::Direct,
        schedule: parse_schedule(schedule).unwrap(),
        batch: 1,
        seconds: 1e-6,
        default_seconds: 2e-6,
        candidates: 40,
        date: "2027-01-15T08:00:00Z".into(),
    }
}

/// The first of many problems that differ in the width.
fn numbered(i: usize) -> String {
    format!("conv1d f32 nhwc n1 ic2 oc4 iw{} kw3", 5 + i)
}

fn with_records(records: &[Record]) -> Compiler {
    let mut database = Database::new();
    for record in records {
        database.insert(record).unwrap();
    }
    compiler().with_database(Arc::new(database))
}

/// The command line of a user who has no records.
fn convgen(arguments: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = assert_cmd::Command::cargo_bin("convgen").unwrap();
    command.env("XDG_DATA_HOME", "/no/such/folder").args(arguments).assert()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

mod compiling {
    use super::*;

    #[test]
    fn a_record_of_exactly_this_key_is_used() {
        let record = record(PROBLEM, SCHEDULE);
        let compiler = with_records(std::slice::from_ref(&record));
        let problem: ConvProblem = PROBLEM.parse().unwrap();
        let kernel = compiler.compile(&problem).unwrap();
        assert_eq!(kernel.schedule(), &record.schedule);
        check::check(&kernel).unwrap();
        assert_eq!(compiler.pick(&problem).origin, Origin::Record(Box::new(record.clone())));

        let batch = problem.with_batch(3).unwrap();
        assert_eq!(compiler.compile(&batch).unwrap().schedule(), &record.schedule);
        let cache = KernelCache::new(compiler.clone(), 1 << 20);
        assert_eq!(cache.get(&batch).unwrap().schedule(), &record.schedule);

        let others = ["conv1d ic2 oc4 iw6 kw3", "conv1d ic2 oc4 iw5 kw3 bias"];
        for other in others.map(|other| other.parse().unwrap()) {
            assert_eq!(compiler.pick(&other).origin, Origin::Default);
        }
        assert_eq!(compiler.clone().with_threads(2).pick(&problem).origin, Origin::Default);
        let empty = compiler.with_database(Arc::default());
        assert_eq!(empty.pick(&problem).origin, Origin::Default);
    }

    #[test]
    fn a_record_whose_schedule_is_illegal_falls_back_with_the_reason() {
        let cases = [
            ("unroll zz", "`zz`"),
            ("vectorize kw", "reduction axis"),
            ("split ow by 4294967295", "does not fit a loop of 3"),
        ];
        let problem: ConvProblem = PROBLEM.parse().unwrap();
        let default = with_records(&[]).compile(&problem).unwrap();
        for (schedule, part) in cases {
            let compiler = with_records(&[record(PROBLEM, schedule)]);
            let kernel = compiler.compile(&problem).unwrap();
            assert_eq!(kernel.schedule(), default.schedule(), "{schedule}");
            match compiler.pick(&problem).origin {
                Origin::Refused { reason } => assert!(reason.contains(part), "{reason}"),
                origin @ (Origin::Default | Origin::Record(_)) => panic!("{origin:?}"),
            }
        }
    }

    /// Whatever is done to a file: no panic, and each kernel computes its problem.
    #[test]
    fn ten_thousand_damaged_files_make_no_wrong_kernel() {
        let problems: Vec<ConvProblem> = (0..3).map(|i| numbered(i).parse().unwrap()).collect();
        let mut whole = Database::new();
        let tiled =
            "reorder n g ow oc; accumulate output at g; unroll ow; vectorize oc; pack weights";
        let split =
            "split ow by 3 tail=cut; split oc by 2; reorder oc.o ow.o ow.i oc.i; unroll ow.i";
        for (i, schedule) in [SCHEDULE, tiled, split].into_iter().enumerate() {
            whole.insert(&record(&numbered(i), schedule)).unwrap();
        }
        let whole = String::from_utf8(whole.text()).unwrap();
        let mut random = mutants::Random::new(5);
        let (mut used, mut refused, mut skipped, mut checked) = (0, 0, 0, 0);
        let mut schedules = std::collections::HashSet::new();
        for _ in 0..10_000 {
            let mut bytes = whole.clone().into_bytes();
            for _ in 0..=random.below(3) {
                damage(&mut bytes, &mut random);
            }
            let database = Database::read(&bytes);
            for skip in database.skipped() {
                assert!(skip.line >= 1 && !skip.reason.to_string().is_empty());
            }
            skipped += database.skipped().len();
            let compiler = compiler().with_database(Arc::new(database));
            for problem in &problems {
                let pick = compiler.pick(problem);
                match pick.origin {
                    Origin::Record(_) => used += 1,
                    Origin::Refused { .. } => refused += 1,
                    Origin::Default => {}
                }
                // A schedule that was seen before has been checked.
                if schedules.insert((problem.clone(), pick.schedule)) {
                    check::check(&compiler.compile(problem).unwrap()).unwrap();
                    checked += 1;
                }
            }
        }
        assert!(
            used > 1_000 && refused > 100 && skipped > 1_000 && checked > 20,
            "{used} used, {refused} refused, {skipped} skipped, {checked} kernels checked"
        );
    }

    /// One byte changed, a number replaced, some bytes dropped or repeated, or the end cut off.
    fn damage(bytes: &mut Vec<u8>, random: &mut mutants::Random) {
        let at = random.below(bytes.len());
        let end = (at + random.below(30)).min(bytes.len());
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            3 => {
                let digits: Vec<usize> =
                    (0..bytes.len()).filter(|i| bytes[*i].is_ascii_digit()).collect();
                if let Some(digit) = digits.get(random.below(digits.len())) {
                    bytes[*digit] = b'0' + random.below(10) as u8;
                }
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.next() as u8;
                }
            }
        }
    }
}

mod commands {
    use super::*;

    #[test]
    fn explain_says_whether_a_record_was_used() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("db.jsonl");
        let explain = |more: &[&str]| {
            let arguments = [&["explain", "--isa", "clif"], more, &[PROBLEM]].concat();
            String::from_utf8(convgen(&arguments).success().get_output().stdout.clone()).unwrap()
        };
        let db = ["--db", text(&file)];
        assert!(explain(&[]).contains("(default; there is no tuning record)"));
        Store::at(&file).insert(&record(PROBLEM, SCHEDULE)).unwrap();
        let used = explain(&db);
        assert!(used.contains("tuning record of 2027-01-15T08:00:00Z: 0.0010 ms"), "{used}");
        assert!(used.contains("  unroll kw\n  parallel n\n"), "{used}");
        assert!(
            explain(&["--db", text(&file), "--threads", "2"]).contains("(default; there is no")
        );
        assert!(explain(&["--no-db"]).contains("(default; there is no tuning record)"));
        Store::at(&file)
            .update(|database| database.replace(&record(PROBLEM, "unroll zz")))
            .unwrap();
        assert!(explain(&db).contains("(default; the tuning record is refused: `unroll zz`"));
    }

    #[test]
    fn records_that_ship_are_loaded_where_they_fit() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("db.jsonl");
        let load = || {
            let assert = convgen(&["db", "load", "--db", text(&file)]).success();
            String::from_utf8(assert.get_output().stdout.clone()).unwrap()
        };
        let (first, second) = (load(), load());
        let loaded = Store::at(&file).load().unwrap();
        assert!(loaded.skipped().is_empty());
        match loaded.is_empty() {
            true => assert!(first.contains("that ship is for this machine"), "{first}"),
            false => {
                assert!(first.starts_with(&format!("{} records added", loaded.len())), "{first}");
                assert!(second.starts_with("0 records added"), "{second}");
            }
        }
    }

    #[test]
    fn the_usual_place_is_found() {
        let folder = TempDir::new().unwrap();
        let run = |arguments: &[&str]| {
            let mut command = assert_cmd::Command::cargo_bin("convgen").unwrap();
            command.env("XDG_DATA_HOME", folder.path()).args(arguments).assert().success()
        };
        let path = folder.path().join("convgen/tuning.jsonl");
        run(&["db", "path"]).stdout(format!("{}\n", path.display()));
        run(&["db", "list"]).stdout(contains("0 records in "));
        Store::at(&path).insert(&record(PROBLEM, SCHEDULE)).unwrap();
        run(&["explain", "--isa", "clif", PROBLEM]).stdout(contains("tuning record of"));
        run(&["explain", "--isa", "clif", "--no-db", PROBLEM])
            .stdout(contains("(default; there is"));
    }

    #[test]
    fn records_are_listed_merged_exported_and_pruned() {
        let folder = TempDir::new().unwrap();
        let [all, shard, out] =
            ["all.jsonl", "shard.jsonl", "out.jsonl"].map(|n| folder.path().join(n));
        let db = ["--db", text(&all)];
        Store::at(&all).insert(&record(&numbered(0), SCHEDULE)).unwrap();
        let mut foreign = record(&numbered(1), SCHEDULE).to_line().unwrap();
        foreign = foreign.replace("l1d", "l1d9");
        let refused = record(&numbered(2), "unroll zz").to_line().unwrap();
        let other = foreign.replace("\"schema\":1", "\"schema\":2");
        let header = "{\"format\":\"convgen tuning database\"}";
        fs::write(&shard, format!("{header}\n{foreign}\n{refused}\n{other}\n{{\"sche")).unwrap();

        let merge = ["db", "merge", text(&shard), db[0], db[1]];
        convgen(&merge)
            .success()
            .stdout(contains("2 records added, 3 in "))
            .stderr(contains("shard.jsonl:4: not used: schema 2, this version reads 1"))
            .stderr(contains("shard.jsonl:5: not used: "));
        convgen(&merge).success().stdout(contains("0 records added, 3 in "));

        convgen(&[&["db", "list"], &db[..]].concat()).success().stdout(
            contains("nhwc 2->4 5 k3")
                .and(contains("2.00x"))
                .and(contains("3 records in "))
                .and(contains("not used: schema 2")),
        );
        let only = [&["db", "list", "--only", "iw6"], &db[..]].concat();
        convgen(&only).success().stdout(contains("1 record in "));
        let export = [&["db", "export", "--here", "--output", text(&out)], &db[..]].concat();
        convgen(&export).success().stdout(contains("2 records in "));
        assert_eq!(Store::at(&out).load().unwrap().len(), 2);
        convgen(&export).code(2).stderr(contains("hint: export writes a new file"));

        let prune = [&["db", "prune", "--other-targets", "--refused"], &db[..]].concat();
        let dry = [&prune[..], &["--dry-run"]].concat();
        let result = "2 unreadable lines and 2 records";
        convgen(&dry)
            .success()
            .stdout(contains(format!("{result} would be dropped, 1 record left")));
        assert_eq!(Store::at(&all).load().unwrap().len(), 3);
        convgen(&prune).success().stdout(contains(format!("{result} dropped, 1 record left")));
        let left = Store::at(&all).load().unwrap();
        assert_eq!((left.len(), left.skipped().len()), (1, 0));
    }

    #[test]
    fn other_files_are_refused_and_left_alone() {
        let folder = TempDir::new().unwrap();
        let list = folder.path().join("shapes.txt");
        fs::write(&list, PROBLEM).unwrap();
        for command in [&["db", "prune"][..], &["db", "list"], &["explain", PROBLEM]] {
            convgen(&[command, &["--db", text(&list)]].concat())
                .code(2)
                .stderr(contains("shapes.txt` is no tuning database").and(contains("hint: ")));
        }
        convgen(&["db", "merge", text(&list)]).code(2).stderr(contains("no tuning database"));
        convgen(&["db", "merge", "/no/such/file"]).code(2).stderr(contains("/no/such/file"));
        convgen(&["explain", PROBLEM, "--db", "/no/such/file"])
            .code(2)
            .stderr(contains("no database"));
        assert_eq!(fs::read_to_string(&list).unwrap(), PROBLEM);
    }

    /// Every command that reads or writes records, on what is no file.
    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let folder = TempDir::new().unwrap();
        let [fifo, dangling, good] =
            ["fifo", "dangling", "good.jsonl"].map(|name| folder.path().join(name));
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        std::os::unix::fs::symlink(folder.path().join("absent"), &dangling).unwrap();
        Store::at(&good).create(&Database::new()).unwrap();
        for (path, reason) in [(&fifo, "is a FIFO"), (&dangling, "which is not there")] {
            let db = ["--db", text(path)];
            let commands = [
                [&["db", "list"], &db[..]].concat(),
                [&["db", "export"], &db[..]].concat(),
                [&["db", "prune"], &db[..]].concat(),
                [&["db", "merge", text(&good)], &db[..]].concat(),
                vec!["db", "merge", text(path), "--db", text(&good)],
                [&["explain", PROBLEM], &db[..]].concat(),
            ];
            for arguments in commands {
                let mut command = assert_cmd::Command::cargo_bin("convgen").unwrap();
                command.timeout(Duration::from_secs(30)).args(&arguments);
                command.assert().code(2).stderr(contains(reason).and(contains("hint: ")));
            }
        }
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 3, "nothing was made beside the others");
    }

    /// As on a full disk: the files of the command may have some blocks, and what is written needs
    /// more.
    #[cfg(unix)]
    #[test]
    fn a_full_disk_leaves_the_files_as_they_were() {
        let folder = TempDir::new().unwrap();
        let [all, shard, out] =
            ["all.jsonl", "shard.jsonl", "out.jsonl"].map(|name| folder.path().join(name));
        Store::at(&all).insert(&record(&numbered(0), SCHEDULE)).unwrap();
        let mut database = Database::new();
        for i in 0..200 {
            database.insert(&record(&numbered(i), SCHEDULE)).unwrap();
        }
        Store::at(&shard).create(&database).unwrap();
        let names = || {
            let entries = fs::read_dir(folder.path()).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect::<std::collections::BTreeSet<_>>()
        };
        let before = (names(), fs::read(&all).unwrap());
        let commands = [
            &["db", "merge", text(&shard), "--db", text(&all)][..],
            &["db", "export", "--output", text(&out), "--db", text(&shard)],
        ];
        for arguments in commands {
            let mut shell = assert_cmd::Command::new("sh");
            shell.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\""]);
            shell.arg(cargo_bin!("convgen")).args(arguments);
            shell.assert().code(2).stderr(contains("cannot write").and(contains("too large")));
            assert_eq!((names(), fs::read(&all).unwrap()), before);
        }
    }

    #[test]
    fn every_action_has_an_example() {
        for action in ["list", "merge", "load", "export", "prune", "path"] {
            convgen(&["db", action, "--help"])
                .success()
                .stdout(contains(format!("Example: convgen db {action}")));
        }
    }
}

mod processes {
    use super::*;

    /// A file of that many records, the first of them with that number.
    fn shard(folder: &Path, first: usize, count: usize) -> PathBuf {
        let mut database = Database::new();
        for i in first..first + count {
            database.insert(&record(&numbered(i), SCHEDULE)).unwrap();
        }
        let path = folder.join(format!("shard{first}.jsonl"));
        fs::write(&path, database.text()).unwrap();
        path
    }

    /// A process that stores the records of a file one by one.
    fn start(shard: &Path, all: &Path) -> Child {
        Command::new(cargo_bin!("convgen"))
            .args(["db", "merge", "--each", text(shard), "--db", text(all)])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    #[test]
    fn four_processes_write_one_database() {
        let folder = TempDir::new().unwrap();
        let all = folder.path().join("all.jsonl");
        // Half of each shard is that of the next.
        let shards: Vec<PathBuf> = (0..4).map(|i| shard(folder.path(), 20 * i, 40)).collect();
        let children: Vec<Child> = shards.iter().map(|shard| start(shard, &all)).collect();
        for mut child in children {
            std::io::copy(&mut child.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
            assert!(child.wait().unwrap().success());
        }
        let database = Store::at(&all).load().unwrap();
        assert_eq!((database.len(), database.skipped().len()), (100, 0));
        for i in 0..100 {
            let key = record(&numbered(i), SCHEDULE).key;
            assert!(database.get(&key).unwrap().is_some(), "{i}");
        }
    }

    /// `Child::kill` is SIGKILL: nothing in the process can delay it.
    #[test]
    fn what_was_reported_survives_fifty_kills() {
        let folder = TempDir::new().unwrap();
        let all = folder.path().join("all.jsonl");
        let mut random = mutants::Random::new(3);
        let mut reported = Vec::new();
        for round in 0..50 {
            let shard = shard(folder.path(), 100 * round, 100);
            let mut child = start(&shard, &all);
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let wanted = random.below(12);
            reported.extend(lines.by_ref().take(wanted).map(Result::unwrap));
            std::thread::sleep(Duration::from_micros(random.next() % 3_000));
            child.kill().unwrap();
            // What it said before it was killed counts; half a line does not.
            let rest = lines.map_while(Result::ok).filter(|line| line.ends_with(" kw3"));
            reported.extend(rest);
            child.wait().unwrap();

            let database = Store::at(&all).load().unwrap();
            assert_eq!(database.skipped(), [], "round {round}");
            for line in &reported {
                let problem = line.strip_prefix("stored ").expect("a new record each time");
                let key = Key::new(&problem.parse().unwrap(), compiler().target(), 1);
                assert!(database.get(&key).unwrap().is_some(), "round {round}: {line}");
            }
        }
        assert!(reported.len() > 100, "{}", reported.len());
    }
}
