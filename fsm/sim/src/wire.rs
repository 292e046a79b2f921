//! One connection between the agent and the console: two ordered directions, a speed, and the ways in which it breaks.
//!
//! It does not know what the frames mean, and loses or reorders none within a link, because TCP does not: what a break
//! loses is always the end of a direction. Times are milliseconds of the world, sizes bytes on the wire.

use crate::rows::RowId;
use draupnir_fsm::delivery::ping::Payload;
use draupnir_fsm::driver::{Chunk, CloseReason, LinkId, Loss, StateKind, StreamKey};
use std::collections::VecDeque;

/// What the kernel takes of a stalled connection before it takes nothing more.
const KERNEL_BUFFER_BYTES: u64 = 16 << 10;

/// How long after a stall a link may still be dropped for it: until the Pongs that were stuck have arrived.
const HEALED_MS: u64 = 5_000;

/// A frame of the agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Up {
    State(StateKind),
    /// A reliable message, by its place in the world's list.
    Message(u32),
    Stream {
        life: u32,
        stream: StreamKey,
        cut: Chunk,
        bytes: u64,
    },
    /// Lines of the log.
    Lines {
        life: u32,
        first: u64,
        lines: u64,
    },
    Ping(Payload),
    Close(u16),
    /// The socket was reset.
    Reset,
}

/// A frame of the console's, or what the agent's socket says at that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Down {
    /// Something to read that asks for nothing.
    Text,
    /// The console asks for logs.
    Subscribe,
    Dispatch(u32),
    Cancel(u32),
    Create(u32),
    Input(u32),
    Resize(u32),
    EndSession(u32),
    Pong(Payload),
    Close(u16, CloseReason),
    /// The console's answer to our close frame.
    CloseAnswered,
    Lost(Loss),
}

/// What the socket is writing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    pub(crate) from_ms: u64,
    pub(crate) until_ms: u64,
    pub(crate) bytes: u64,
}

/// A longer way than this, there and back, may be too long for a probe.
const PROBE_WAY_MS_MAX: u64 = 3_000;

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) link: LinkId,
    /// The row whose id the agent sent.
    pub(crate) row: Option<RowId>,
    pub(crate) latency_ms: u64,
    pub(crate) bytes_per_ms: u64,
    pub(crate) up: VecDeque<(u64, Up)>,
    pub(crate) down: VecDeque<(u64, Down)>,
    /// When the socket is done with what it was given.
    free_ms: u64,
    down_ms: u64,
    pub(crate) batch: Option<Batch>,
    taken_bytes: u64,
    /// Until when a long batch kept everything else waiting.
    pub(crate) busy_until_ms: u64,
    /// What was written since nothing passes.
    stuck_bytes: u64,
    /// Nothing passes from the first to the second moment.
    pub(crate) stall: Option<(u64, u64)>,
    /// Since when the agent cannot know that the link is dead, in its own time.
    pub(crate) dead_since_ms: Option<u64>,
    /// The agent's socket is open, as far as the agent knows.
    pub(crate) agent_open: bool,
    /// The console's socket is open, as far as the console knows.
    pub(crate) console_open: bool,
    /// The console has heard that the agent's socket is gone.
    pub(crate) end_noticed: bool,
    /// The console answers Pings.
    pub(crate) answers_pings: bool,
    pub(crate) listens_ms: u64,
    pub(crate) greets_ms: Option<u64>,
    /// Something was done to it that may make the agent drop it.
    pub(crate) harmed: bool,
    /// When something that was stuck on it began to pass.
    pub(crate) healed_ms: u64,
    /// It is broken, whether or not the agent has heard.
    pub(crate) broken: bool,
}

impl Wire {
    pub(crate) fn new(link: LinkId, latency_ms: u64, bytes_per_ms: u64, now_ms: u64) -> Self {
        Self {
            link,
            row: None,
            latency_ms,
            bytes_per_ms,
            up: VecDeque::new(),
            down: VecDeque::new(),
            free_ms: now_ms,
            down_ms: now_ms,
            batch: None,
            taken_bytes: 0,
            busy_until_ms: 0,
            stuck_bytes: 0,
            stall: None,
            dead_since_ms: None,
            agent_open: true,
            console_open: true,
            end_noticed: false,
            answers_pings: true,
            listens_ms: now_ms,
            greets_ms: None,
            harmed: false,
            healed_ms: 0,
            broken: false,
        }
    }

    /// Sends a frame of `bytes` to the console; when it arrives.
    pub(crate) fn send_up(&mut self, now_ms: u64, frame: Up, bytes: u64) -> u64 {
        if self.stalled_until(now_ms).is_some() {
            self.stuck_bytes += bytes;
        }
        self.free_ms = self.free_ms.max(now_ms) + bytes / self.bytes_per_ms;
        let at_ms = self.free_ms + self.latency_ms;
        self.up.push_back((at_ms, frame));
        at_ms
    }

    /// The socket was reset: what it has not sent is gone, the reset is not. When it arrives.
    pub(crate) fn reset(&mut self, now_ms: u64) -> u64 {
        let at_ms = now_ms + self.latency_ms;
        self.up.retain(|(arrives_ms, _)| *arrives_ms <= at_ms);
        self.free_ms = now_ms;
        self.send_up(now_ms, Up::Reset, 0)
    }

    /// Begins a batch of `bytes` that were just sent; when the socket has taken it.
    pub(crate) fn begin_batch(&mut self, now_ms: u64, bytes: u64) -> u64 {
        let stuck = self.stalled_until(now_ms).is_some() && self.fits_the_buffer();
        let until_ms = if stuck { now_ms } else { self.free_ms.max(now_ms) };
        self.batch = Some(Batch { from_ms: now_ms, until_ms, bytes });
        until_ms
    }

