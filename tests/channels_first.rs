//! Channels-first problems on vectors: whatever the sizes of the tiles that change places in
//! registers, the kernel has the interpreter's bits and, on integers, the formula's values.

use std::sync::Arc;

use convgen::record::Database;
use convgen::{Compiler, Host, Isa, check};
use convgen_ir::problem::ConvProblem;

fn compilers() -> Vec<Compiler> {
    let host = Host::detect();
    let made = Isa::ALL.into_iter().filter_map(|isa| Compiler::new(&host, isa).ok());
    made.map(|compiler| compiler.with_database(Arc::new(Database::new()))).collect()
}

fn checked(compilers: &[Compiler], texts: impl IntoIterator<Item = String>) {
    for text in texts {
        let problem: ConvProblem = text.parse().expect(&text);
        for compiler in compilers {
            let kernel = compiler.compile(&problem).unwrap_or_else(|e| panic!("{text}: {e}"));
            let checked = check::check(&kernel).unwrap_or_else(|error| panic!("{error}"));
            assert!(checked.elements > 0, "{text}: {checked:?}");
        }
    }
}

/// Sizes around one and two vectors of either width, and all below.
const SIZES: [u64; 23] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 31, 32, 33, 37];

#[test]
fn copies_have_tails_of_all_sizes() {
    let columns = SIZES.map(|w| format!("conv2d nchw ic17 oc9 ih3 iw{w} kh3 kw3 ph1 pw1 sh2 sw2"));
    let channels = SIZES.map(|c| format!("conv2d nchw ic{c} oc9 ih3 iw19 kh1 kw2 pw0:1 sw2"));
    // Of the second, no tap meets the input.
    let edges = [
        "conv1d nchw ic16 oc16 iw40 kw3 pw-3:5",
        "conv2d nchw ic2 oc4 ih1 iw2 kh1 kw1 sw2 ph3:-1 pw0:1",
    ];
    let edges = edges.map(str::to_string);
    checked(&compilers(), columns.into_iter().chain(channels).chain(edges));
}

#[test]
fn stores_have_tails_of_all_sizes() {
    let columns =
        SIZES.map(|w| format!("conv2d nchw ic3 oc20 ih2 iw{} kh1 kw1 sw2 bias | relu", 2 * w));
    let channels = SIZES.map(|c| format!("conv2d nchw ic3 oc{c} ih2 iw21 kh1 kw1 sw2 | add"));
    checked(&compilers(), columns.into_iter().chain(channels));
}

/// A strip of pixels is copied for many tiles of output channels.
#[test]
fn strips_have_tails_of_all_sizes() {
    let pixels = SIZES.map(|w| format!("conv2d nchw ic64 oc512 ih3 iw{w} kh1 kw1 | relu"));
    let layouts = [
        "conv2d n2 ic64 oc500 ih7 iw50 kh1 kw1 nchw",
        "conv2d nchw ic129 oc256 ih16 iw16 kh1 kw1 bias",
    ];
    checked(&compilers(), pixels.into_iter().chain(layouts.map(str::to_string)));
}

#[test]
fn depthwise_problems_have_tails_of_all_sizes() {
    let columns = SIZES.map(|w| format!("conv2d nchw g20 ic20 oc20 ih5 iw{w} kh3 kw3 ph1 pw1"));
    let groups = SIZES.map(|g| format!("conv2d nchw g{g} ic{g} oc{g} ih4 iw9 kh3 kw2 ph1 pw1 sh2"));
    let many = [
        "conv2d nchw g40 ic40 oc40 ih14 iw14 kh5 kw5 ph2 pw2 | silu",
        "conv2d nchw g48 ic48 oc48 ih60 iw7 kh3 kw3 ph1 pw1 dh2 dw2 bias",
        "conv1d nchw g33 ic33 oc33 iw50 kw4 pw3:0",
        "conv3d nchw g17 ic17 oc17 id3 ih5 iw6 kd2 kh3 kw3 ph1 pw1",
        "conv2d nchw g32 ic32 oc32 ih8 iw8 kh3 kw3 ph1 pw1 bwd_d",
        "conv2d nchw g32 ic32 oc32 ih8 iw8 kh3 kw3 ph1 pw1 sh2 sw2 bwd_d",
    ];
    let all = columns.into_iter().chain(groups).chain(many.map(str::to_string));
    checked(&compilers(), all);
}

#[test]
fn transforms_have_tails_of_all_sizes() {
    let columns =
        SIZES.map(|w| format!("conv2d nchw ic16 oc18 ih7 iw{w} kh3 kw3 ph1 pw1 bias | relu"));
    let many = [
        "conv2d nchw ic35 oc40 ih15 iw21 kh3 kw3 ph1 pw1 bias | add | relu",
        "conv2d nchw g2 ic48 oc64 ih9 iw12 kh3 kw3 pw2",
        "conv2d nchw ic16 oc16 ih12 iw12 kh3 kw3 ph2 pw2 dh2 dw2",
        "conv2d nchw ic16 oc16 ih12 iw12 kh3 kw1",
        "conv1d nchw ic32 oc32 iw100 kw3 pw-2:1",
        "conv3d nchw ic16 oc16 id4 ih6 iw9 kd3 kh3 kw3 pd1 ph1 pw1",
    ];
    checked(&compilers(), columns.into_iter().chain(many.map(str::to_string)));
}
