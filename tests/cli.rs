//! The command line as its users see it: what it prints, where, and how it ends.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use convgen::Isa;
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

mod bench {
    use super::*;

    fn objects(arguments: &[&str]) -> Vec<Value> {
        let text = stdout(convgen(arguments).success());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn json_has_every_field() {
        let rows = objects(&["bench", TINY, "--seconds", "0.001", "--json", "--threads", "2"]);
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        let keys = [
            "problem",
            "name",
            "algorithm",
            "schedule",
            "isa",
            "layout",
            "threads",
            "min_ms",
            "median_ms",
            "gflops",
            "peak_gflops",
            "frac_peak",
            "compile_ms",
            "workspace_bytes",
            "verified",
        ];
        let object = row.as_object().unwrap();
        for key in keys {
            assert!(object.contains_key(key), "{key}");
        }
        assert_eq!(object.len(), keys.len());
        assert_eq!(row["problem"], "conv1d f32 nhwc n1 ic2 oc4 iw5 kw3");
        let isa = row["isa"].as_str().unwrap();
        assert!(Isa::ALL.iter().any(|known| known.name() == isa), "{isa}");
        assert_eq!(row["layout"], "nhwc");
        assert_eq!((&row["threads"], &row["verified"]), (&2.into(), &true.into()));
        assert!(row["name"].is_null());
        for key in ["min_ms", "gflops", "peak_gflops", "compile_ms"] {
            assert!(row[key].as_f64().unwrap() > 0.0, "{key}");
        }
        assert!(row["min_ms"].as_f64() <= row["median_ms"].as_f64());
        let frac = row["gflops"].as_f64().unwrap() / row["peak_gflops"].as_f64().unwrap();
        assert!((row["frac_peak"].as_f64().unwrap() - frac).abs() < 1e-9);
    }

    #[test]
    fn files_and_layouts_and_names_are_taken() {
        let folder = Folder::new();
        let list =
            folder.write("l.txt", format!("# two\n{TINY} \"a\"\n\n{TINY} bias | relu \"b\"\n"));
        let rows = objects(&[
            "bench",
            "--file",
            &list,
            "--layout",
            "nchw",
            "--json",
            "--seconds",
            "0",
            "--no-verify",
        ]);
        let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(rows.iter().all(|row| row["layout"] == "nchw" && row["verified"].is_null()));
    }

    #[test]
    fn the_schedule_of_a_row_gives_the_row_again() {
        let rows = objects(&["bench", TINY, "--json", "--seconds", "0"]);
        let schedule = rows[0]["schedule"].as_str().unwrap();
        let again = objects(&["bench", TINY, "--json", "--seconds", "0", "--schedule", schedule]);
        assert_eq!(again[0]["schedule"], schedule);
        assert_eq!(again[0]["verified"], true);
        let plain = objects(&["bench", TINY, "--json", "--seconds", "0", "--schedule", ""]);
        assert_eq!(plain[0]["schedule"], "");
    }

    #[test]
    fn a_pair_is_measured_fused_and_as_two_kernels() {
        let arguments = ["bench", PAIR, "--json", "--seconds", "0", "--threads", "2"];
        let rows = objects(&[arguments.as_slice(), &["--batch", "3", "--layout", "nchw"]].concat());
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert!(row["problem"].as_str().unwrap().starts_with("conv1d f32 nchw n3 g4"), "{row}");
        assert_eq!((&row["verified"], &row["threads"]), (&true.into(), &2.into()));
        assert_eq!(row["middle_bytes"], 4 * 3 * 4 * 6);
        let ms = |key: &str| row[key].as_f64().unwrap();
        let two = ms("depthwise_ms") + ms("pointwise_ms");
        assert!((two / ms("fused_ms") - ms("speedup")).abs() < 1e-9, "{row}");
        let text = stdout(convgen(&["bench", PAIR, "--seconds", "0"]).success());
        assert!(text.contains("two kernels") && text.contains("times as fast"), "{text}");
        refused(&["bench", PAIR, "--suite", "resnet50"], &["measured alone"]);
        let (depthwise, _) = PAIR.split_once("->").unwrap();
        refused(&["bench", &format!("{depthwise}-> {depthwise}")], &["has kw 3, expected 1", "^"]);
    }

    #[test]
    fn a_table_ends_with_the_total() {
        let text = stdout(convgen(&["bench", TINY, "--seconds", "0"]).success());
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("1 layer, ") && last.contains("geometric mean"), "{last}");
        assert!(text.contains("2->4 5 k3") && text.contains("yes"), "{text}");
    }

