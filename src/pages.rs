//! Memory in large pages.
//!
//! The tensors of a layer are megabytes: in pages of 4 KiB a kernel meets more of them than the
//! processor has translations of, and where these pages lie decides which lines of a physically
//! indexed cache they share. 3x3 over 512 channels of 28x28 runs at 333 GFLOP/s in small pages, and
//! at 410 in large ones.
//!
//! What begins at one place of a page each time meets in the lines of one set of a cache, and a
//! load that follows a store at the same place of a page waits for it: beginnings are spread over a
//! small page.
//!
//! Promises: the memory is zeros, and begins at a cache line. Does not: insist; where the system
//! gives small pages, they are as good as any.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::MmapMut;

use crate::target::CACHE_LINE;

/// Bytes of a large page, the smallest of the common systems.
const PAGE: usize = 2 << 20;

/// Bytes for which a large page is asked for: half of one may be empty.
const LEAST: usize = PAGE / 4;

/// Bytes from one beginning within a page to the next, and how many there are: an odd number of
/// cache lines, and all within a small page.
const SPREAD: usize = 9 * CACHE_LINE;
const BEGINNINGS: usize = 7;

/// How many were mapped so far.
static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// Bytes that are zeros at first, from a cache line on.
#[derive(Debug)]
pub(crate) struct Pages {
    map: MmapMut,
    start: usize,
    len: usize,
}

impl Pages {
    /// None if so few bytes are no business of large pages, or the system has no more memory to
    /// map.
    pub(crate) fn zeroed(len: usize) -> Option<Pages> {
        if len < LEAST {
            return None;
        }
        let within = MAPPED.fetch_add(1, Ordering::Relaxed) % BEGINNINGS * SPREAD;
        // The end of the last page is never touched where pages are small.
        let whole = len.checked_add(within)?.checked_next_multiple_of(PAGE)?;
        let map = MmapMut::map_anon(whole.checked_add(PAGE)?).ok()?;
        let page = map.as_ptr().align_offset(PAGE);
        if page > PAGE {
            return None;
        }
        #[cfg(target_os = "linux")]
        // A system without large pages refuses, and gives small ones.
        let _ = map.advise_range(memmap2::Advice::HugePage, page, whole);
        Some(Pages { map, start: page + within, len })
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.start..self.start + self.len]
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_memory_is_mapped_and_it_is_zeros_from_a_line_on() {
        assert!(Pages::zeroed(LEAST - 1).is_none());
        assert!(Pages::zeroed(usize::MAX).is_none());
        for len in [LEAST, PAGE, PAGE + 1] {
            let mut pages = Pages::zeroed(len).unwrap();
            assert_eq!(pages.len(), len);
            assert!(pages.as_ptr().addr().is_multiple_of(CACHE_LINE));
            assert!(pages.iter().all(|byte| *byte == 0));
            pages.fill(1);
            assert!(pages.iter().all(|byte| *byte == 1));
        }
    }
}
