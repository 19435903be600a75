//! The tuning database: what is written is read, what is damaged is refused with a reason, and
//! merging is the union that its header promises.

use std::fs;
use std::time::Duration;

use convgen::algorithm::Algorithm;
use convgen::ir::parse::parse_schedule;
use convgen::record::{Database, Inserted, Key, Record, RecordError, Store, StoreError};
use convgen::target::Caches;
use convgen::{Isa, Target};
use proptest::prelude::*;
use tempfile::TempDir;

const PROBLEM: &str = "conv1d f32 nhwc n1 ic2 oc4 iw5 kw3";

fn target(isa: Isa) -> Target {
    let triple = "x86_64-unknown-linux-gnu".parse().unwrap();
    Target::new(triple, isa, true, Caches::TYPICAL, 2).unwrap()
}

fn record(problem: &str, seconds: f64) -> Record {
    Record {
        key: Key::new(&problem.parse().unwrap(), &target(Isa::Avx2), 1),
        algorithm: Algorithm::Direct,
        schedule: parse_schedule("unroll kw; vectorize oc").unwrap(),
        batch: 1,
        seconds,
        default_seconds: 2e-6,
        candidates: 40,
        date: "2027-01-15T08:00:00Z".into(),
    }
}

fn database(records: impl IntoIterator<Item = Record>) -> Database {
    let mut database = Database::new();
    for record in records {
        database.insert(&record).unwrap();
    }
    database
}

/// The record of the problem with part of its line replaced.
fn edited(from: &str, to: &str) -> String {
    let line = record(PROBLEM, 1.5e-6).to_line().unwrap();
    assert!(line.contains(from), "{from}: {line}");
    line.replace(from, to)
}

#[test]
fn a_record_is_one_line_that_reads_back() {
    let record = record("conv1d n7 ic2 oc4 iw5 kw3 bias | relu", 1.5e-6);
    let line = record.to_line().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        line,
        format!(
            "{{\"schema\":1,\"generator\":\"{version}\",\
             \"problem\":\"conv1d f32 nhwc n1 ic2 oc4 iw5 kw3 bias | relu\",\
             \"target\":\"x86_64 avx2 fma l1d32768 l2524288 l34194304\",\"threads\":1,\
             \"algorithm\":\"direct\",\"schedule\":\"unroll kw; vectorize oc\",\"batch\":1,\
             \"seconds\":1.5e-6,\"default_seconds\":2e-6,\"candidates\":40,\
             \"date\":\"2027-01-15T08:00:00Z\"}}"
        )
    );
    assert_eq!(Record::from_line(&line), Ok(record));
}

#[test]
fn unsound_lines_are_refused_with_the_reason() {
    let deep = "[".repeat(10_000);
    let long = "unroll kw; ".repeat(2_000);
    let cases = [
        (edited("\"threads\":1,", ""), "missing field `threads`"),
        (edited("\"threads\":1,", "\"threads\":1,\"threads\":2,"), "duplicate field `threads`"),
        (edited("\"threads\":1,", "\"thread\":1,"), "unknown field `thread`"),
        (edited("\"threads\":1", "\"threads\":0"), "0 threads, expected 1 to 1024"),
        (edited("\"threads\":1", "\"threads\":-1"), "invalid value"),
        (edited("\"schema\":1", "\"schema\":2,\"more\":[]"), "schema 2, this version reads 1"),
        (edited(env!("CARGO_PKG_VERSION"), "9.9.9"), "written by convgen 9.9.9"),
        (edited("kw3", "kw0"), "problem: column"),
        (edited(" n1 ", " n2 "), "canonical form over one image, which is `conv1d f32 nhwc n1"),
        (edited("avx2 fma", "avx2\\u001b[2J"), "no target: `x86_64 avx2\\u{1b}[2J"),
        (edited("direct", "magic"), "unknown algorithm `magic`"),
        (edited("unroll kw", "unrol kw"), "unknown directive `unrol`"),
        (edited("unroll kw", &long), "the schedule has 22014 bytes, expected at most 16384"),
        (edited("\"batch\":1", "\"batch\":0"), "0 images"),
        (edited("1.5e-6", "0"), "seconds is 0, expected a positive number"),
        (edited("1.5e-6", "-1"), "seconds is -1"),
        (edited("1.5e-6", "1e999"), "number out of range"),
        (edited("2e-6", "null"), "invalid type: null"),
        (edited("2027-01-15", "2027-1-015"), "date: "),
        (edited("2027-01-15", "tomorrow "), "date: "),
        (
            edited("unroll", &format!("{deep}unroll")),
            "schedule: line 1, column 1: expected a directive",
        ),
        (deep, "no record: "),
        ("x".repeat(1 << 17), "the line has 131072 bytes, expected at most 65536"),
        (String::new(), "no record: "),
    ];
    for (line, reason) in cases {
        let error = Record::from_line(&line).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}, expected {reason}");
    }
    assert!(record(PROBLEM, f64::NAN).to_line().is_err());
}