    #[test]
    fn lists_come_from_standard_input() {
        let mut command = program();
        command.args(["bench", "--file", "-", "--json", "--seconds", "0", "--no-verify"]);
        command
            .write_stdin(TINY)
            .assert()
            .success()
            .stdout(contains("\"iw5").not().and(contains("iw5")));
    }

    #[test]
    fn requests_that_cannot_be_met_are_refused() {
        let folder = Folder::new();
        let list = folder.write("l.txt", format!("{TINY}\nconv1d ic2 oc4 iw5 kw3 sw0\n"));
        refused(&["bench"], &["no problem", "--suite"]);
        refused(&["bench", "--suite", "nope"], &["unknown suite `nope`", "resnet50", "vgg16"]);
        refused(&["bench", "--file", &list], &["l.txt:2", "sw is 0"]);
        refused(&["bench", "--file", "/no/such/file"], &["/no/such/file"]);
        refused(&["bench", TINY, "--seconds", "-1"], &["-1"]);
        refused(&["bench", TINY, "--seconds", "inf"], &["seconds from 0 to 3600"]);
        refused(&["bench", TINY, "--threads", "0"], &["0", "1..=1024"]);
        refused(
            &["bench", TINY, "--schedule", "split ow 4"],
            &["expected `by`", "no file has that name"],
        );
        refused(
            &["bench", TINY, "--schedule", "unroll zz"],
            &["`unroll zz`", "`zz`", "--stage nest"],
        );
        refused(&["bench", "--file", "-", "--schedule", "-"], &["standard input"]);
        let large = "conv1d n1000000 ic1024 oc1 iw1000 kw1";
        refused(&["bench", large], &["3818", "8.0 GiB"]);
    }
}

mod verify {
    use super::*;

    fn last(text: &str) -> &str {
        text.lines().last().unwrap_or_default()
    }

    #[test]
    fn a_good_list_is_verified() {
        let folder = Folder::new();
        let list = folder.write(
            "l.txt",
            format!("# head\n{TINY}\nconv2d ic3 oc5 ih6 iw5 kh3 kw2 sh2 pw1 reflect\n"),
        );
        let text = stdout(convgen(&["verify", &list]).success());
        assert_eq!(text, "verified 2, failed 0, unsupported 0\n");
        let both =
            stdout(convgen(&["verify", &list, "--layout", "both", "--batch", "2"]).success());
        assert_eq!(both, "verified 4, failed 0, unsupported 0\n");
        let one = stdout(convgen(&["verify", &list, "--only", "kh3", "--jobs", "1"]).success());
        assert_eq!(one, "verified 1, failed 0, unsupported 0\n");
    }

    #[test]
    fn a_bad_line_is_a_failure_with_its_place() {
        let folder = Folder::new();
        let list = folder.write("l.txt", format!("{TINY}\n\nconv1d ic2 oc4 iw5 kw3 dw0\n"));
        let text = stdout(convgen(&["verify", &list]).code(1));
        assert!(text.contains("l.txt:3: failed: column 24: dw is 0"), "{text}");
        assert_eq!(last(&text), "verified 1, failed 1, unsupported 0");
    }

    #[test]
    fn json_has_an_object_a_line() {
        let folder = Folder::new();
        let list = folder.write("l.txt", format!("{TINY} \"a\"\nconv1d ic2 oc4\n"));
        let assert = convgen(&["verify", &list, "--json", "--jobs", "1"])
            .code(1)
            .stderr(contains("verified 1, failed 1, unsupported 0"));
        let mut rows: Vec<Value> =
            stdout(assert).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        rows.sort_by_key(|row| row["line"].as_u64());
        let [good, bad] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!(
            (&good["ok"], &good["error"], &good["name"]),
            (&true.into(), &Value::Null, &"a".into())
        );
        assert_eq!((&good["layout"], &good["file"]), (&"nhwc".into(), &list.as_str().into()));
        assert!(good["elements"].as_u64().unwrap() > 0 && good["bitwise"].as_u64().unwrap() > 0);
        assert!(good["max_error"].is_f64() && good["problem"].is_string());
        assert_eq!(
            (&bad["ok"], &bad["line"], &bad["problem"]),
            (&false.into(), &2.into(), &Value::Null)
        );
        assert!(bad["error"].as_str().unwrap().contains("`iw` is missing"));
    }

