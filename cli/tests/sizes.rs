//! The largest sizes that a problem may have: an answer at once.

use std::time::Duration;

use assert_cmd::Command;
use rayon::prelude::*;

/// Seconds until a process that picks counts as hung: far above what any text takes on a busy
/// machine.
const HUNG: Duration = Duration::from_secs(60);

/// Sizes at which a loop over them would take minutes: each is compiled or refused, by a process
/// that ends.
#[test]
fn huge_sizes_are_picked_for_at_once() {
    let texts = [
        "conv1d ic16 oc16 iw2147483640 kw5",
        "conv1d ic1 oc1 iw2147483648 kw2147483648",
        "conv1d ic64 oc64 iw2147483 kw1000003 dw2",
        "conv1d nchw ic16 oc16 iw2147483640 kw5 pw2",
        "conv2d ic4 oc4 ih2147483648 iw6 kh3 kw3 bwd_d",
        "conv2d nchw g8 ic8 oc8 ih2147483647 iw6 kh3 kw3 ph1 pw1",
        "conv2d nchw ic64 oc64 ih16777213 iw6 kh3 kw3 ph1 pw1",
        "conv2d ic16 oc16 ih16777213 iw4 kh3 kw3 dh4194301",
        "conv2d ic2147483647 oc4 ih6 iw6 kh3 kw3 bwd_w",
        "conv2d ic4 oc2147483629 ih6 iw6 kh3 kw3 bwd_w",
        "conv2d g2147483647 ic2147483647 oc2147483647 ih6 iw6 kh3 kw3 bwd_w",
        "deconv1d ic4 oc3 iw4 kw5000 sw4096",
        "deconv1d ic4 oc3 iw4 kw5000 sw2147483",
        "deconv2d ic4 oc3 ih4 iw4 kh65 kw65 sh64 sw64",
        "deconv3d ic4 oc3 id2 ih2 iw2 kd13 kh13 kw13 sd12 sh12 sw12",
        "deconv1d ic1 oc1 iw16 kw3 sw10000",
        "conv1d ic1 oc1 iw100000 kw3 sw5000 bwd_d",
        "conv1d ic1 oc1 iw2147483648 kw3 sw2147483629 dw1000003 bwd_d",
    ];
    texts.par_iter().for_each(|text| {
        for layout in ["nhwc", "nchw"] {
            let mut command = Command::cargo_bin("convgen").expect("built");
            let args = ["print", "--isa", "clif", "--stage", "clif", "--layout", layout, text];
            let output = command.args(args).timeout(HUNG).output().expect("run");
            let refused = String::from_utf8_lossy(&output.stderr);
            match output.status.code() {
                Some(0) => {}
                Some(2) => assert!(refused.starts_with("error: "), "{text}: {refused}"),
                other => panic!("{text} ({layout}): {other:?} {refused}"),
            }
        }
    });
}
