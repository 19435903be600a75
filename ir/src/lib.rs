//! The loop language of convgen: convolution problems, loop nests that compute them, the schedules
//! that rewrite nests, and what all of these mean. This page is the language reference.
//!
//! Promises: a text has one meaning, the same bits on every machine; [`interpret`] is that meaning,
//! executable. What [`verify`] accepts reads and writes no memory but its buffers, whatever the
//! text was. Does not: know a machine, read a clock or a file, or choose a schedule.
//!
//! # Problems
//!
//! A [`ConvProblem`] is one convolution, valid by construction:
//! ```text
//! output[n,oc,o..] = epilogue(bias[oc] + sum over ic, k..: x(n, g*IC/G+ic, o*s-p+k*d ..) * weights[oc,ic,k..])
//! ```
//! with `g` the group of `oc`, one to three spatial coordinates `o` and `k`, stride `s`, dilation
//! `d` (1 is dense), padding before `p`, and `x` the input, outside its bounds zero or what the
//! problem's [mode](padding::PaddingMode) of padding finds inside. Padding may be negative, which
//! crops. The formula is over the reals, [`mod@reference`] evaluates it; a nest fixes the order and
//! the rounding. One line describes a problem:
//! ```text
//! descriptor = kind { word } { "|" operation } [ '"' name '"' ]
//! kind       = ("conv" | "deconv") ("1d" | "2d" | "3d")                axes w, h w, d h w
//! word       = "f32" | layout | field integer | pad integer [ ":" integer ] | "bias" | "flip"
//!            | "reflect" | "replicate" | "circular" | "fwd" | "bwd_d" | "bwd_w" | "bwd_b"
//! layout     = "nhwc" | "nchw"                                         default nhwc
//! field      = "n" | "g" | "ic" | "oc" | ("i" | "o" | "k" | "s" | "d") axis
//! pad        = "p" axis                                                both sides, or before:after
//! axis       = "d" | "h" | "w"
//! operation  = "relu" | "clamp(" lo "," hi ")" | "relu6" | "leaky_relu(" slope ")" | "sigmoid" | "tanh"
//!            | "silu" | "hardswish" | "gelu" | "gelu_tanh" | "add" | "scale"
//! ```
//! Words come in any order. Batch, groups, stride and dilation are 1 and padding is 0, of zeros,
//! unless given; a stated output size is checked. A line that begins with no kind is read as
//! benchdnn writes it, where dense is dilation 0. The weights are always `[oc, ic/g, k..]`; with
//! `flip` the formula reads them at `K-1-k`, which is true convolution.
//!
//! The map is linear in `x` and in the weights, and its [directions](problem::Direction) are the
//! adjoints: `bwd_d` is the gradient of the input from that of the output, `bwd_w` that of the
//! weights, `bwd_b` that of the bias. `deconv` is the transposed convolution, the map of `bwd_d` as
//! a layer, in the sizes of what it reads and writes; its weights are `[ic, oc/g, k..]`, and a
//! stated output size decides how far the output goes on beyond the last window.
//!
//! Padding that is no zeros is made of the input: `reflect` mirrors it at its first and last
//! element, which are not repeated; `replicate` repeats these; `circular` goes on at the other end.
//! `reflect` has at most one element less than the input on a side, `circular` as many. `bwd_w`
//! reads the input so too; `bwd_d` and `deconv`, where several positions of padding would add up to
//! one element, have zero padding only.
//!
//! A depthwise convolution and the pointwise one that reads its output are a [`Separable`], `pair =
//! descriptor "->" descriptor`; its meaning is that of the two, one after the other.
//!
//! # Nests
//!
//! A [`nest::Nest`] is a program: the buffers of the caller, a block that packs weights, and a
//! body.
//! ```text
//! nest    = "nest" word "{" { given } [ "pack" block ] { stmt } "}"
//! given   = ("input" | "gradient" | "weights" | "bias" | "scale" | "residual" | "output" | "packed")
//!           [ name ] type
//! type    = "f32" "[" [ extent { "," extent } ] "]"
//! extent  = ( integer | "N" ) [ "from" integer ] [ "by" integer ]
//! block   = "{" { stmt } "}"
//! stmt    = loop | "if" guards block | "micro_kernel" block | ("scratch" | "reg") name type
//!         | "let" name "=" value | access "=" value
//! loop    = mode name "in" ["-"] integer ".." (["-"] integer | "N") [ ahead ] { fetch } [ ("where" | "cut") guards ] block
//! ahead   = "ahead" integer
//! fetch   = "fetch" integer access
//! mode    = "for" | "reduce" | ("parallel" | "unroll" | "vector") [ "reduce" ]
//! guards  = guard { "and" guard }
//! guard   = sum ("<" | ">=") ["-"] integer
//! access  = name "[" [ sum { "," sum } ] "]"
//! sum     = ["-"] term { ("+" | "-") term }
//! term    = integer [ "*" name ] | name [ "*" integer ]
//! value   = ["-"] number | name | access
//!         | ("pad" | "reflect" | "replicate" | "circular") "(" access ")"
//!         | ("neg" | "abs" | "round" | "pow2") "(" value ")"
//!         | ("add" | "sub" | "mul" | "div" | "max" | "min") "(" value "," value ")"
//!         | "fma" "(" value "," value "," value ")"
//!         | "select" "(" value "<" value "," value "," value ")"
//! name    = word that is no keyword          word = (letter | "_") { letter | digit | "_" | "." }
//! ```
//! `#` begins a comment, which ends with the line; line ends and blanks only separate. Keywords are
//! `nest pack for reduce parallel unroll vector in ahead fetch where cut and if let scratch reg
//! micro_kernel N`.
//! Sums are normal: each variable once, in the order of the loops around it. [`mod@print`] writes,
//! [`parse`] reads; a printed text reads back as an equal nest.
//!
//! ## Order
//!
//! Statements run one after the other. A loop runs its body for each value of its variable from the
//! first up to, and not including, the last. An iteration, or the body of an `if`, is left out
//! unless every guard holds. The operands of a value are evaluated from left to right, then the
//! operation; a store evaluates its value, then writes. A `let` names the value, not the
//! expression.
//!
//! A loop's mode says how its iterations are carried out, never what they compute: reading every
//! mode as `for` gives the same bits. That is not a hope but rules V6 and V7 of [`verify`].
//! `parallel` iterations are tasks; `unroll` iterations are copies of the body; `vector` iterations
//! are lanes, and where a vector loop is all there is in another one, the iterations of both are:
//! lane `i*E+j` of a loop `i` around a loop `j` of length `E`. The **tasks** of a nest are the
//! iterations of the chain of parallel loops that begins with the body and in which each loop is
//! alone in its block; they are numbered with the innermost loop fastest, write different elements,
//! and may run in any order, at the same time, or in different calls.
//!
//! An axis has one kind. `reduce` marks a reduction: its iterations feed one sum, so their order is
//! the order of rounding. The iterations of all others may be reordered by a schedule. `where` and
//! `cut` mean the same; `cut` asks lowering to split an outer loop so that the guard goes away.
//! `ahead 32` says that memory which the iteration 32 later reads may be prefetched,
//! `fetch 16 x[i]` that the 16 elements from that one on may be, wherever it lies; they mean
//! nothing else. `micro_kernel { .. }` is the block inside: lowering writes it around what a code
//! generator makes one function of vector code of.
//!
//! ## Floats
//!
//! `f32` is IEEE 754 binary32. Every operation rounds once, to nearest, ties to even; denormals are
//! kept as operands and as results; nothing is contracted, reassociated or simplified. `-0.0` and
//! `0.0` are different constants. [`ops`] is this paragraph as code.
//!
//! | operation | value |
//! |---|---|
//! | `add sub mul div` | the IEEE operation |
//! | `fma(a, b, c)` | `a*b + c`, rounded once |
//! | `max(a, b)`, `min(a, b)` | `a > b ? a : b`, `a < b ? a : b`: of two zeros, or with a NaN, the right one |
//! | `select(a < b, x, y)` | `x` if `a < b`, else `y`, also for NaNs; both are evaluated |
//! | `neg`, `abs` | the sign bit flipped, cleared, of NaNs too |
//! | `round` | the nearest integer, ties to even, with the sign of the operand |
//! | `pow2(x)` | the float whose bits are `(i + 127) << 23`, `i` being `x` cut to an i32; a NaN counts as 0 |
//!
//! So `pow2` is exact for integers from -126 to 127, zero for -127, infinite for 128. Which NaN an
//! operation gives is not promised: results are compared with all NaNs alike. A constant is the f32
//! nearest to its decimal text and must be finite.
//!
//! ## Padding
//!
//! `pad(x[i,j])` is the element if every index lies in its dimension, else `+0.0`. A tap on padding
//! is multiplied and added like any other, not skipped: an infinite weight there makes a NaN, and a
//! sum of negative zeros becomes positive.
//!
//! `reflect`, `replicate` and `circular` are loads of an element whatever the index. Each index `i`
//! into a dimension of `E` elements is folded once, then the nearest element is taken:
//!
//! | load | folded index | is inside for |
//! |---|---|---|
//! | `replicate(x[i])` | `i` | `0 <= i < E` |
//! | `reflect(x[i])` | `L - abs(L - abs(i))`, `L` being `E-1` | `-2*L <= i <= 2*L` |
//! | `circular(x[i])` | `i+E` if `i < 0`, `i-E` if `i >= E`, else `i` | `-E <= i < 2*E` |
//!
//! So an index that is inside stands for itself, and one far outside, as the last tile of a copy
//! may have where no sum reads, for an element at an end. All other accesses lie inside, by proof.
//!
//! A schedule may say `skip padding`. It puts the condition that a tap is inside on the loop of the
//! reduction, or around the body of the loop inside of it that decides too, so a tap outside is no
//! operation at all: it contributes nothing, whatever its weight. The sum differs from the plain
//! nest's only where a weight on padding is infinite or a NaN, and in the sign of a sum that is
//! zero. Padding that is no zeros is not skipped.
//!
//! ## Buffers
//!
//! Row-major, the last dimension contiguous; `f32[]` is one element. `N` is the number of images of
//! a call, unknown before and perhaps zero; it is an extent of input, gradient, output and
//! residuals only, as the leading dimension, indexed by a variable that runs over `0..N`.
//!
//! | role | number | owner | pack block | body |
//! |---|---|---|---|---|
//! | `input` | 1 | caller, each call | | reads |
//! | `gradient` | 0 or 1 | caller, each call | | reads |
//! | `weights` | any | caller, once, in the order declared | reads | reads, if nothing is packed |
//! | `bias` | any | caller, each call, in the order declared | | reads |
//! | `scale`, `residual` | any | caller, each call, in the order declared | | reads |
//! | `output` | 1 | caller, each call | | writes every element, reads none |
//! | `packed` | any | the pack block, once a set of weights | writes every element | reads |
//! | `scratch` | any | one task, in memory | | both |
//! | `reg` | any | one task, in registers | | both |
//!
//! A nest may be one of several that share the work of a kernel, each writing a part of the output:
//! `output f32[N,56 from 1 by 2,64]` says that it writes the odd rows, all of them and nothing
//! else. No other buffer has `from` and `by`. Most nests compute one sum; one of several, each read
//! by the next from `scratch`, has weights and perhaps a bias for each.
//!
//! `scratch` and `reg` are statements: the buffer lives to the end of the block and is **undefined
//! until written**; a nest that could read an undefined element is refused. Every run through the
//! declaration begins anew. A `reg` buffer has no address, so after unrolling its indices are
//! numbers.
//!
//! # Schedules
//!
//! A [`schedule::Schedule`] is a list of rewrites, carried out in order, each on the nest that the
//! ones before it left; one that does not apply is refused. A rewrite keeps every bit, unless it
//! reorders the loops of reductions, makes one sum several, or skips padding. Directives end with
//! the line or with `;`.
//! ```text
//! directive = "split" axis "by" integer [ "tail" "=" ("guard" | "cut" | "pad") ]   axis.o around axis.i
//!           | "reorder" axis { axis }                    these loops in this order
//!           | "fuse" axis axis                           two loops become a_b
//!           | "vectorize" axis | "unroll" axis | "parallel" axis
//!           | "prefetch" axis "by" integer               what is read so many iterations later
//!           | "rfactor" axis                             a sum for each iteration, added at the end
//!           | "accumulate" "output" "at" axis            one register tile for all sums inside
//!           | "spill" "sums" "at" axis [ "over" axis ]   all tiles inside, a block of the sum at a time
//!           | "skip" "padding" "at" axis               taps of this reduction outside the input
//!           | "peel" axis                              iterations that touch padding get loops of their own
//!           | "pack" "weights"                           into the order in which the nest reads them
//!           | "pack" "input" "at" axis [ "layout" "=" layout ]      what is read inside, into scratch
//!           | ( "tile" | "points" | "block" | "merge" | "register" | "copy" | "ahead" ) axis "by" integer
//! ```
//! The last line is no rewrite: an algorithm of transformed tiles writes its nest itself, with the
//! [`schedule::Size`]s that its schedule begins with.
//!
//! The last tile of a split may be incomplete: `guard` tests at run time, `cut` makes a second,
//! shorter loop, `pad` computes on zeros and drops the results.
//!
//! # Example
//!
//! ```
//! use convgen_ir::interpret;
//! use convgen_ir::parse::parse_nest;
//! use convgen_ir::verify::{Limits, verify};
//!
//! let text = "
//! nest blur {
//!   input f32[N,4]
//!   weights f32[3]
//!   output f32[N,4]
//!
//!   parallel n in 0..N {
//!     reg acc f32[4]
//!     vector ow in 0..4 { acc[ow] = 0.0 }
//!     reduce kw in 0..3 {
//!       vector ow in 0..4 { acc[ow] = fma(pad(input[n,ow+kw-1]), weights[kw], acc[ow]) }
//!     }
//!     vector ow in 0..4 { output[n,ow] = max(0.0, acc[ow]) }
//!   }
//! }";
//! let (nest, _) = parse_nest(text)?;
//! let nest = verify(nest, &Limits::INTERPRETER)?;
//!
//! let (images, input) = (2, [1.0, 2.0, 3.0, 4.0, 0.0, -8.0, 0.0, 0.0]);
//! let mut output = [f32::NAN; 8];
//! let tasks = 0..nest.nest().tasks(images).unwrap_or(0);
//! interpret::run(&nest, images, tasks, &[&input, &[1.0, 2.0, 1.0]], &mut output)?;
//! assert_eq!(output, [4.0, 8.0, 12.0, 11.0, 0.0, 0.0, 0.0, 0.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Words
//!
//! - **problem**: what is computed; **descriptor**: its text, with a name.
//! - **nest**: how it is computed, and in which order; **axis**: a named loop variable.
//! - **schedule**, **directive**: the rewrites from the plain nest to the fast one, and one of
//!   them.
//! - **tile**: the iterations of a split's inner loop; **tail**: the last one, if incomplete.
//! - **register tile**: a `reg` buffer with the sums of a tile; **panel**: weights as a tile reads
//!   them.
//! - **guard**: the condition under which an iteration runs; **tap**: one position of the kernel.
//! - **task**: the unit that threads share; **extra**: a scale or residual of the epilogue.
//! - **verified**: satisfies V1 to V13 within a target's limits; only such nests are run.

#![forbid(unsafe_code)]

pub mod bounds;
pub mod elem;
pub mod epilogue;
mod every;
pub mod interpret;
mod lex;
pub mod nest;
pub mod ops;
pub mod padding;
pub mod parse;
pub mod print;
pub mod problem;
pub mod reference;
pub mod schedule;
pub mod separable;
pub mod source_map;
pub mod toeplitz;
pub mod verify;

pub use elem::{ElemType, Layout};
pub use epilogue::EpilogueOp;
pub use padding::PaddingMode;
pub use problem::{ConvProblem, ConvSpec, Descriptor, Direction, SpatialAxis, parse_list};
pub use separable::Separable;
