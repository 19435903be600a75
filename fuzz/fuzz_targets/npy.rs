//! See `targets/npy.rs` of the library.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| convgen_fuzz::targets::npy::target(data));

#[cfg(not(fuzzing))]
fn main() {
    println!("built without cargo-fuzz: use the driver, `cargo run --bin drive`");
}
