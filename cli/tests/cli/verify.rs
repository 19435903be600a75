//! `convgen verify`.

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
    let both = stdout(convgen(&["verify", &list, "--layout", "both", "--batch", "2"]).success());
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
