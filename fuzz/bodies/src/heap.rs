//! Counts the heap memory of this thread, so that a target can bound the memory of a call.
//!
//! It is the allocator of every program with this crate: the fuzz targets and the tests here, never the agent. While a
//! block grows, the old and the new one both count, as if the block moves. Figures are the requested bytes, without the
//! overhead of the system's allocator.

#![allow(unsafe_code)] // An allocator is unsafe by its trait; nothing here touches the memory itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The heap memory that a piece of work took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The most that it held at once, in bytes, without the memory that was held before.
    pub at_once: usize,
    /// The sum of all its requests, in bytes.
    pub in_all: usize,
}

/// Does the work, and returns the heap memory that it took. Memory that the result still holds counts.
pub fn taken_by<T>(work: impl FnOnce() -> T) -> (T, Taken) {
    let before = HELD.get();
    let asked_before = ASKED.get();
    let outer_peak = PEAK.replace(before);
    let result = work();
    let peak = PEAK.get();
    PEAK.set(peak.max(outer_peak));
    let at_once = usize::try_from(peak - before).unwrap_or_default();
    (result, Taken { at_once, in_all: ASKED.get().wrapping_sub(asked_before) })
}

thread_local! {
    /// Negative if this thread frees memory of another one.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

fn take(bytes: usize) {
    let held = HELD.get().wrapping_add_unsigned(bytes);
    HELD.set(held);
    if held > PEAK.get() {
        PEAK.set(held);
    }
    ASKED.set(ASKED.get().wrapping_add(bytes));
}

fn give_back(bytes: usize) {
    HELD.set(HELD.get().wrapping_sub_unsigned(bytes));
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call goes on to the system's allocator with the caller's own arguments, so that its guarantees are
// ours; the counters are plain cells of the thread, which need no memory of their own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise about the layout is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        give_back(layout.size());
        // SAFETY: the block came from the same allocator, with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        take(new_size);
        give_back(layout.size());
        // SAFETY: the block came from the same allocator, with this layout; the caller answers for the new size.
        unsafe { System.realloc(block, layout, new_size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn heap_reports_the_peak_not_the_sum() {
        let ((), taken) = taken_by(|| {
            for _ in 0..10 {
                drop(black_box(Vec::<u8>::with_capacity(1000)));
            }
        });
        assert_eq!(taken, Taken { at_once: 1000, in_all: 10_000 });
    }

    #[test]
    fn growing_block_counts_twice() {
        let (block, taken) = taken_by(|| {
            let mut block = black_box(vec![0_u8; 1000]);
            block.reserve_exact(1000);
            block
        });
        assert_eq!(taken, Taken { at_once: 3000, in_all: 3000 });
        assert_eq!(taken_by(|| drop(block)).1, Taken { at_once: 0, in_all: 0 });
    }

    #[test]
    fn work_within_work_counts_for_both() {
        let (inner, outer) = taken_by(|| {
            let _held = black_box(vec![0_u8; 10]);
            taken_by(|| drop(black_box(vec![0_u8; 20]))).1
        });
        assert_eq!((inner.at_once, outer.at_once), (20, 30));
    }
}
