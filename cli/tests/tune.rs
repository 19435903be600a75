//! `convgen tune` as its users meet it: what it keeps, what it skips, what it refuses.

use std::path::Path;
use std::sync::Arc;

use assert_cmd::Command;
use convgen::algorithm::Algorithm;
use convgen::record::{Database, Store};
use convgen::{Accuracy, Compiler, Host, Origin};
use predicates::prelude::*;

const SMALL: &str = "conv2d ic8 oc8 ih8 iw8 kh3 kw3 ph1 pw1";
const LIST: &str =
    "conv1d ic4 oc8 iw32 kw3 \"a\"\nconv1d ic4 oc8 iw48 kw3 \"b\"\nconv1d ic8 oc8 iw32 kw1 \"c\"\n";

fn tune(db: &Path) -> Command {
    let mut command = Command::cargo_bin("convgen").unwrap();
    command.args(["tune", "--budget", "0.15"]).arg("--db").arg(db);
    command
}

fn records(db: &Path) -> Database {
    Store::at(db).load().unwrap()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn what_is_found_is_kept_and_not_searched_for_twice() {
    let folder = folder();
    let db = folder.path().join("tuned.jsonl");
    tune(&db).arg(SMALL).assert().success().stdout(predicate::str::contains("tuned"));
    assert_eq!(records(&db).len(), 1);
    let record = records(&db).records().remove(0);
    assert!(record.seconds <= record.default_seconds && record.candidates > 1, "{record:?}");
    tune(&db).arg(SMALL).assert().success().stdout(predicate::str::contains("known"));
    tune(&db).args([SMALL, "--again"]).assert().success().stdout(predicate::str::contains("tuned"));
    assert_eq!(records(&db).len(), 1);
}

#[test]
fn the_pick_of_a_search_is_what_later_compilations_use() {
    let folder = folder();
    let db = folder.path().join("tuned.jsonl");
    tune(&db).arg(SMALL).assert().success();
    let schedule = records(&db).records().remove(0).schedule.to_string();
    let mut print = Command::cargo_bin("convgen").unwrap();
    print.args(["print", "--directives", SMALL]).arg("--db").arg(&db);
    print.assert().success().stdout(schedule);
}

/// The schedules of a sum do not stand for the whole space: what the default pick computes by
/// another algorithm is not made slower by tuning it.
#[test]
fn other_algorithms_race_too() {
    let folder = folder();
    let db = folder.path().join("tuned.jsonl");
    let many = "conv2d ic64 oc64 ih28 iw28 kh3 kw3 ph1 pw1";
    let output = tune(&db).args([many, "--json"]).assert().success().get_output().stdout.clone();
    let row: serde_json::Value = serde_json::from_slice(&output).unwrap();
    let points = row["points"].as_array().unwrap();
    for algorithm in ["winograd", "direct"] {
        assert!(points.iter().any(|p| p["algorithm"] == algorithm), "{algorithm}: {row}");
    }
    assert_eq!(records(&db).records().remove(0).algorithm, Algorithm::Winograd);
    let host = Host::detect();
    let compiler = Compiler::new(&host, host.widest_isa()).unwrap();
    let compiler = compiler.with_database(Arc::new(records(&db)));
    let problem = many.parse().unwrap();
    let pick = compiler.pick(&problem);
    assert!(matches!(pick.origin, Origin::Record(_)), "{pick:?}");
    let strict = compiler.with_accuracy(Accuracy::Strict).pick(&problem);
    assert!(matches!(&strict.origin, Origin::Refused { reason } if reason.contains("strict")));
    assert_eq!(strict.algorithm, Algorithm::Direct);
}

#[test]
fn shards_tune_every_problem_once() {
    let folder = folder();
    let list = folder.path().join("list.txt");
    std::fs::write(&list, LIST).unwrap();
    let count = |shard: &str| {
        let db = folder.path().join(format!("{}.jsonl", shard.replace('/', "-")));
        let command = tune(&db).args(["--shard", shard]).arg("--file").arg(&list).assert();
        command.success();
        records(&db).len()
    };
    assert_eq!((count("1/2"), count("2/2")), (2, 1));
    assert_eq!(count("1/1"), 3);
}

#[test]
fn json_lines_hold_every_candidate() {
    let folder = folder();
    let db = folder.path().join("tuned.jsonl");
    let output = tune(&db).args([SMALL, "--json"]).assert().success().get_output().stdout.clone();
    let row: serde_json::Value = serde_json::from_slice(&output).unwrap();
    assert_eq!((&row["state"], &row["caches"]), (&"tuned".into(), &"warm".into()));
    assert_eq!(row["points"].as_array().unwrap().len() as u64, row["tried"].as_u64().unwrap());
    assert!(row["gain"].as_f64().unwrap() >= 1.0);
}

#[test]
fn cold_records_go_to_a_file_of_their_own() {
    let folder = folder();
    let (db, page) = (folder.path().join("cold.jsonl"), folder.path().join("report.html"));
    let cold = tune(&db).args([SMALL, "--cold"]).arg("--report").arg(&page).assert().success();
    cold.stdout(predicate::str::contains("cold caches"));
    assert_eq!(records(&db).len(), 1);
    assert!(std::fs::read_to_string(page).unwrap().contains("cold caches"));
    let output = tune(&db).args([SMALL, "--cold", "--again", "--json"]).assert().success();
    let row: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!((&row["state"], &row["caches"]), (&"tuned".into(), &"cold".into()));
}

/// A record does not say how it was timed, so cold ones never get among the usual ones.
#[test]
fn cold_records_are_refused_among_the_usual_ones() {
    let folder = folder();
    let home = |arguments: &[&str]| {
        let mut command = Command::cargo_bin("convgen").unwrap();
        command.env("XDG_DATA_HOME", folder.path()).args(arguments).assert()
    };
    let usual = String::from_utf8(home(&["db", "path"]).get_output().stdout.clone()).unwrap();
    let cold = ["tune", SMALL, "--cold", "--budget", "0.1"];
    for more in [&[][..], &["--db", usual.trim()]] {
        let refused = home(&[&cold, more].concat()).code(2);
        let message = predicate::str::contains("cold calls are not kept among the usual ones");
        refused.stderr(message.and(predicate::str::contains("--db FILE")));
    }
    assert!(!Path::new(usual.trim()).exists());
    home(&[&cold[..], &["--no-db"]].concat()).success();
    home(&[&cold[..], &["--survey", "2"]].concat()).success();
}

#[test]
fn a_survey_correlates_and_keeps_nothing() {
    let folder = folder();
    let db = folder.path().join("tuned.jsonl");
    let survey = tune(&db).args([SMALL, "--survey", "12"]).assert().success();
    survey.stdout(predicate::str::contains("rank correlation"));
    assert!(!db.exists());
}

#[test]
fn a_report_is_one_page() {
    let folder = folder();
    let (db, page) = (folder.path().join("tuned.jsonl"), folder.path().join("report.html"));
    tune(&db).arg(SMALL).arg("--report").arg(&page).assert().success();
    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("<svg").count(), 3);
    assert!(page.contains("<!doctype html>") && !page.contains("<script"), "{page}");
}

#[test]
fn a_transposed_problem_is_searched_too() {
    let folder = folder();
    let db = folder.path().join("tuned.jsonl");
    tune(&db).args(["deconv2d ic8 oc8 ih6 iw6 kh2 kw2 sh2 sw2"]).assert().success();
    assert_eq!(records(&db).len(), 1);
}

#[test]
fn wrong_requests_are_refused_with_a_reason() {
    let folder = folder();
    let db = folder.path().join("tuned.jsonl");
    let refused = |arguments: &[&str], message: &str| {
        let command = tune(&db).args(arguments).assert().failure().code(2);
        command.stderr(predicate::str::contains(message));
    };
    refused(&[], "no problem to measure");
    refused(&[SMALL, "--shard", "3/2"], "expected I/N");
    refused(&[SMALL, "--budget", "fast"], "budget");
    refused(&[SMALL, "--no-db"], "cannot be used with");
    assert!(!db.exists());
}
