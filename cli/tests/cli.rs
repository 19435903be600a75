//! The command line as its users see it: what it prints, where, and how it ends.

#[path = "cli/bench.rs"]
mod bench;
#[path = "cli/print.rs"]
mod print;
#[path = "cli/run.rs"]
mod run;
#[path = "cli/verify.rs"]
mod verify;

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use predicates::prelude::*;
use predicates::str::{contains, starts_with};
use serde_json::Value;
use tempfile::TempDir;

const TINY: &str = "conv1d ic2 oc4 iw5 kw3";
const PAIR: &str = "conv1d g4 ic4 oc4 iw8 kw3 bias | relu6 -> conv1d ic4 oc5 iw6 kw1";
const COMMANDS: [&str; 9] =
    ["bench", "verify", "print", "run", "explain", "tune", "db", "machine", "suites"];

fn convgen(arguments: &[&str]) -> Assert {
    program().args(arguments).assert()
}

/// The program of a user without tuning records, whoever runs the tests.
fn program() -> Command {
    let mut command = Command::cargo_bin("convgen").unwrap();
    command.env("XDG_DATA_HOME", "/no/such/folder");
    command
}

fn stdout(assert: Assert) -> String {
    String::from_utf8(assert.get_output().stdout.clone()).unwrap()
}