#[test]
fn the_better_record_of_a_key_stays() {
    let mut database = Database::new();
    let (slow, fast) = (record(PROBLEM, 2e-6), record(PROBLEM, 1e-6));
    assert_eq!(database.insert(&slow), Ok(Inserted::Stored));
    assert_eq!(database.insert(&fast), Ok(Inserted::Stored));
    assert_eq!(database.insert(&fast), Ok(Inserted::Stored));
    assert_eq!(database.insert(&slow), Ok(Inserted::Kept { seconds: 1e-6, batch: 1 }));
    // Eight images in the time of four are better than one image.
    let batch = Record { batch: 8, seconds: 4e-6, ..fast.clone() };
    assert_eq!(database.insert(&batch), Ok(Inserted::Stored));
    let find = |problem: &str, isa, threads| {
        database.find(&problem.parse().unwrap(), &target(isa), threads).unwrap()
    };
    assert_eq!(find("conv1d n3 ic2 oc4 iw5 kw3", Isa::Avx2, 1), Some(batch));
    assert_eq!(find(PROBLEM, Isa::Avx512, 1), None);
    assert_eq!(find(PROBLEM, Isa::Avx2, 2), None);
    assert_eq!(find(&format!("{PROBLEM} | relu"), Isa::Avx2, 1), None);
    assert_eq!(find(&format!("{PROBLEM} circular"), Isa::Avx2, 1), None);
    database.replace(&slow).unwrap();
    assert_eq!(database.records(), [slow]);
}

#[test]
fn a_record_that_is_unsound_is_better_than_none_of_its_key() {
    let bad = edited("unroll kw", "unrol kw").replace("1.5e-6", "1e-300");
    let good = record(PROBLEM, 1e-6);
    let alone = Database::read(bad.as_bytes());
    let problem = PROBLEM.parse().unwrap();
    let refused = alone.find(&problem, &target(Isa::Avx2), 1).unwrap_err();
    assert!(matches!(refused, RecordError::Schedule { .. }), "{refused}");
    for lines in [[&bad, &good.to_line().unwrap()], [&good.to_line().unwrap(), &bad]] {
        let database = Database::read(lines.map(String::as_str).join("\n").as_bytes());
        assert_eq!(database.records(), std::slice::from_ref(&good));
        assert_eq!(database.unread().count(), 1, "kept, for the version that can read it");
    }
}

#[test]
fn lines_of_other_versions_are_kept_on_rewriting_until_pruned() {
    let folder = TempDir::new().unwrap();
    let store = Store::at(folder.path().join("db.jsonl"));
    store.insert(&record(PROBLEM, 1e-6)).unwrap();
    let other = edited("\"schema\":1", "\"schema\":7,\"gpu\":true");
    let mut text = fs::read(store.path()).unwrap();
    text.extend([other.as_bytes(), b"\n\xff\xfe\n{\"schema\":1,\"gener"].concat());
    fs::write(store.path(), text).unwrap();

    let loaded = store.load().unwrap();
    let skipped: Vec<(usize, String)> =
        loaded.skipped().iter().map(|skip| (skip.line, skip.reason.to_string())).collect();
    assert_eq!(skipped[0], (3, "schema 7, this version reads 1".to_owned()));
    assert_eq!(skipped[1], (4, "the line is not text in UTF-8".to_owned()));
    assert_eq!((skipped[2].0, skipped.len()), (5, 3));

    store.insert(&record("conv1d ic1 oc1 iw9 kw3", 1e-6)).unwrap();
    let text = fs::read(store.path()).unwrap();
    for line in [other.as_bytes(), b"\xff\xfe", b"{\"schema\":1,\"gener"] {
        assert!(text.split(|byte| *byte == b'\n').any(|kept| kept == line));
    }
    assert_eq!(store.update(|database| Ok(database.retain_readable())).unwrap(), 3);
    let pruned = store.load().unwrap();
    assert_eq!((pruned.len(), pruned.skipped().len()), (2, 0));
}

