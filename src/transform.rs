//! Rewrites of nests, one directive a file. Each states `before -> after` and its precondition.
//!
//! A rewrite keeps the meaning of the nest: bit for bit, unless it reorders a reduction axis. It is
//! refused, with its reason, where its precondition does not hold; a refused rewrite changes
//! nothing. Whether the result is legal on a target is the verifier's business, not checked here.

mod accumulate;
mod fuse;
mod mode;
pub(crate) mod pack_input;
mod pack_weights;
pub(crate) mod peel;
mod reorder;
mod rfactor;
mod skip_padding;
mod spill;
mod split;

use convgen_ir::PaddingMode;
use convgen_ir::nest::{
    Affine, AxisId, AxisKind, Expr, Loop, Mode, Nest, Oversize, Role, Stmt, visit_exprs,
    visit_loops, visit_pads,
};
use convgen_ir::schedule::{Directive, Schedule};

/// Why a directive does not apply to a nest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{directive}`: {refusal}")]
pub struct TransformError {
    /// The directive as written.
    pub directive: String,
    /// Its place in the schedule, counted from zero.
    pub index: usize,
    /// The precondition that does not hold.
    pub refusal: Refusal,
}

/// A precondition that does not hold, with its numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names every field")]
pub enum Refusal {
    #[error(transparent)]
    Oversize(#[from] Oversize),
    #[error("the nest has no loop over `{axis}`")]
    NoLoop { axis: String },
    #[error("the axis `{axis}` exists already")]
    AxisExists { axis: String },
    #[error("the loop over `{axis}` does not start at zero")]
    Start { axis: String },
    #[error("the loop over `{axis}` is already {mode}")]
    HasMode { axis: String, mode: &'static str },
    #[error("the loop over `{axis}` looks {by} iterations ahead already")]
    LooksAhead { axis: String, by: u32 },
    #[error("a tile of {by} does not fit a loop of {extent}")]
    TileSize { by: u32, extent: i64 },
    #[error("`{axis}` has the length of the batch, which is not known before the call")]
    BatchLength { axis: String },
    #[error("`{axis}` is a reduction axis: {reason}")]
    Reduction { axis: String, reason: &'static str },
    #[error("the loops {axes} are not nested directly in one another")]
    NotNested { axes: String },
    #[error("the guard of `{axis}` depends on a loop that would be inside it")]
    GuardOrder { axis: String },
    #[error("`{axis}` is named twice")]
    Repeated { axis: String },
    #[error(
        "`{buffer}` is not indexed by `{outer}` and `{inner}` alone in neighbouring dimensions"
    )]
    NotCollapsible { buffer: String, outer: String, inner: String },
    #[error("the loop over `{axis}` has a guard")]
    Guarded { axis: String },
    #[error("the loop over `{axis}` is not innermost")]
    NotInnermost { axis: String },
    #[error("the loop over `{axis}` is not directly inside the parallel loops")]
    NotOutermost { axis: String },
    #[error("inside `{axis}` is no sum in a register with spatial loops around it")]
    NoAccumulator { axis: String },
    #[error("`{axis}` is no reduction axis")]
    NotReduction { axis: String },
    #[error("`{axis}` is not the innermost loop of a sum of products that begins with one value")]
    NoSum { axis: String },
    #[error("no padding depends on `{axis}`")]
    NoPadding { axis: String },
    #[error("the padding inside `{axis}` is {mode}, not zeros")]
    NoZeros { axis: String, mode: PaddingMode },
    #[error("`{axis}` would become {given} loops, more than {limit}")]
    Parts { axis: String, given: i64, limit: i64 },
    #[error("the weights are packed already")]
    AlreadyPacked,
    #[error("inside `{axis}` the input is not read, or was packed already")]
    InputNotRead { axis: String },
    #[error("inside `{axis}` the input is read at different places of different shapes")]
    InputShapes { axis: String },
    #[error("a size stands before all rewrites, in the schedule of winograd or fourier")]
    NoRewrite,
}

/// Applies a schedule, directive by directive.
///
/// # Errors
/// The first directive whose precondition does not hold.
pub fn apply(mut nest: Nest, schedule: &Schedule) -> Result<Nest, TransformError> {
    for (index, directive) in schedule.directives.iter().enumerate() {
        rewrite(&mut nest, directive).map_err(|refusal| refusal.of(directive, index))?;
    }
    nest.drop_unused_buffers();
    Ok(nest)
}

/// As [`apply`], on one of several nests of a kernel: what is said about padding is for those that
/// have some.
///
/// # Errors
/// The first directive whose precondition does not hold.
pub fn apply_to_part(mut nest: Nest, schedule: &Schedule) -> Result<Nest, TransformError> {
    for (index, directive) in schedule.directives.iter().enumerate() {
        match apply_one(&nest, directive) {
            Ok(rewritten) => nest = rewritten,
            Err(Refusal::NoPadding { .. }) => {}
            Err(refusal) => return Err(refusal.of(directive, index)),
        }
    }
    nest.drop_unused_buffers();
    Ok(nest)
}

impl Refusal {
    fn of(self, directive: &Directive, index: usize) -> TransformError {
        TransformError { directive: directive.to_string(), index, refusal: self }
    }
}

/// Applies one directive.
///
/// # Errors
/// The precondition that does not hold.
pub fn apply_one(nest: &Nest, directive: &Directive) -> Result<Nest, Refusal> {
    let mut nest = nest.clone();
    rewrite(&mut nest, directive)?;
    Ok(nest)
}

/// Applies one directive to a nest, which is of no use if it is refused.
fn rewrite(nest: &mut Nest, directive: &Directive) -> Result<(), Refusal> {
    // What becomes a micro-kernel is decided when the schedule is done.
    nest.unmark_micro_kernels();
    match directive {
        Directive::Split { axis, by, tail } => split::apply(nest, axis, *by, *tail)?,
        Directive::Reorder { axes } => reorder::apply(nest, axes)?,
        Directive::Fuse { outer, inner } => fuse::apply(nest, outer, inner)?,
        Directive::Vectorize { axis } => mode::vectorize(nest, axis)?,
        Directive::Unroll { axis } => mode::unroll(nest, axis)?,
        Directive::Parallel { axis } => mode::parallel(nest, axis)?,
        Directive::Prefetch { axis, by } => mode::prefetch(nest, axis, *by)?,
        Directive::Rfactor { axis } => rfactor::apply(nest, axis)?,
        Directive::AccumulateOutput { at } => accumulate::apply(nest, at)?,
        Directive::SpillSums { at, over } => spill::apply(nest, at, over.as_deref())?,
        Directive::SkipPadding { at } => skip_padding::apply(nest, at)?,
        Directive::Peel { axis } => peel::apply(nest, axis)?,
        Directive::PackWeights => pack_weights::apply(nest)?,
        Directive::PackInput { at, layout } => pack_input::apply(nest, at, *layout)?,
        Directive::Size { .. } => return Err(Refusal::NoRewrite),
    }
    Ok(nest.check_size()?)
}

/// The axis of that name, if the body has a loop over it.
fn axis_with_loop(nest: &Nest, name: &str) -> Result<AxisId, Refusal> {
    let missing = || Refusal::NoLoop { axis: name.to_string() };
    let axis = nest.find_axis(name).ok_or_else(missing)?;
    let mut found = false;
    visit_loops(&nest.body, &mut |l| found |= l.axis == axis);
    if found { Ok(axis) } else { Err(missing()) }
}

/// The reduction axis of that name, if the body has a loop over it.
fn reduction_axis(nest: &Nest, name: &str) -> Result<AxisId, Refusal> {
    let axis = axis_with_loop(nest, name)?;
    match nest.axis(axis).kind {
        AxisKind::Reduction => Ok(axis),
        AxisKind::Spatial => Err(Refusal::NotReduction { axis: name.to_string() }),
    }
}

/// Replaces every loop over an axis by what `f` makes of it.
fn replace_loops(
    block: &mut Vec<Stmt>,
    axis: AxisId,
    f: &mut impl FnMut(Loop) -> Result<Stmt, Refusal>,
) -> Result<(), Refusal> {
    for stmt in std::mem::take(block) {
        block.push(match stmt {
            Stmt::Loop(l) if l.axis == axis => f(l)?,
            Stmt::Loop(mut l) => {
                replace_loops(&mut l.body, axis, f)?;
                Stmt::Loop(l)
            }
            Stmt::If(guards, mut body) => {
                replace_loops(&mut body, axis, f)?;
                Stmt::If(guards, body)
            }
            Stmt::MicroKernel(mut body) => {
                replace_loops(&mut body, axis, f)?;
                Stmt::MicroKernel(body)
            }
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => stmt,
        });
    }
    Ok(())
}

/// The loops around every point where the predicate holds for a value, innermost last.
fn loops_around_load<'n>(block: &'n [Stmt], role: Role, nest: &Nest) -> Option<Vec<&'n Loop>> {
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => {
                if let Some(mut inner) = loops_around_load(&l.body, role, nest) {
                    inner.insert(0, l);
                    return Some(inner);
                }
            }
            Stmt::If(_, body) | Stmt::MicroKernel(body) => {
                if let Some(inner) = loops_around_load(body, role, nest) {
                    return Some(inner);
                }
            }
            Stmt::Declare(_) => {}
            Stmt::Let(..) | Stmt::Store(..) => {
                if loads_role(std::slice::from_ref(stmt), role, nest) {
                    return Some(vec![]);
                }
            }
        }
    }
    None
}

