//! Where the parts of a nest stand in its text.
//!
//! Filled by the parser and by the printer, so that a fault found later can name a line of the text
//! the user wrote, or of the text the user is shown.

/// Lines, counted from one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceMap {
    /// The line of each statement in preorder, the pack block before the body: a loop or condition
    /// counts as one statement and comes before its body.
    pub stmts: Vec<u32>,
    /// The line of each buffer's first declaration; zero for a buffer that is never declared.
    pub buffers: Vec<u32>,
}
