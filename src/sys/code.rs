//! The program's own code in memory.

/// Unmaps the code that has run so far. What runs again is mapped again, from the kernel's cache, in pieces of 64 KiB;
/// the code that only the start needs stays out. That is half of what an agent at rest would have resident.
pub fn unmap_code() {
    #[cfg(target_os = "linux")]
    if let Some((start, bytes)) = own_code() {
        // SAFETY: the range is a private mapping of the program's file that nothing has written to, since it was never
        // writable: each page is read from the file again when it is used. A failure leaves everything as it is.
        let _ = unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(start), bytes, libc::MADV_DONTNEED) };
    }
}

/// Where the mapping of the program's code starts and how many bytes it has.
#[cfg(target_os = "linux")]
fn own_code() -> Option<(usize, usize)> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let here = unmap_code as *const () as usize;
    maps.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        let is_code = fields.next() == Some("r-xp") && (start..end).contains(&here);
        is_code.then_some((start, end - start))
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn code_runs_on_after_it_was_unmapped() {
        assert!(own_code().is_some_and(|(_, bytes)| bytes > 4096));
        for _ in 0..3 {
            unmap_code();
            assert_eq!("1 2".split(' ').filter_map(|number| number.parse::<u32>().ok()).sum::<u32>(), 3);
        }
    }
}
