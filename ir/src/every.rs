//! Lists of the variants of an enum that the compiler holds to be complete.

/// An array of every variant of an enum, in the order given; of a variant with fields, one value.
///
/// ```
/// #[derive(Debug)]
/// enum Shape { Point, Disc { radius: f32 } }
/// let shapes = convgen_ir::every!(Shape { Point, Disc { radius: 1.0 } });
/// assert_eq!(format!("{shapes:?}"), "[Point, Disc { radius: 1.0 }]");
/// ```
///
/// A list that lacks one does not compile:
///
/// ```compile_fail,E0004
/// enum Shape { Point, Disc { radius: f32 } }
/// let shapes = convgen_ir::every!(Shape { Point });
/// ```
#[macro_export]
macro_rules! every {
    ($type:ident { $($variant:ident $({ $($field:ident : $value:expr),+ })?),+ $(,)? }) => {{
        const _: fn(&$type) = |value| match value {
            $($type::$variant { .. } => {})+
        };
        [$($type::$variant $({ $($field: $value),+ })?),+]
    }};
}