    #[test]
    fn files_that_are_no_lists_are_refused() {
        let folder = Folder::new();
        let words = folder.write("words.txt", "once upon a time\nthere was\n");
        let empty = folder.write("empty.txt", "# nothing\n");
        let binary = folder.write("binary", [0xff, 0xfe, 0x00]);
        refused(&["verify", &words], &["words.txt:1", "no line is a problem"]);
        refused(&["verify", &empty], &["empty.txt", "no problem"]);
        refused(&["verify", &binary], &["binary"]);
        refused(&["verify", "/no/such/file"], &["/no/such/file"]);
        refused(&["verify"], &["FILE"]);
        let list = folder.write("l.txt", TINY);
        refused(&["verify", &list, "--only", "zz"], &["`zz`"]);
        refused(&["verify", &list, "--layout", "hwcn"], &["hwcn", "both"]);
    }
}

mod models {
    use super::*;

    fn model(name: &str) -> String {
        format!("{}/tests/onnx/{name}.onnx", env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn the_convolutions_of_a_model_are_verified() {
        let text = stdout(convgen(&["verify", &model("ops")]).success());
        assert!(text.ends_with("verified 7, failed 0, unsupported 2\n"), "{text}");
        let unknown =
            "ops.onnx:8 (unknown): unsupported: the operation `NonZero` is not understood";
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
        refused(&["verify", &model("dynamic"), "--dim", "height"], &["NAME=SIZE"]);
        refused(&["verify", &model("dynamic"), "--dim", "height=0"], &["`0` is no size"]);
    }
}

mod print {
    use super::*;

    #[test]
    fn every_stage_shows_something() {
        for stage in ["problem", "nest", "schedule", "lower", "clif", "asm"] {
            let text = stdout(convgen(&["print", "--stage", stage, TINY]).success());
            assert!(text.trim().len() > 20, "{stage}: {text}");
        }
        convgen(&["print", "--stage", "nest", TINY]).success().stdout(starts_with("nest direct"));
        convgen(&["print", "--stage", "clif", TINY]).success().stdout(contains("function"));
        convgen(&["print", "--stage", "source", TINY]).code(2).stderr(contains("asm"));
    }

    #[test]
    fn padding_made_of_the_input_is_copied_and_named() {
        let problem = "conv2d ic16 oc16 ih9 iw9 kh3 kw3 ph1 pw1 circular";
        let strict = ["--accuracy", "strict"];
        let stage = |stage| {
            let arguments = [&["print", "--stage", stage, problem][..], &strict[..]].concat();
            stdout(convgen(&arguments).success())
        };
        assert!(stage("problem").contains("pw1 circular"), "{}", stage("problem"));
        assert!(stage("schedule").contains("= circular(input["), "{}", stage("schedule"));
        let text = stdout(convgen(&["explain", problem]).success());
        assert!(text.contains("circular"), "{text}");
        let shown = stdout(convgen(&["bench", problem, "--json"]).success());
        assert!(shown.contains("pw1 circular"), "{shown}");
    }

    #[test]
    fn a_problem_is_a_matrix() {
        let matrix = |flags: &[&str]| {
            let problem = "conv1d ic1 oc1 iw3 kw2 bias | relu";
            stdout(convgen(&[&["print", "--stage", "toeplitz", problem], flags].concat()).success())
        };
        assert_eq!(matrix(&[]), "w[0,0,0] w[0,0,1] .\n.        w[0,0,0] w[0,0,1]\n");
        assert_eq!(matrix(&["--format", "csv"]), "row,column,value\n0,0,1\n0,1,2\n1,1,1\n1,2,2\n");
        let folder = Folder::new();
        let weights = ndarray::Array::from_shape_vec((1, 1, 2), vec![0.5f32, 3.0]).unwrap();
        ndarray_npy::write_npy(folder.path("w.npy"), &weights).unwrap();
        let weights = folder.text("w.npy");
        let market = matrix(&["--format", "mtx", "--weights", &weights]);
        assert!(
            market.starts_with("%%MatrixMarket matrix coordinate real general\n2 3 4\n1 1 0.5\n")
        );
        let refuse = |problem: &str, parts: &[&str]| {
            refused(&["print", "--stage", "toeplitz", problem], parts);
        };
        refuse("conv1d ic1 oc1 iw100 kw2", &["9900 elements", "at most 4096", "--format mtx"]);
        refuse("conv1d ic1 oc1 iw9 kw2 bwd_w", &["bwd_w is no product"]);
        refuse("conv2d ic64 oc64 ih56 iw56 kh3 kw3", &["107495424 entries", "hint: "]);
    }

    #[test]
    fn the_default_is_the_schedule_and_what_it_makes() {
        let default = stdout(convgen(&["print", TINY]).success());
        let schedule = stdout(convgen(&["print", "--stage", "schedule", TINY]).success());
        let flag = stdout(convgen(&["print", "--stage", "nest", "--scheduled", TINY]).success());
        assert_eq!((&default, &default), (&schedule, &flag));
        assert!(default.contains("\nnest "), "{default}");
    }

    #[test]
    fn directives_can_be_read_back() {
        let folder = Folder::new();
        let all = stdout(convgen(&["print", TINY]).success());
        let directives = stdout(convgen(&["print", "--directives", TINY]).success());
        assert!(all.contains(&directives));
        let file = folder.write("s.txt", &directives);
        assert_eq!(stdout(convgen(&["print", "--schedule", &file, TINY]).success()), all);
        let given = stdout(convgen(&["print", "--schedule", "unroll kw", TINY]).success());
        assert!(given.contains("unroll kw") && given != all, "{given}");
    }

    #[test]
    fn passes_are_shown_one_after_the_other() {
        let text = stdout(convgen(&["print", "--stage", "lower", "--passes", TINY]).success());
        assert!(text.starts_with("# scheduled\nnest "), "{text}");
        assert!(text.matches("\n# after ").count() >= 2, "{text}");
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
            "prediction       at rates of an ordinary core",
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
        assert!(text.contains("at rates of this machine"), "{text}");
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
        let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shapes");
        for entry in fs::read_dir(shapes).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(text.contains(name), "{name}");
        }
    }
}

mod run {
    use ndarray::{Array, ArrayD, Dimension, ShapeBuilder};
    use ndarray_npy::{read_npy, write_npy};