#[test]
fn only_a_database_is_written_to() {
    let folder = TempDir::new().unwrap();
    let list = folder.path().join("shapes.txt");
    fs::write(&list, "conv1d ic2 oc4 iw5 kw3\n").unwrap();
    let store = Store::at(&list);
    assert!(matches!(store.load(), Err(StoreError::Header { .. })));
    assert!(matches!(store.insert(&record(PROBLEM, 1e-6)), Err(StoreError::Header { .. })));
    assert_eq!(fs::read_to_string(&list).unwrap(), "conv1d ic2 oc4 iw5 kw3\n");
    assert!(Store::at(folder.path().join("absent")).load().unwrap().is_empty());
    // A file left over by a process that was killed while it wrote is in nobody's way.
    let deep = Store::at(folder.path().join("a/b/db.jsonl"));
    fs::create_dir_all(folder.path().join("a/b")).unwrap();
    fs::write(folder.path().join("a/b/db.jsonl.new"), "half a li").unwrap();
    assert_eq!(deep.insert(&record(PROBLEM, 1e-6)).unwrap(), Inserted::Stored);
    assert_eq!(deep.load().unwrap().len(), 1);
}

#[cfg(unix)]
#[test]
fn a_link_to_a_database_stays_a_link() {
    let folder = TempDir::new().unwrap();
    let (file, link) = (folder.path().join("real.jsonl"), folder.path().join("link.jsonl"));
    Store::at(&file).insert(&record(PROBLEM, 1e-6)).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    Store::at(&link).insert(&record("conv1d ic1 oc1 iw9 kw3", 1e-6)).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(Store::at(&file).load().unwrap().len(), 2);
}

#[test]
fn what_is_stored_can_be_loaded_whatever_the_limit() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("db.jsonl");
    let numbered = |i: u64| record(&format!("conv1d ic1 oc1 iw{} kw3", 5 + i), 1e-6);
    let full = |error: StoreError, bytes: u64| match error {
        StoreError::Full { given, limit, .. } => assert!(given > limit && limit == bytes),
        error => panic!("{error}"),
    };
    // Every limit about the size of two and of three records.
    let some = |count: u64| database((0..count).map(numbered));
    let size = |count: u64| some(count).text().len() as u64;
    for bytes in [0, size(0), size(2) - 1, size(2), size(2) + 1, size(3) - 1, size(3)] {
        let store = Store::at(&path).with_limit(bytes);
        let mut stored = 0;
        for i in 0..4 {
            match store.insert(&numbered(i)) {
                Ok(Inserted::Stored) => stored += 1,
                Ok(kept @ Inserted::Kept { .. }) => panic!("{kept:?}"),
                Err(error) => full(error, bytes),
            }
            assert_eq!(store.load().unwrap().len(), stored, "limit {bytes}, record {i}");
        }
        assert_eq!(stored as u64, (0..4).rfind(|count| size(*count) <= bytes).unwrap_or(0));
        // A file of before that is larger is refused with its size, also by a change, and stays.
        if stored > 0 {
            let small = Store::at(&path).with_limit(bytes - 300);
            let before = fs::read(&path).unwrap();
            for refused in [small.load().map(drop), small.insert(&numbered(9)).map(drop)] {
                let Err(StoreError::TooLarge { given, limit, .. }) = refused else {
                    panic!("{refused:?}")
                };
                assert_eq!((given, limit), (before.len() as u64, bytes - 300));
            }
            assert_eq!(fs::read(&path).unwrap(), before);
            fs::remove_file(&path).unwrap();
        }
        full(store.create(&some(4)).unwrap_err(), bytes);
        let merged = store.update(|database| {
            database.merge(&some(4));
            Ok(())
        });
        full(merged.unwrap_err(), bytes);
        assert!(!path.exists());
    }
}

/// Whatever else than a file has the name: an error that says what it is, at once, and nothing is
/// made, changed or removed.
#[cfg(unix)]
mod no_files {
    use std::collections::BTreeSet;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::mpsc;

    use super::*;