/// Refused: exit code 2, nothing on standard output, the parts on standard error.
fn refused(arguments: &[&str], parts: &[&str]) {
    let mut assert = convgen(arguments).code(2).stdout("").stderr(starts_with("error: "));
    for part in parts {
        assert = assert.stderr(contains(*part));
    }
    assert.stderr(contains("panicked").not());
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.text(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

mod help {
    use super::*;

    #[test]
    fn names_every_subcommand() {
        for flag in ["--help", "-h"] {
            let text = stdout(convgen(&[flag]).success());
            for command in COMMANDS {
                assert!(text.contains(&format!("\n  {command} ")), "{command} in {flag}");
            }
            assert!(text.contains("Examples:"));
        }
    }

    #[test]
    fn every_subcommand_has_examples() {
        for command in COMMANDS {
            convgen(&[command, "--help"])
                .success()
                .stdout(contains("Example").and(contains(format!("convgen {command}"))));
        }
    }

    #[test]
    fn no_command_and_unknown_commands_are_errors() {
        convgen(&[]).code(2).stderr(contains("Usage"));
        refused(&["benhc"], &["bench"]);
        refused(&["bench", "--isa", "avx1024", TINY], &["avx1024", "clif"]);
        refused(&["bench", "--layout", "hwcn", TINY], &["hwcn", "nhwc"]);
    }
}

mod descriptors {
    use super::*;

    #[test]
    fn malformed_ones_are_refused_with_field_and_numbers() {
        let cases: [(&str, &[&str]); 12] = [
            ("conv1d ic2 oc4 iw5 kw3 sw0", &["column 24", "sw is 0", "at least 1", "hint: "]),
            ("conv1d ic2 oc4 iw5 kw3 dw0", &["dw is 0", "at least 1"]),
            ("conv1d g3 ic6 oc4 iw5 kw3", &["oc is 4", "g 3 does not divide"]),
            ("conv1d g0 ic6 oc4 iw5 kw3", &["g is 0"]),
            ("conv1d ic2 oc4 iw5 kw9", &["kw is 9", "5 input positions"]),
            ("conv1d ic4294967296 oc4 iw5 kw3", &["ic is 4294967296", "at most 2147483648"]),
            ("conv1d ic99999999999999999999 oc4 iw5 kw3", &["ic", "99999999999999999999"]),
            (
                "conv2d ic2147483648 oc2147483648 ih9 iw9 kh9 kw9",
                &["2147483648", "too many elements", "1099511627776"],
            ),
            ("conv1d ic2 oc4 iw5 kw3 frob7", &["unknown word `frob7`", "column 24"]),
            ("conv1d ic2 oc4 iw5 kw3 | frob", &["unknown epilogue operation `frob`"]),
            ("conv1d ic2 oc4 iw5", &["`kw` is missing"]),
            ("", &["empty descriptor"]),
        ];
        for (descriptor, parts) in cases {
            for command in ["bench", "print", "explain"] {
                refused(&[command, descriptor], parts);
            }
        }
    }

    #[test]
    fn the_word_to_blame_is_marked() {
        refused(
            &["print", "conv1d ic2 oc4 iw5 kw3 sw0"],
            &["\n  conv1d ic2 oc4 iw5 kw3 sw0\n                         ^\n"],
        );
    }

    #[test]
    fn words_and_one_string_mean_the_same() {
        let one = stdout(convgen(&["print", "--stage", "problem", TINY]).success());
        let words: Vec<&str> =
            ["print", "--stage", "problem"].into_iter().chain(TINY.split(' ')).collect();
        assert_eq!(stdout(convgen(&words).success()), one);
        assert_eq!(one, "conv1d f32 nhwc n1 ic2 oc4 iw5 kw3\n");
    }

    #[test]
    fn the_grammar_of_benchdnn_is_read() {
        convgen(&["print", "--stage", "problem", "mb3ic2iw5oc4ow3kw3pw0n\"x\""])
            .success()
            .stdout("conv1d f32 nhwc n3 ic2 oc4 iw5 kw3\n");
    }
}

mod models {
    use super::*;

    fn model(name: &str) -> String {
        format!("{}/../onnx/tests/{name}.onnx", env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn the_convolutions_of_a_model_are_verified() {
        let text = stdout(convgen(&["verify", &model("ops")]).success());
        assert!(text.ends_with("verified 7, failed 0, unsupported 2\n"), "{text}");
        let unknown =
            "ops.onnx:8 (unknown): unsupported: its shape depends on the NonZero `places`";
        assert!(text.contains(unknown), "{text}");
        let sizes = ["--dim", "height=31", "--dim", "width=20"];
        let dynamic = model("dynamic");
        let arguments = [&["verify", &dynamic, "--batch", "2"], &sizes[..]].concat();
        convgen(&arguments).success().stdout("verified 3, failed 0, unsupported 0\n");
    }

    #[test]
    fn a_model_is_benchmarked_by_the_names_of_its_nodes() {
        let file = model("ops");
        let arguments = ["bench", "--file", &file, "--json", "--seconds", "0", "--no-verify"];
        let assert = convgen(&[&arguments[..], &["--batch", "2"]].concat())
            .success()
            .stderr(contains("ops.onnx:7 (half): unsupported: "));
        let text = stdout(assert);
        let rows: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((rows.len(), &rows[1]["name"]), (7, &"depthwise".into()));
        let problem = "conv2d f32 nchw n2 g8 ic8 oc8 ih36 iw13 kh3 kw3 ph0:1 pw1 bias";
        assert_eq!(rows[1]["problem"], problem);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        refused(
            &["verify", &model("dynamic")],
            &["dynamic.onnx", "node `first`", "size `height`", "--dim NAME=SIZE"],
        );
        let folder = Folder::new();
        let whole = fs::read(model("ops")).unwrap();
        let cut = folder.write("cut.onnx", &whole[..whole.len() / 2]);
        refused(&["verify", &cut], &["cut.onnx", "no ONNX model", "hint: "]);
        let text = folder.write("text.onnx", TINY);
        refused(&["bench", "--file", &text], &["text.onnx", "no ONNX model"]);
        let unnamed = ["verify", &model("dynamic"), "--dim", "depth=3"];
        refused(&unnamed, &["no size `depth` open, but `batch`, `height`", "--dim NAME=SIZE"]);
        refused(&["verify", &model("dynamic"), "--dim", "height"], &["NAME=SIZE"]);
        refused(&["verify", &model("dynamic"), "--dim", "height=0"], &["`0` is no size"]);
    }
}

mod explain {
    use super::*;

    #[test]
    fn the_choice_and_its_costs_are_told() {
        let text = stdout(convgen(&["explain", TINY, "bias", "--layout", "nchw"]).success());
        let words = [
            "conv1d f32 nchw n1 ic2 oc4 iw5 kw3 bias",
            "algorithm",
            "direct",
            "schedule",
            "tasks",
            "workspace",
            "packed weights",
            "machine code",
            "prediction       at rates known of this kind of core",
            "arithmetic",
            "predicted",
            "other algorithms",
        ];
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn other_schedules_are_listed_and_measured() {
        let arguments = ["explain", TINY, "--measure", "--candidates", "3"];
        let text = stdout(convgen(&arguments).success());
        assert_eq!(text.matches(", measured ").count(), 3, "{text}");
        assert!(text.contains("at rates measured now"), "{text}");
    }

    #[test]
    fn an_algorithm_is_chosen_by_its_name() {
        convgen(&["explain", TINY, "--algorithm", "direct"]).success().stdout(contains("(given)"));
        refused(&["explain", TINY, "--algorithm", "magic"], &["no algorithm `magic`", "direct"]);
    }
}

mod machine {
    use super::*;

    #[test]
    fn a_profile_is_measured_and_chosen_by() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("here.json");
        let path = file.to_str().unwrap();
        convgen(&["machine", "--calibrate", path]).success().stdout(contains("written to"));
        convgen(&["explain", TINY, "--profile", path]).success().stdout(contains("algorithm"));
        // At a thousandth of the clock rate everything takes milliseconds.
        let text = fs::read_to_string(&file).unwrap();
        let mut profile: Value = serde_json::from_str(&text).unwrap();
        profile["cycle_ns"] = serde_json::json!(1e3);
        fs::write(&file, profile.to_string()).unwrap();
        let predicted = |arguments: &[&str]| -> f64 {
            let text = stdout(convgen(arguments).success());
            let line = text.lines().find(|line| line.contains("  predicted")).unwrap().to_owned();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let many = "conv2d ic64 oc64 ih56 iw56 kh1 kw1";
        let usual = predicted(&["explain", many, "--no-db"]);
        let slow = predicted(&["explain", many, "--no-db", "--profile", path]);
        assert!(slow > 100.0 * usual, "{slow} us beside {usual}");
        fs::write(&file, "{}").unwrap();
        refused(&["explain", TINY, "--profile", path], &["no profile", "--calibrate"]);
    }

    #[test]
    fn json_has_the_peaks() {
        let facts: Value =
            serde_json::from_str(&stdout(convgen(&["machine", "--json"]).success())).unwrap();
        for key in ["cpu", "features", "cores", "l1d_bytes", "l2_bytes", "l3_bytes", "bandwidth"] {
            assert!(!facts[key].is_null(), "{key}");
        }
        let peaks = facts["fma_peak"].as_array().unwrap();
        assert!(
            peaks.iter().any(|peak| peak["bits"] == 128 && peak["gflops"].as_f64() > Some(0.0))
        );
    }
}

mod suites {
    use super::*;

    #[test]
    fn every_list_of_the_repository_is_listed() {
        let text = stdout(convgen(&["suites"]).success());
        let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites");
        for entry in fs::read_dir(shapes).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(text.contains(name), "{name}");
        }
    }
}

/// A reader that goes away early, as `head` does, is no reason for an error.
#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("convgen"))
        .args(["print", "--stage", "asm", "conv2d ic64 oc64 ih56 iw56 kh3 kw3"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert!(output.status.success());
}
