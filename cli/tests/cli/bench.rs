//! `convgen bench`.

use convgen::Isa;

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
        "group",
        "algorithm",
        "schedule",
        "isa",
        "layout",
        "threads",
        "caches",
        "min_ms",
        "median_ms",
        "speedup",
        "gflops",
        "peak_gflops",
        "frac_peak",
        "traffic_bytes",
        "gb_per_s",
        "data_in",
        "l1_gb_per_s",
        "l2_gb_per_s",
        "l3_gb_per_s",
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
    assert_eq!((&row["layout"], &row["caches"]), (&"nhwc".into(), &"warm".into()));
    assert_eq!((&row["threads"], &row["verified"]), (&2.into(), &true.into()));
    assert!(row["name"].is_null());
    assert_eq!((&row["group"], &row["speedup"]), (&"k3".into(), &Value::Null));
    for key in ["min_ms", "gflops", "peak_gflops", "compile_ms", "l1_gb_per_s", "l3_gb_per_s"] {
        assert!(row[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert!(row["min_ms"].as_f64() <= row["median_ms"].as_f64());
    let frac = row["gflops"].as_f64().unwrap() / row["peak_gflops"].as_f64().unwrap();
    assert!((row["frac_peak"].as_f64().unwrap() - frac).abs() < 1e-9);
    let bytes = 4 * (5 * 2 + 4 * 2 * 3 + 3 * 4);
    assert_eq!((&row["traffic_bytes"], &row["data_in"]), (&bytes.into(), &"L1".into()));
    let rate = f64::from(bytes) / row["min_ms"].as_f64().unwrap() / 1e6;
    assert!((row["gb_per_s"].as_f64().unwrap() - rate).abs() < 1e-9);
}

#[test]
fn cold_calls_are_told_by_their_median() {
    let cold = ["bench", TINY, "--seconds", "0", "--cold", "--threads", "1,2"];
    let rows = objects(&[cold.as_slice(), &["--json"]].concat());
    assert_eq!(rows.len(), 2, "{rows:?}");
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
    for row in &rows {
        assert_eq!((&row["caches"], &row["data_in"]), (&"cold".into(), &"memory".into()));
        let rate = number(row, "traffic_bytes") / number(row, "median_ms") / 1e6;
        assert!((number(row, "gb_per_s") / rate - 1.0).abs() < 1e-9, "{row}");
    }
    let ratio = number(&rows[0], "median_ms") / number(&rows[1], "median_ms");
    assert!((number(&rows[1], "speedup") / ratio - 1.0).abs() < 1e-9, "{rows:?}");
}

#[test]
fn tables_say_what_the_caches_held() {
    for problem in [TINY, PAIR] {
        let warm = stdout(convgen(&["bench", problem, "--seconds", "0"]).success());
        assert!(warm.contains("warm caches: ms is the shortest call\n"), "{warm}");
        let cold = stdout(convgen(&["bench", problem, "--seconds", "0", "--cold"]).success());
        assert!(cold.contains("cold caches, emptied before each call: ms is the median"), "{cold}");
    }
    let pair = objects(&["bench", PAIR, "--seconds", "0", "--cold", "--json"]);
    assert_eq!(pair[0]["caches"], "cold");
}

#[test]
fn files_and_layouts_and_names_are_taken() {
    let folder = Folder::new();
    let list = folder.write("l.txt", format!("# two\n{TINY} \"a\"\n\n{TINY} bias | relu \"b\"\n"));
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
fn numbers_of_threads_are_compared() {
    let several = ["bench", TINY, "--seconds", "0", "--threads", "2,1"];
    let rows = objects(&[several.as_slice(), &["--json"]].concat());
    let [first, second] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((&first["threads"], &second["threads"]), (&2.into(), &1.into()));
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
    assert_eq!(number(first, "speedup"), 1.0);
    let ratio = number(first, "min_ms") / number(second, "min_ms");
    assert!((number(second, "speedup") - ratio).abs() < 1e-9, "{rows:?}");
    assert_eq!(number(first, "peak_gflops"), 2.0 * number(second, "peak_gflops"));
    let text = stdout(convgen(&several).success());
    assert!(text.contains("speed-up") && text.contains("1 layer, 2 threads, "), "{text}");
    let last = text.lines().last().unwrap();
    assert!(last.contains("1 thread, ") && last.contains("times as fast as 2"), "{last}");
    refused(&["bench", TINY, "--threads", "1,2,1"], &["--threads has 1 more than once"]);
    refused(&["bench", PAIR, "--threads", "1,2"], &["one number of threads"]);
}

#[test]
fn layers_alike_are_summed_up() {
    let folder = Folder::new();
    let depthwise = "conv1d g4 ic4 oc4 iw8 kw5 sw2";
    let list = folder.write("l.txt", format!("{TINY}\n{depthwise}\n{TINY} bias\n"));
    let groups = |more: &[&str]| {
        let arguments = ["bench", "--file", &list, "--seconds", "0", "--no-verify"];
        let text = stdout(convgen(&[arguments.as_slice(), more].concat()).success());
        let lines = text.lines().skip_while(|line| !line.contains("lowest % peak"));
        lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let one: Vec<Vec<String>> = groups(&[]);
    assert_eq!((one[2].len(), &one[2][..2]), (5, ["k3", "2"].map(str::to_owned).as_slice()));
    assert_eq!(one[3][..4], ["depthwise", "k5", "s2", "1"]);
    let two: Vec<Vec<String>> = groups(&["--threads", "1,2"]);
    let starts: Vec<&[String]> = two[2..4].iter().map(|line| &line[..3]).collect();
    assert_eq!(starts, [["k3", "2", "1"], ["k3", "2", "2"]]);
    // A group by itself says what the total says.
    let alone = stdout(convgen(&["bench", TINY, "--seconds", "0"]).success());
    assert!(!alone.contains("group"), "{alone}");
}

#[test]
fn a_table_ends_with_the_total() {
    let text = stdout(convgen(&["bench", TINY, "--seconds", "0"]).success());
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("1 layer, ") && last.contains("geometric mean"), "{last}");
    assert!(text.contains("2->4 5 k3") && text.contains("yes"), "{text}");
    let first = text.lines().next().unwrap();
    assert!(first.contains(" GFLOP/s; reads ") && first.contains("from L3"), "{first}");
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
    refused(&["bench", TINY, "--schedule", "unroll zz"], &["`unroll zz`", "`zz`", "--stage nest"]);
    refused(&["bench", "--file", "-", "--schedule", "-"], &["standard input"]);
    let large = "conv1d n1000000 ic1024 oc1 iw1000 kw1";
    refused(&["bench", large], &["3818", "8.0 GiB"]);
}