    /// What the function returns; fails if it is kept waiting.
    fn at_once<T: Send + 'static>(what: &str, f: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || sender.send(f()));
        receiver.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("{what} hangs"))
    }

    fn make_fifo(path: &Path) {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    fn names(folder: &Path) -> BTreeSet<PathBuf> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// Loading, storing, changing and writing: the messages.
    fn refusals(path: &Path) -> Vec<String> {
        let store = Store::at(path);
        let message = |result: Result<(), StoreError>| match result {
            Ok(()) => "accepted".to_owned(),
            Err(error @ StoreError::Io { .. }) => {
                format!("{error}: {}", std::error::Error::source(&error).unwrap())
            }
            Err(error) => error.to_string(),
        };
        vec![
            message(store.exists().map(drop)),
            message(store.load().map(drop)),
            message(store.insert(&record(PROBLEM, 1e-6)).map(drop)),
            message(store.update(|database| Ok(database.retain_readable())).map(drop)),
        ]
    }

    #[test]
    fn as_databases() {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        make_fifo(&at("fifo"));
        let _socket = UnixListener::bind(at("socket")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        symlink(at("absent"), at("dangling")).unwrap();
        symlink(at("fifo"), at("link to fifo")).unwrap();
        symlink(at("loop"), at("loop")).unwrap();
        fs::write(at("file"), "").unwrap();
        let cases = [
            (at("fifo"), "is a FIFO, expected a regular file"),
            (at("link to fifo"), "link to fifo` is a FIFO"),
            (at("socket"), "is a socket"),
            (at("directory"), "is a directory"),
            (at("dangling"), "absent`, which is not there"),
            (at("loop"), "ymbolic link"),
            (at("file").join("db.jsonl"), "Not a directory"),
            ("/dev/zero".into(), "is a device"),
            ("/".into(), "is a directory"),
            (at("new").join("folder/"), "folder/` is no name of a file"),
            (PathBuf::new(), "`` is no name of a file"),
            ("..".into(), "is a directory"),
        ];
        let before = names(folder.path());
        for (path, part) in cases {
            let shown = path.display().to_string();
            for refusal in at_once(&shown, move || refusals(&path)) {
                assert!(refusal.contains(part), "{shown}: {refusal}");
            }
        }
        assert_eq!(names(folder.path()), before);
        assert!(!Path::new("/dev/zero.lock").exists() && !Path::new("/dev/zero.new").exists());
        assert!(fs::symlink_metadata(at("dangling")).unwrap().is_symlink());
    }

    #[test]
    fn as_locks() {
        let folder = TempDir::new().unwrap();
        let (path, lock) = (folder.path().join("db.jsonl"), folder.path().join("db.jsonl.lock"));
        let aside = folder.path().join("aside");
        Store::at(&path).create(&Database::new()).unwrap();
        type Make<'a> = &'a dyn Fn();
        let cases: [(&str, Make); 4] = [
            ("a FIFO", &|| make_fifo(&lock)),
            ("a directory", &|| fs::create_dir(&lock).unwrap()),
            ("a symbolic link", &|| symlink(&aside, &lock).unwrap()),
            ("a socket", &|| drop(UnixListener::bind(&lock).unwrap())),
        ];
        for (what, make) in cases {
            make();
            let before = names(folder.path());
            let store = Store::at(&path);
            let result = at_once(what, move || store.insert(&record(PROBLEM, 1e-6)));
            let Err(StoreError::NotRegular { path: refused, given }) = result else {
                panic!("{result:?}")
            };
            assert_eq!((refused, given), (lock.clone(), what));
            assert_eq!(names(folder.path()), before);
            assert!(Store::at(&path).load().unwrap().is_empty());
            fs::remove_file(&lock).or_else(|_| fs::remove_dir(&lock)).unwrap();
        }
        assert_eq!(Store::at(&path).insert(&record(PROBLEM, 1e-6)).unwrap(), Inserted::Stored);
    }

    #[test]
    fn files_that_are_no_databases_get_no_lock() {
        let folder = TempDir::new().unwrap();
        let list = folder.path().join("shapes.txt");
        fs::write(&list, "conv1d ic2 oc4 iw5 kw3\n").unwrap();
        Store::at(&list).insert(&record(PROBLEM, 1e-6)).unwrap_err();
        // A record that is refused makes no folder either.
        let absent = folder.path().join("new/db.jsonl");
        Store::at(absent).insert(&record(PROBLEM, f64::NAN)).unwrap_err();
        assert_eq!(names(folder.path()), BTreeSet::from([list]));
    }

    #[test]
    fn a_file_is_created_once() {
        let folder = TempDir::new().unwrap();
        let [file, dangling] = ["db.jsonl", "link.jsonl"].map(|name| folder.path().join(name));
        symlink(folder.path().join("absent"), &dangling).unwrap();
        Store::at(&file).create(&Database::new()).unwrap();
        let before = names(folder.path());
        for path in [file, dangling] {
            let error = Store::at(&path).create(&Database::new()).unwrap_err();
            assert!(matches!(error, StoreError::Io { what: "create", .. }), "{error}");
        }
        assert_eq!(names(folder.path()), before);
    }

    /// The file as it was opened is read, whatever has its name then.
    #[test]
    fn a_file_is_replaced_while_it_is_read() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("db.jsonl");
        let some = |count: u64| {
            let problems = (0..count).map(|i| format!("conv1d ic1 oc1 iw{} kw3", 5 + i));
            database(problems.map(|problem| record(&problem, 1e-6)))
        };
        let (small, large) = (some(2), some(200));
        Store::at(&path).create(&small).unwrap();
        let writer = Store::at(&path);
        let (ours, theirs) = (small.clone(), large.clone());
        let writing = std::thread::spawn(move || {
            for round in 0..100 {
                let next = if round % 2 == 0 { &theirs } else { &ours };
                let replaced = writer.update(|database| {
                    database.clone_from(next);
                    Ok(())
                });
                replaced.unwrap();
            }
        });
        while !writing.is_finished() {
            let loaded = Store::at(&path).load().unwrap();
            assert!([small.text(), large.text()].contains(&loaded.text()));
            assert_eq!(loaded.skipped(), []);
        }
        writing.join().unwrap();
    }
}