    /// The socket has taken the whole batch.
    pub(crate) fn end_batch(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.taken_bytes += batch.bytes;
            if batch.until_ms - batch.from_ms > 1_000 {
                self.busy_until_ms = batch.until_ms;
            }
        }
    }

    /// The network is fast from now on: what is under way is there soon. When, and how many frames that is.
    pub(crate) fn speed_up(&mut self, now_ms: u64, bytes_per_ms: u64) -> (u64, usize) {
        self.bytes_per_ms = bytes_per_ms;
        let soon_ms = now_ms + self.latency_ms;
        self.free_ms = self.free_ms.min(now_ms);
        for (at_ms, _) in &mut self.up {
            *at_ms = (*at_ms).min(soon_ms);
        }
        if let Some(batch) = &mut self.batch {
            batch.until_ms = batch.until_ms.min(now_ms + 1).max(batch.from_ms);
        }
        (soon_ms, self.up.len())
    }

    /// How many bytes the socket has taken.
    pub(crate) fn taken_bytes(&self, now_ms: u64) -> u64 {
        let Some(batch) = self.batch else { return self.taken_bytes };
        let until_ms = self.stall.map_or(now_ms, |(from_ms, _)| from_ms.min(now_ms));
        let span_ms = (batch.until_ms - batch.from_ms).max(1);
        let done_ms = until_ms.saturating_sub(batch.from_ms).min(span_ms);
        self.taken_bytes + batch.bytes * done_ms / span_ms
    }

    /// Sends a frame to the agent; when it arrives.
    pub(crate) fn send_down(&mut self, now_ms: u64, frame: Down) -> u64 {
        self.down_ms = self.down_ms.max(now_ms + self.latency_ms);
        self.down.push_back((self.down_ms, frame));
        self.down_ms
    }

    /// Until when nothing passes, if that is so now.
    pub(crate) fn stalled_until(&self, now_ms: u64) -> Option<u64> {
        self.stall.filter(|(from_ms, until_ms)| *from_ms <= now_ms && now_ms < *until_ms).map(|(_, until_ms)| until_ms)
    }

    /// Whether the kernel takes what is being written though nothing passes.
    pub(crate) fn fits_the_buffer(&self) -> bool {
        self.stuck_bytes <= KERNEL_BUFFER_BYTES
    }

    /// The way there and back takes so much of a probe's five seconds that what else an answer waits for, such as a
    /// batch before it or a console that does not listen yet, may take the rest.
    pub(crate) fn is_too_long_to_probe(&self) -> bool {
        2 * self.latency_ms > PROBE_WAY_MS_MAX
    }

    /// Whether it will last if nothing more is done to it.
    pub(crate) fn is_sound(&self, now_ms: u64) -> bool {
        let settled = self.healed_ms == 0 || now_ms > self.healed_ms + HEALED_MS;
        self.console_open && self.answers_pings && self.stall.is_none() && !self.broken && settled
    }

    /// The next frame that has arrived at the console.
    pub(crate) fn take_up(&mut self, now_ms: u64) -> Option<Up> {
        let (at_ms, _) = self.up.front()?;
        (*at_ms <= now_ms).then(|| self.up.pop_front()).flatten().map(|(_, frame)| frame)
    }

    /// The next frame that has arrived at the agent.
    pub(crate) fn take_down(&mut self, now_ms: u64) -> Option<Down> {
        let (at_ms, _) = self.down.front()?;
        (*at_ms <= now_ms).then(|| self.down.pop_front()).flatten().map(|(_, frame)| frame)
    }

    /// Ends a stall that lasted: what was being written goes on from there.
    pub(crate) fn heal(&mut self, now_ms: u64) -> Option<u64> {
        let (from_ms, _) = self.stall.take()?;
        self.stuck_bytes = 0;
        let stood_ms = now_ms.saturating_sub(from_ms);
        self.dead_since_ms = None;
        self.healed_ms = now_ms;
        let batch = self.batch.as_mut()?;
        let stood_ms = stood_ms.min(now_ms.saturating_sub(batch.from_ms));
        batch.from_ms += stood_ms;
        batch.until_ms = (batch.until_ms + stood_ms).max(now_ms);
        self.free_ms = self.free_ms.max(batch.until_ms);
        Some(batch.until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_in_order_after_their_bytes_and_the_way() {
        let mut wire = Wire::new(LinkId(1), 20, 10, 0);
        assert_eq!(wire.send_up(0, Up::Close(1), 1_000), 120);
        assert_eq!(wire.send_up(50, Up::Close(2), 100), 130);
        assert_eq!(wire.take_up(119), None);
        assert_eq!(wire.take_up(130), Some(Up::Close(1)));
        assert_eq!(wire.take_up(130), Some(Up::Close(2)));
    }

    #[test]
    fn stalled_socket_goes_on_where_it_stood() {
        let mut wire = Wire::new(LinkId(1), 0, 10, 0);
        wire.send_up(0, Up::Reset, 1_000);
        assert_eq!(wire.begin_batch(0, 1_000), 100);
        wire.stall = Some((40, 1_000));
        wire.harmed = true;
        assert_eq!((wire.taken_bytes(30), wire.taken_bytes(900)), (300, 400));
        assert_eq!(wire.heal(1_000), Some(1_060));
        assert_eq!((wire.taken_bytes(1_030), wire.taken_bytes(1_060)), (700, 1_000));
    }
}
