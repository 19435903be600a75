//! The memory that tasks of a thread work in.

use convgen_ir::verify::SCRATCH_ALIGN;

use super::stage::Workspace;
use crate::pages::Pages;
use crate::target::CACHE_LINE;

/// The scratch memory of one thread: grows to what kernels ask for and is kept.
#[derive(Default)]
pub struct Scratch {
    lines: Vec<ScratchLine>,
    /// In place of lines, if there are many.
    pages: Option<Pages>,
    /// What the stage before a nest works in.
    pub(super) workspace: Option<Box<dyn Workspace>>,
}

/// One aligned unit of scratch.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct ScratchLine([u8; CACHE_LINE]);

const _: () =
    assert!(align_of::<ScratchLine>() == CACHE_LINE && CACHE_LINE as i64 == SCRATCH_ALIGN);

impl Scratch {
    /// No memory yet.
    pub fn new() -> Scratch {
        Scratch::default()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let pages = self.pages.as_ref().map_or(0, |pages| pages.len());
        let lines = size_of_val(self.lines.as_slice());
        lines
            .saturating_add(pages)
            .saturating_add(self.workspace.as_ref().map_or(0, |held| held.bytes()))
    }

    /// A pointer to at least this many bytes, all initialised.
    pub(super) fn reserve(&mut self, bytes: i64) -> *mut u8 {
        let bytes = usize::try_from(bytes.max(0)).unwrap_or(usize::MAX);
        if self.pages.as_ref().is_none_or(|pages| pages.len() < bytes)
            && let Some(pages) = Pages::zeroed(bytes)
        {
            self.pages = Some(pages);
        }
        if let Some(pages) = self.pages.as_mut().filter(|pages| pages.len() >= bytes) {
            return pages.as_mut_ptr();
        }
        let lines = bytes.div_ceil(CACHE_LINE);
        if self.lines.len() < lines {
            self.lines.resize(lines, ScratchLine([0; CACHE_LINE]));
        }
        self.lines.as_mut_ptr().cast()
    }
}