/// Lines over few keys and few figures, so that they collide, some unsound, some of other versions.
fn any_line() -> impl Strategy<Value = String> {
    let problem =
        prop::sample::select(vec![PROBLEM, "conv1d ic1 oc1 iw9 kw3", "conv1d ic1 oc1 iw4 kw1"]);
    let seconds = prop::sample::select(vec![1e-6, 2e-6, 3e-6]);
    let batch = 1_u64..3;
    let damage = prop::sample::select(vec![
        ("", ""),
        ("", ""),
        ("unroll", "unrol"),
        ("\"schema\":1", "\"schema\":2"),
        ("\"date\"", "\"dat"),
        ("\"seconds\":", "\"seconds\":-"),
    ]);
    (problem, seconds, batch, damage).prop_map(|(problem, seconds, batch, (from, to))| {
        let line = Record { batch, ..record(problem, seconds) }.to_line().unwrap();
        if from.is_empty() { line } else { line.replace(from, to) }
    })
}

fn any_database() -> impl Strategy<Value = Database> {
    prop::collection::vec(any_line(), 0..6)
        .prop_map(|lines| Database::read(lines.join("\n").as_bytes()))
}

fn merged(a: &Database, b: &Database) -> Database {
    let mut both = a.clone();
    both.merge(b);
    both
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn merging_is_associative_commutative_and_idempotent(
        a in any_database(), b in any_database(), c in any_database(),
    ) {
        let text = |database: &Database| String::from_utf8(database.text()).unwrap();
        let left = merged(&merged(&a, &b), &c);
        prop_assert_eq!(text(&left), text(&merged(&a, &merged(&b, &c))));
        prop_assert_eq!(text(&merged(&a, &b)), text(&merged(&b, &a)));
        prop_assert_eq!(text(&merged(&a, &a)), text(&a));
        prop_assert_eq!(text(&merged(&left, &a)), text(&left));
        // The text of a database is that database.
        prop_assert_eq!(text(&Database::read(&left.text())), text(&left));
        prop_assert_eq!(Database::read(&left.text()).records(), left.records());
    }

    #[test]
    fn records_with_any_figures_read_back(
        seconds in 1e-12_f64..1e6, default in any::<f64>(), batch in 1_u64.., candidates: u64,
        threads in 0_usize..1030, date in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z",
    ) {
        let key = Key::new(&PROBLEM.parse().unwrap(), &target(Isa::Clif), threads);
        let record = Record { key, seconds, default_seconds: default, batch, candidates, date, ..record(PROBLEM, 1.0) };
        match record.to_line() {
            Ok(line) => prop_assert_eq!(Record::from_line(&line), Ok(record)),
            Err(_) => prop_assert!(!(default.is_finite() && default > 0.0 && (1..=1024).contains(&threads))),
        }
    }
}
