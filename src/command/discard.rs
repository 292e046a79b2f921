//! Reads and discards the output of ended commands while their background programs may still print.
//!
//! Without a reader, a background program would die of SIGPIPE at its next line. The number of outputs, the time and
//! the speed are bounded.

use super::pipe::READ_BYTES;
use async_io::{Async, Timer};
use futures_lite::future::or;
use rustix::io::Errno;
use smol::{LocalExecutor, Task};
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

/// How many outputs are read; a further one replaces the oldest. Two of each of 16 commands; each takes a descriptor.
const OUTPUTS_MAX: usize = 32;

/// How long an output is read: as long as the longest command may run. A longer-lived program redirects its output.
const DISCARD_MAX: Duration = Duration::from_secs(3_600);

/// The pause after each read. One full pipe (64 KiB) each time makes 640 KiB a second, so a program that prints
/// without end costs little.
const PAUSE: Duration = Duration::from_millis(100);

/// The outputs that are read and discarded.
#[derive(Debug, Default)]
pub(super) struct Discarded {
    outputs: VecDeque<(Rc<Async<OwnedFd>>, Task<()>)>,
}

impl Discarded {
    /// Starts to read and discard one more output.
    pub(super) fn push(&mut self, executor: &LocalExecutor<'static>, reads: Rc<Async<OwnedFd>>) {
        self.outputs.retain(|(_, output)| !output.is_finished());
        if self.outputs.len() >= OUTPUTS_MAX {
            self.outputs.pop_front();
        }
        let too_long = async {
            Timer::after(DISCARD_MAX).await;
        };
        let output = executor.spawn(or(discard(Rc::clone(&reads)), too_long));
        self.outputs.push_back((reads, output));
    }

    /// The descriptors of those that are read, for the next program.
    pub(super) fn save(&self) -> Vec<RawFd> {
        let open = self.outputs.iter().filter(|(_, output)| !output.is_finished());
        open.map(|(reads, _)| reads.as_raw_fd()).collect()
    }
}

async fn discard(reads: Rc<Async<OwnedFd>>) {
    while reads.readable().await.is_ok() {
        match read(&reads) {
            Ok(0) => return,
            Ok(_) => drop(Timer::after(PAUSE).await),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

fn read(reads: &Async<OwnedFd>) -> Result<usize, Errno> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); READ_BYTES];
    rustix::io::read(reads.as_fd(), &mut buffer).map(|(bytes, _)| bytes.len())
}
