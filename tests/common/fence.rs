//! Buffers at the edge of memory that nobody may touch.
//!
//! A fenced buffer lies between two pages without access. Its elements end where the second one
//! begins, or begin where the first one ends: the first byte beyond that edge is a fault, read or
//! written. What is left of the accessible pages on the other side holds bytes that must survive.

use std::ops::Range;
use std::ptr;

/// The edge that the elements touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// They end at a page without access.
    End,
    /// They begin after one.
    Begin,
}

impl Edge {
    pub const BOTH: [Edge; 2] = [Edge::End, Edge::Begin];
}

/// Some floats, with an inaccessible page at one edge and bytes that are watched at the other.
pub struct Fenced {
    /// The first byte of the first inaccessible page.
    map: *mut u8,
    /// Bytes mapped.
    mapped: usize,
    /// The accessible bytes, counted from `map`.
    open: Range<usize>,
    /// Those of the elements.
    used: Range<usize>,
}

/// What is around the elements. As a float it is a small negative number, which no test computes.
const WATCHED: u8 = 0xa5;

impl Fenced {
    /// A copy of the values.
    pub fn new(values: &[f32], edge: Edge) -> Fenced {
        let mut fenced = Fenced::filled(values.len(), f32::NAN, edge);
        fenced.values_mut().copy_from_slice(values);
        fenced
    }

    /// So many times the value.
    pub fn filled(len: usize, value: f32, edge: Edge) -> Fenced {
        let page = page_bytes();
        let bytes = len * size_of::<f32>();
        let open = page..page + bytes.next_multiple_of(page).max(page);
        let mapped = open.end + page;
        let used = match edge {
            Edge::End => open.end - bytes..open.end,
            Edge::Begin => open.start..open.start + bytes,
        };
        let mut fenced = Fenced { map: map(mapped, &open), mapped, open, used };
        fenced.bytes_mut().fill(WATCHED);
        fenced.values_mut().fill(value);
        fenced
    }

    /// The elements.
    pub fn values(&self) -> &[f32] {
        let len = self.used.len() / size_of::<f32>();
        // SAFETY: `used` lies in the accessible pages, which this value owns; both edges are
        // aligned to a float, and every bit pattern is one. The borrow is that of `self`.
        unsafe { std::slice::from_raw_parts(self.pointer().cast(), len) }
    }

    /// The elements.
    pub fn values_mut(&mut self) -> &mut [f32] {
        let len = self.used.len() / size_of::<f32>();
        // SAFETY: as in `values`; the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.pointer().cast(), len) }
    }

    /// Where the elements begin.
    pub fn pointer(&self) -> *mut u8 {
        self.map.wrapping_add(self.used.start)
    }

    /// The addresses of the elements.
    pub fn addresses(&self) -> Range<usize> {
        let start = self.pointer().addr();
        start..start + self.used.len()
    }

    /// Whether all bytes around the elements are as they were.
    pub fn intact(&self, what: &str) -> Result<(), String> {
        // SAFETY: the accessible pages are initialised and owned by this value.
        let bytes = unsafe {
            std::slice::from_raw_parts(self.map.wrapping_add(self.open.start), self.open.len())
        };
        let used = self.used.start - self.open.start..self.used.end - self.open.start;
        let around = bytes[..used.start].iter().chain(&bytes[used.end..]);
        match around.into_iter().all(|byte| *byte == WATCHED) {
            true => Ok(()),
            false => Err(format!("a store beyond {what}")),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the accessible pages are mapped as zeros and owned by this value.
        unsafe {
            std::slice::from_raw_parts_mut(self.map.wrapping_add(self.open.start), self.open.len())
        }
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and no borrow of it is left.
        unsafe { libc::munmap(self.map.cast(), self.mapped) };
    }
}

fn page_bytes() -> usize {
    // SAFETY: reads a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).expect("pages have a size")
}

/// Pages of which only a range is accessible.
fn map(bytes: usize, open: &Range<usize>) -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address that the system chooses.
    let map = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(map, libc::MAP_FAILED, "no memory to map");
    let map: *mut u8 = map.cast();
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: whole pages of the new mapping.
    let done = unsafe { libc::mprotect(map.wrapping_add(open.start).cast(), open.len(), access) };
    assert_eq!(done, 0, "pages cannot be made accessible");
    map
}