    use super::*;

    /// Two channels in, one out: the sum of neighbours of the first, minus the second.
    const SMALL: &str = "conv1d nchw ic2 oc1 iw3 kw2 bias";

    fn save<D: Dimension>(folder: &Folder, name: &str, array: &Array<f32, D>) -> String {
        write_npy(folder.path(name), array).unwrap();
        folder.text(name)
    }

    fn small(folder: &Folder) -> [String; 4] {
        let input = vec![1.0, 2.0, 3.0, 10.0, 20.0, 30.0, 4.0, 5.0, 6.0, 40.0, 50.0, 60.0];
        let input = Array::from_shape_vec((2, 2, 3), input).unwrap();
        let weights = Array::from_shape_vec((1, 2, 2), vec![1.0, 1.0, -1.0, 0.0]).unwrap();
        let bias = Array::from_vec(vec![0.5]);
        [
            save(folder, "x.npy", &input),
            save(folder, "w.npy", &weights),
            save(folder, "b.npy", &bias),
            folder.text("y.npy"),
        ]
    }

    fn arguments<'a>(problem: &'a str, files: &'a [String; 4]) -> Vec<&'a str> {
        let [x, w, b, y] = files.each_ref().map(String::as_str);
        vec!["run", "--problem", problem, "--input", x, "--weights", w, "--bias", b, "--output", y]
    }

    #[test]
    fn two_images_come_out_as_computed_by_hand() {
        let folder = Folder::new();
        let files = small(&folder);
        convgen(&arguments(SMALL, &files)).success().stdout(contains("y.npy: f32 [2, 1, 2]"));
        let output: ArrayD<f32> = read_npy(folder.path("y.npy")).unwrap();
        assert_eq!(output.shape(), [2, 1, 2]);
        assert_eq!(output.iter().copied().collect::<Vec<_>>(), [-6.5, -14.5, -30.5, -38.5]);
    }

