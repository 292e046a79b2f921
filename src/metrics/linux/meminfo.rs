//! The machine's memory.
//!
//! Source: `/proc/meminfo`, proc_meminfo(5); its values are in KiB whatever the unit says. Knows nothing of limits.

use super::super::scan::pairs;

/// The machine's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meminfo {
    /// What the kernel manages.
    pub(crate) total: u64,
    /// What holds nothing.
    pub(crate) free: u64,
    /// What could be had without swapping, by the kernel's own estimate.
    pub(crate) available: u64,
    /// Buffers, page cache and reclaimable kernel objects: what free(1) calls buff/cache.
    pub(crate) cached: u64,
    /// All swap.
    pub(crate) swap_total: u64,
    /// Swap that is free.
    pub(crate) swap_free: u64,
}

/// Reads the file's text; `None` when it does not even say how much there is.
pub(crate) fn meminfo(text: &[u8]) -> Option<Meminfo> {
    let mut memory = Meminfo::default();
    let (mut available, mut shared) = (None, 0);
    for (key, kibibytes) in pairs(text) {
        let bytes = kibibytes.saturating_mul(1024);
        match key {
            b"MemTotal" => memory.total = bytes,
            b"MemFree" => memory.free = bytes,
            b"MemAvailable" => available = Some(bytes),
            b"Buffers" | b"Cached" | b"SReclaimable" => memory.cached = memory.cached.saturating_add(bytes),
            b"Shmem" => shared = bytes,
            b"SwapTotal" => memory.swap_total = bytes,
            b"SwapFree" => memory.swap_free = bytes,
            _ => {}
        }
    }
    // Kernels before 3.14, and some sandboxes, give no estimate: what is free or cached, but for shared memory, which is
    // counted as cache and cannot be dropped.
    let estimate = memory.free.saturating_add(memory.cached.saturating_sub(shared));
    memory.available = available.unwrap_or(estimate).min(memory.total);
    (memory.total > 0).then_some(memory)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_estimate_of_the_kernel_is_used_when_there_is_one() {
        let text = b"MemTotal: 100 kB\nMemFree: 10 kB\nMemAvailable: 60 kB\nBuffers: 1 kB\nCached: 50 kB\nSReclaimable: 9 kB\nShmem: 20 kB\n";
        let memory = meminfo(text).expect("the total is there");
        assert_eq!((memory.available, memory.cached), (60 * 1024, 60 * 1024));
        let old =
            meminfo(b"MemTotal: 100 kB\nMemFree: 10 kB\nCached: 50 kB\nShmem: 20 kB\n").expect("the total is there");
        assert_eq!(old.available, 40 * 1024);
    }

    #[test]
    fn without_a_total_nothing_is_known() {
        assert_eq!(meminfo(b"MemFree: 10 kB\n"), None);
        assert_eq!(meminfo(b""), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = meminfo(&text);
        }

        #[test]
        fn available_is_never_above_the_total(total in 1_u64.., free: u64, cached: u64, shared: u64) {
            let text = format!("MemTotal: {total} kB\nMemFree: {free} kB\nCached: {cached} kB\nShmem: {shared} kB\n");
            let memory = meminfo(text.as_bytes()).expect("the total is there");
            prop_assert!(memory.available <= memory.total);
        }
    }
}
