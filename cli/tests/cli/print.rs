//! `convgen print`.

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
    assert!(market.starts_with("%%MatrixMarket matrix coordinate real general\n2 3 4\n1 1 0.5\n"));
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
