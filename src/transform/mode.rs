//! `vectorize a`, `unroll a`, `parallel a`, `prefetch a by k`
//!
//! ```text
//! for a in 0..E { S }  ->  vector a in 0..E { S }   |   unroll a ..   |   parallel a ..
//!                          for a in 0..E ahead k { S }
//! ```
//! How every loop over the axis is carried out changes, nothing else.
//!
//! Preconditions: the loops are serial; to vectorize, spatial, and innermost or around nothing but
//! one innermost vector loop; to unroll or vectorize, of known length; to make parallel, spatial,
//! without guards, directly inside other parallel loops or outermost; to prefetch, serial or
//! parallel, and not looking ahead already.

use convgen_ir::nest::{AxisKind, Loop, Mode, Nest, Stmt};

use super::{Refusal, axis_with_loop, mode_name, replace_loops};

pub(super) fn vectorize(nest: &mut Nest, name: &str) -> Result<(), Refusal> {
    let reason = "lanes would share one sum";
    spatial(nest, name, reason)?;
    set(nest, name, Mode::Vector, |l| {
        known_length(l, name)?;
        let lanes = match l.body.as_slice() {
            [Stmt::Loop(inner)] if inner.mode == Mode::Vector => &inner.body,
            body => body,
        };
        let nested = lanes.iter().any(|stmt| match stmt {
            Stmt::Loop(_) | Stmt::MicroKernel(_) | Stmt::Declare(_) => true,
            Stmt::If(..) | Stmt::Let(..) | Stmt::Store(..) => false,
        });
        if nested { Err(Refusal::NotInnermost { axis: name.to_string() }) } else { Ok(()) }
    })
}

pub(super) fn unroll(nest: &mut Nest, name: &str) -> Result<(), Refusal> {
    set(nest, name, Mode::Unroll, |l| known_length(l, name))
}

pub(super) fn parallel(nest: &mut Nest, name: &str) -> Result<(), Refusal> {
    let axis = axis_with_loop(nest, name)?;
    spatial(nest, name, "tasks would share one sum")?;
    let mut block = &nest.body;
    let outermost = loop {
        match block.as_slice() {
            [Stmt::Loop(l)] if l.axis == axis => break true,
            [Stmt::Loop(l)] if l.mode == Mode::Parallel => block = &l.body,
            _ => break false,
        }
    };
    if !outermost {
        return Err(Refusal::NotOutermost { axis: name.to_string() });
    }
    set(nest, name, Mode::Parallel, |l| {
        if l.guards.is_empty() { Ok(()) } else { Err(Refusal::Guarded { axis: name.to_string() }) }
    })
}

pub(super) fn prefetch(nest: &mut Nest, name: &str, by: u32) -> Result<(), Refusal> {
    let axis = axis_with_loop(nest, name)?;
    replace_loops(&mut nest.body, axis, &mut |l| {
        let axis = || name.to_string();
        if !matches!(l.mode, Mode::Serial | Mode::Parallel) {
            return Err(Refusal::HasMode { axis: axis(), mode: mode_name(l.mode) });
        }
        match l.ahead {
            Some(by) => Err(Refusal::LooksAhead { axis: axis(), by }),
            None => Ok(Stmt::Loop(Loop { ahead: Some(by), ..l })),
        }
    })
}

fn set(
    nest: &mut Nest,
    name: &str,
    mode: Mode,
    mut check: impl FnMut(&Loop) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let axis = axis_with_loop(nest, name)?;
    replace_loops(&mut nest.body, axis, &mut |l| {
        if l.mode != Mode::Serial {
            return Err(Refusal::HasMode { axis: name.to_string(), mode: mode_name(l.mode) });
        }
        check(&l)?;
        Ok(Stmt::Loop(Loop { mode, ..l }))
    })
}

fn spatial(nest: &Nest, name: &str, reason: &'static str) -> Result<(), Refusal> {
    let axis = axis_with_loop(nest, name)?;
    match nest.axis(axis).kind {
        AxisKind::Spatial => Ok(()),
        AxisKind::Reduction => Err(Refusal::Reduction { axis: name.to_string(), reason }),
    }
}

fn known_length(l: &Loop, name: &str) -> Result<(), Refusal> {
    match l.trip_count() {
        Some(_) => Ok(()),
        None => Err(Refusal::BatchLength { axis: name.to_string() }),
    }
}
