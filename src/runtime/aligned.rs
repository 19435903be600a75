//! Buffers that begin at a cache line, large ones in large pages (`src/pages.rs`).
//!
//! A vector as wide as a line that does not begin at one is two loads. Kernels take any slice;
//! where the channels are a multiple of a line, those of a tensor that begins at a line are read
//! twice as fast. The allocator aligns large vectors to sixteen bytes.

use std::ops::{Deref, DerefMut, Range};

use bytemuck::{cast_slice, cast_slice_mut};

use crate::pages::Pages;
use crate::target::CACHE_LINE;

/// Floats of a cache line.
const LINE_FLOATS: usize = CACHE_LINE / size_of::<f32>();

/// A vector of floats of fixed length whose first element begins a cache line.
#[derive(Debug)]
pub struct Aligned {
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    /// A vector a line longer than needed, and the elements that are used.
    Heap {
        values: Vec<f32>,
        used: Range<usize>,
    },
    Pages(Pages),
}

impl Aligned {
    /// Zeros.
    ///
    /// ```
    /// let zeros = convgen::Aligned::zeros(5);
    /// assert_eq!(zeros[..], [0.0; 5]);
    /// assert!(zeros.as_ptr().addr().is_multiple_of(convgen::target::CACHE_LINE));
    /// ```
    pub fn zeros(len: usize) -> Aligned {
        Aligned::filled(0.0, len)
    }

    /// The same value everywhere.
    pub fn filled(value: f32, len: usize) -> Aligned {
        if let Some(pages) = len.checked_mul(size_of::<f32>()).and_then(Pages::zeroed) {
            let mut aligned = Aligned { memory: Memory::Pages(pages) };
            // Zeros too: what is written once has its memory.
            aligned.fill(value);
            return aligned;
        }
        // Without room for it, memory would not do either.
        let values = vec![value; len.saturating_add(LINE_FLOATS)];
        // The standard library may say that it does not know; then the beginning is as good as any.
        let start = values.as_ptr().align_offset(CACHE_LINE).min(values.len().saturating_sub(len));
        let used = start..start.saturating_add(len);
        Aligned { memory: Memory::Heap { values, used } }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.memory {
            Memory::Heap { values, used } => &values[used.clone()],
            Memory::Pages(pages) => cast_slice(pages),
        }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.memory {
            Memory::Heap { values, used } => &mut values[used.clone()],
            Memory::Pages(pages) => cast_slice_mut(pages),
        }
    }
}

impl From<&[f32]> for Aligned {
    fn from(values: &[f32]) -> Aligned {
        let mut aligned = Aligned::zeros(values.len());
        aligned.copy_from_slice(values);
        aligned
    }
}

impl FromIterator<f32> for Aligned {
    fn from_iter<I: IntoIterator<Item = f32>>(values: I) -> Aligned {
        Aligned::from(values.into_iter().collect::<Vec<f32>>().as_slice())
    }
}

impl Clone for Aligned {
    fn clone(&self) -> Aligned {
        Aligned::from(&**self)
    }
}

impl PartialEq for Aligned {
    fn eq(&self, other: &Aligned) -> bool {
        **self == **other
    }
}