    #[test]
    fn padding_made_of_the_input_comes_out_as_computed_by_hand() {
        let folder = Folder::new();
        let files = small(&folder);
        for (mode, [first, second]) in [
            ("circular", [-25.5, -49.5]),
            ("reflect", [-24.5, -48.5]),
            ("replicate", [-23.5, -47.5]),
        ] {
            let problem = format!("{SMALL} pw0:1 {mode}");
            convgen(&arguments(&problem, &files)).success();
            let output: ArrayD<f32> = read_npy(folder.path("y.npy")).unwrap();
            let expected = [-6.5, -14.5, first, -30.5, -38.5, second];
            assert_eq!(output.iter().copied().collect::<Vec<_>>(), expected, "{mode}");
        }
    }

    #[test]
    fn column_major_input_and_extras_are_taken() {
        let folder = Folder::new();
        let mut files = small(&folder);
        let rows: ArrayD<f32> = read_npy(folder.path("x.npy")).unwrap();
        let mut columns = ArrayD::zeros(rows.raw_dim().f());
        columns.assign(&rows);
        write_npy(folder.path("f.npy"), &columns).unwrap();
        files[0] = folder.text("f.npy");
        let residual = save(&folder, "r.npy", &Array::from_elem((2, 1, 2), 20.0));
        let scale = save(&folder, "s.npy", &Array::from_vec(vec![2.0]));
        let problem = format!("{SMALL} | add | relu | scale");
        let mut given = arguments(&problem, &files);
        given.extend(["--extra", &residual, "--extra", &scale, "--threads", "2"]);
        convgen(&given).success();
        let output: ArrayD<f32> = read_npy(folder.path("y.npy")).unwrap();
        assert_eq!(output.iter().copied().collect::<Vec<_>>(), [27.0, 11.0, 0.0, 0.0]);
    }

    #[test]
    fn arrays_that_do_not_fit_are_refused() {
        let folder = Folder::new();
        let files = small(&folder);
        let wrong = |problem: &str, parts: &[&str]| refused(&arguments(problem, &files), parts);
        wrong("conv1d nhwc ic2 oc1 iw3 kw2 bias", &["input", "[2, 2, 3]", "[N, 3, 2]"]);
        wrong("conv1d nchw ic2 oc1 iw3 kw1 bias", &["weights", "[1, 2, 2]", "[1, 2, 1]"]);
        wrong("conv1d nchw ic2 oc1 iw3 kw2", &["--bias", "hint: "]);
        wrong("conv1d nchw ic2 oc1 iw3 kw2 bias | add", &["reads 1", "given 0 times"]);
        let flat = save(&folder, "flat.npy", &Array::from_elem(12, 0f32));
        let (mut flat_files, mut nowhere) = (files.clone(), files.clone());
        flat_files[0] = flat;
        refused(&arguments(SMALL, &flat_files), &["[12]", "[N, 2, 3]"]);
        nowhere[3] = folder.text("no/such/folder/y.npy");
        refused(&arguments(SMALL, &nowhere), &["cannot write", "y.npy"]);
    }

    #[test]
    fn gradients_take_what_they_read_and_no_more() {
        let folder = Folder::new();
        let row = |values: &[f32]| Array::from_shape_vec((1, values.len(), 1), values.to_vec());
        let input = save(&folder, "x.npy", &row(&[1.0, 2.0, 3.0]).unwrap());
        let gradient = save(&folder, "dy.npy", &row(&[1.0, 10.0]).unwrap());
        let weights = Array::from_shape_vec((1, 1, 2), vec![1.0, 100.0]).unwrap();
        let weights = save(&folder, "w.npy", &weights);
        let output = folder.text("out.npy");
        let run = |direction: &str, read: &[&str], expected: &[f32]| {
            let problem = format!("conv1d ic1 oc1 iw3 kw2 {direction}");
            let arguments = ["run", "--problem", &problem, "--output", &output];
            convgen(&[&arguments, read].concat()).success();
            let values: ArrayD<f32> = read_npy(folder.path("out.npy")).unwrap();
            assert_eq!(values.iter().copied().collect::<Vec<_>>(), expected, "{direction}");
        };
        run("bwd_w", &["--input", &input, "--extra", &gradient], &[21.0, 32.0]);
        run("bwd_b", &["--input", &gradient], &[11.0]);
        run("bwd_d", &["--input", &gradient, "--weights", &weights], &[1.0, 110.0, 1000.0]);

        let refuse = |direction: &str, read: &[&str], parts: &[&str]| {
            let problem = format!("conv1d ic1 oc1 iw3 kw2 {direction}");
            let arguments = ["run", "--problem", &problem, "--output", &output];
            refused(&[&arguments, read].concat(), parts);
        };
        refuse("bwd_w", &["--input", &input], &["(gradient)", "given 0 times", "hint: "]);
        refuse("bwd_w", &["--input", &input, "--extra", &input], &["gradient", "[1, 2, 1]"]);
        refuse("bwd_b", &["--input", &gradient, "--weights", &weights], &["bwd_b reads none"]);
        refuse("bwd_d", &["--input", &gradient], &["--weights is missing"]);
    }