/// Whether a block loads from a buffer of that role.
fn loads_role(block: &[Stmt], role: Role, nest: &Nest) -> bool {
    let mut found = false;
    visit_exprs(block, &mut |expr| {
        if let Expr::Load(access) | Expr::Pad(_, access) = expr {
            found |= nest.buffer(access.buffer).role == role;
        }
    });
    found
}

/// Refuses loops over an axis inside of which padding is made of the input: its taps are taps like
/// any other.
fn expect_zeros(nest: &Nest, axis: AxisId, name: &str) -> Result<(), Refusal> {
    let mut found = None;
    visit_loops(&nest.body, &mut |l| {
        if l.axis == axis {
            visit_pads(&l.body, &mut |mode, _| {
                if mode != PaddingMode::Zeros {
                    found = Some(mode);
                }
            });
        }
    });
    match found {
        Some(mode) => Err(Refusal::NoZeros { axis: name.to_string(), mode }),
        None => Ok(()),
    }
}

/// The smallest and largest value of a sum over the full ranges of the given loops; variables of
/// other loops count as zero.
fn span(sum: &Affine, loops: &[&Loop]) -> (i64, i64) {
    let mut span = (0, 0);
    for l in loops {
        let Some(hi) = l.hi.fixed() else { continue };
        let coefficient = sum.coefficient(l.axis);
        let ends = [l.lo * coefficient, (hi - 1) * coefficient];
        span.0 += ends[0].min(ends[1]);
        span.1 += ends[0].max(ends[1]);
    }
    span
}

/// The word for a loop's mode in a message.
fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Serial => "serial",
        Mode::Parallel => "parallel",
        Mode::Unroll => "unrolled",
        Mode::Vector => "a vector",
    }
}