    #[test]
    fn transposed_weights_have_the_channels_read_first() {
        let folder = Folder::new();
        let input = Array::from_shape_vec((1, 2, 1), vec![1.0, 10.0]).unwrap();
        let weights = (1..=6u8).map(f32::from).collect();
        let weights = Array::from_shape_vec((2, 3, 1), weights).unwrap();
        let (x, w) = (save(&folder, "x.npy", &input), save(&folder, "w.npy", &weights));
        let y = folder.text("y.npy");
        let problem = "deconv1d nchw ic2 oc3 iw1 kw1";
        convgen(&["run", "--problem", problem, "--input", &x, "--weights", &w, "--output", &y])
            .success();
        let output: ArrayD<f32> = read_npy(folder.path("y.npy")).unwrap();
        assert_eq!(output.shape(), [1, 3, 1]);
        assert_eq!(output.iter().copied().collect::<Vec<_>>(), [41.0, 52.0, 63.0]);
    }

    #[test]
    fn a_model_with_one_convolution_is_a_problem() {
        let model = |name: &str| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx");
            folder.join(name).to_str().unwrap().to_owned()
        };
        let folder = Folder::new();
        let x = save(&folder, "x.npy", &Array::from_elem((2, 2, 3, 3), 1f32));
        let w = save(&folder, "w.npy", &Array::from_elem((1, 2, 2, 2), 1f32));
        let y = folder.text("y.npy");
        let files = ["--input", &x, "--weights", &w, "--output", &y];
        let (one, many) = (model("one.onnx"), model("resnet50.onnx"));
        convgen(&[&["run", "--model", &one], &files[..]].concat())
            .success()
            .stdout(contains("y.npy: f32 [2, 1, 2, 2]"));
        let output: ArrayD<f32> = read_npy(folder.path("y.npy")).unwrap();
        assert!(output.iter().all(|sum| *sum == 8.0), "{output}");

        let many = [&["run", "--model", &many], &files[..]].concat();
        refused(&many, &["23 convolutions", "expected one", "--problem"]);
        let both = ["run", "--model", &one, "--problem", SMALL];
        convgen(&[&both, &files[..]].concat()).code(2).stderr(contains("cannot be used with"));
        refused(&[&["run"], &files[..]].concat(), &["--problem"]);
    }

    #[test]
    fn files_that_are_no_arrays_of_floats_are_refused() {
        let folder = Folder::new();
        let files = small(&folder);
        let good = fs::read(folder.path("x.npy")).unwrap();
        let double = Array::from_elem((2, 2, 3), 1f64);
        write_npy(folder.path("double.npy"), &double).unwrap();
        let cases = [
            (folder.text("double.npy"), "'<f8'"),
            (folder.write("short.npy", &good[..good.len() - 4]), "4 bytes are missing"),
            (folder.write("cut.npy", &good[..20]), "ends inside its header"),
            (folder.write("text.npy", "1 2 3"), "no .npy file"),
            (folder.write("empty.npy", ""), "no .npy file"),
            (folder.text("absent.npy"), "cannot read"),
        ];
        for (file, part) in cases {
            let mut bad = files.clone();
            bad[0] = file;
            refused(&arguments(SMALL, &bad), &["input `", part]);
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
