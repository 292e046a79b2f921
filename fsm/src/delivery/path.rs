//! A model of the way to the console, and the window that follows from it: how much may be under way.
//!
//! It follows BBR (draft-ietf-ccwg-bbr): the way has a bandwidth and a minimum round trip, each
//! can be measured only while the other is not, and their product is what the way holds. As there, samples of bandwidth
//! run from one acknowledgement to another, a maximum over some round trips is kept, a sample that the application
//! limits lowers nothing, and the window doubles each round trip at the start of a flood. It differs where TCP below it
//! already paces and repairs: losses cannot be seen here, so only round trips show a queue.
//!
//! | phase | window | ends |
//! |---|---|---|
//! | startup | three times that of cruise | round trips show a queue, or three full rounds bring no growth |
//! | cruise | what arrives in a minimum round trip and the queue's time | each fifth full round; a long one; growth |
//! | dip | 0.9 of what arrives in a minimum round trip | one Ping is sent: its round trip is the way's |
//! | search | a quarter each round trip | that no longer shortens the round trip, which is the way's |
//!
//! A dip costs a tenth of a round trip in five: at most 2 % of throughput. It finds that the way became shorter. A
//! round trip that is too long may be a queue, if the link became slower, or the way itself; the search shows which:
//! the round trip falls with the window, or it does not.
//!
//! Invariants: the window is within [`LINK_WINDOW_BYTES_MIN`] and [`LINK_WINDOW_BYTES_MAX`], but in a search, where it
//! may go down to [`SEARCH_BYTES_MIN`]. Units: encoded bytes, milliseconds, bytes a second.

use super::{LINK_WINDOW_BYTES_MAX, LINK_WINDOW_BYTES_MIN};
use crate::time::Time;
use core::hash::{Hash, Hasher};

/// The queue that the window allows beside what the way holds, in milliseconds of the way's bandwidth: enough for the
/// agent and the console to be scheduled late, and half of what a user of another terminal may have to wait.
pub const QUEUE_TARGET_MS: u64 = 50;

/// The same where the way takes no time, in milliseconds: two turns of a busy console on this machine or beside it. It
/// grows with three times the round trip.
const QUEUE_TARGET_MS_MIN: u64 = 3;

/// A round trip so much longer than the minimum shows a queue, or another way, in milliseconds.
const LONG_MS: u64 = 2 * QUEUE_TARGET_MS;

/// A sample of bandwidth takes at least so long, in milliseconds: the clock counts whole ones, so it is exact to 4 %.
const ROUND_MS_MIN: u64 = 25;

/// How many full rounds a sample of bandwidth counts for: as BBR's filter, near enough.
const ROUNDS_KEPT: usize = 8;

/// In startup the window is so many times that of cruise. An acknowledgement is for what was sent a round trip ago, so
/// this doubles what is delivered each round trip; BBR has 2.77.
const STARTUP_GAIN: u64 = 3;

/// So many full rounds without a quarter more end the startup.
const FLAT_ROUNDS_MAX: u8 = 3;

/// So many long rounds in a row begin a search: what goes out at once after a search may make one.
const LONG_ROUNDS_MAX: u8 = 2;

/// Round trips that are much longer still, and stay so for this time, begin a search, in milliseconds. A console that
/// was busy answers all that waits at once.
const LONG_LASTS_MS: u64 = 50;

/// A dip comes after so many full rounds of cruise.
const CRUISE_ROUNDS: u8 = 4;

/// The shortest way that is worth a dip, in milliseconds: on a shorter one the queue is what counts.
const DIP_WAY_MS_MIN: u64 = 20;

/// A search for a longer way comes no sooner after another, in milliseconds, nor sooner than after fifty round trips.
const SEARCH_EVERY_MS: u64 = 10_000;

/// The least that a search goes down to, in encoded bytes: four frames of the shortest.
pub const SEARCH_BYTES_MIN: u64 = 16 << 10;

/// What is known of the way.
#[derive(Clone, Debug)]
pub(super) struct PathModel {
    round_trip_ms_min: Option<u64>,
    /// Bytes a second, of the last rounds.
    samples: [u64; ROUNDS_KEPT],
    newest: usize,
    delivered: u64,
    delivered_at: Time,
    /// When that was sent which was acknowledged last.
    delivered_sent_at: Time,
    round: Option<Round>,
    /// The window was used up in this round: what limits the flood is not its source.
    full: bool,
    phase: Phase,
    searched_at: Time,
    /// Since when round trips are long though no more is under way than the window allows.
    long_since: Option<Time>,
    /// The window became smaller, and more than that is still under way.
    shrinks: bool,
    /// The way is empty after a search: a whole window of cruise at once would wait for itself.
    refills: bool,
    /// The first Ping since no more is; 0 once it or a later one is answered.
    fair_from: u32,
    newest_ping: u32,
}

/// What is being measured, until a Pong answers this Ping or a later one.
#[derive(Clone, Copy, Debug)]
struct Round {
    ping: u32,
    since: Time,
    sent_since: Time,
    delivered: u64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Startup {
        flat: u8,
        best: u64,
    },
    Cruise {
        full: u8,
        long: u8,
        /// One round that gives much more than is known, and no queue, begins a startup. Where what is known may be too
        /// low, it takes two in a row: the first corrects that, and a startup would only make a queue.
        trusted: bool,
    },
    Dip {
        ping: Option<u32>,
        /// The dip before found a shorter way.
        shorter: bool,
    },
    Search {
        window: u64,
        ping: Option<u32>,
        before_ms: u64,
        /// Where the link may have become slower: the round trip that showed it, and the greatest sample since.
        slower: Option<(u64, u64)>,
        /// All that was under way is acknowledged once so much is delivered.
        drained_at: u64,
        /// When it began, and what was delivered by then.
        since: (Time, u64),
    },
}

impl Default for PathModel {
    fn default() -> Self {
        Self {
            round_trip_ms_min: None,
            samples: [0; ROUNDS_KEPT],
            newest: 0,
            delivered: 0,
            delivered_at: Time::START,
            delivered_sent_at: Time::START,
            round: None,
            full: false,
            phase: Phase::Startup { flat: 0, best: 0 },
            searched_at: Time::START,
            long_since: None,
            shrinks: false,
            refills: false,
            fair_from: 0,
            newest_ping: 0,
        }
    }
}

/// Of what grows for ever, which is what was delivered and the numbers of Pings, only distances matter. The times of
/// acknowledgements are [hashed](PathModel::hash_times) apart.
impl Hash for PathModel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { round_trip_ms_min, samples, newest, delivered, round, .. } = self;
        let Self { full, phase, searched_at, long_since, shrinks, refills, fair_from, newest_ping, .. } = self;
        let behind = |ping: &u32| newest_ping.wrapping_sub(*ping);
        (round_trip_ms_min, samples, newest, full, shrinks, refills, searched_at).hash(state);
        // Long round trips count from the end of the startup on.
        (!matches!(phase, Phase::Startup { .. })).then_some(long_since).hash(state);
        (*fair_from > 0).then(|| behind(fair_from)).hash(state);
        round.is_some().hash(state);
        if let Some(Round { ping, since, sent_since, delivered: at_start }) = round {
            (behind(ping), since, sent_since, delivered - at_start).hash(state);
        }
        core::mem::discriminant(phase).hash(state);
        match phase {
            Phase::Startup { flat, best } => (flat, best).hash(state),
            Phase::Cruise { full, long, trusted } => (full, long, trusted).hash(state),
            Phase::Dip { ping, shorter } => (ping.as_ref().map(behind), shorter).hash(state),
            Phase::Search { window, ping, before_ms, slower, drained_at, since: (since, from) } => {
                (window, ping.as_ref().map(behind), before_ms, slower, drained_at.saturating_sub(*delivered))
                    .hash(state);
                (since, delivered - from).hash(state);
            }
        }
    }
}

impl Phase {
    /// Cruise at its beginning.
    const fn cruise(trusted: bool) -> Self {
        Self::Cruise { full: 0, long: 0, trusted }
    }
}

impl PathModel {
    /// Hashes when bytes were acknowledged: where none are under way, the first that are sent start both times again.
    pub(super) fn hash_times<H: Hasher>(&self, in_flight: u64, state: &mut H) {
        (in_flight > 0).then_some((self.delivered_at, self.delivered_sent_at)).hash(state);
    }

    /// How much may be under way.
    pub(super) fn window(&self) -> u64 {
        match self.phase {
            Phase::Startup { .. } => {
                (STARTUP_GAIN * self.cruise_bytes()).clamp(LINK_WINDOW_BYTES_MIN, LINK_WINDOW_BYTES_MAX)
            }
            Phase::Cruise { .. } if self.refills => {
                self.dip_bytes().clamp(LINK_WINDOW_BYTES_MIN, LINK_WINDOW_BYTES_MAX)
            }
            Phase::Cruise { .. } | Phase::Dip { ping: Some(_), .. } => {
                self.cruise_bytes().clamp(LINK_WINDOW_BYTES_MIN, LINK_WINDOW_BYTES_MAX)
            }
            Phase::Dip { ping: None, .. } => self.dip_bytes().clamp(LINK_WINDOW_BYTES_MIN, LINK_WINDOW_BYTES_MAX),
            Phase::Search { window, .. } => window,
        }
    }

    /// Something was sent, so much is under way with it, and so much of its stream waits.
    pub(super) fn sent(&mut self, now: Time, bytes: u64, in_flight: u64, waiting: u64) {
        if in_flight <= bytes {
            (self.delivered_at, self.delivered_sent_at) = (now, now);
        }
        // What waits counts: the socket may take less at a time than the window allows. And a source stops reading
        // a little before the window is used up.
        self.full |= in_flight + waiting >= self.window() / 4 * 3;
    }

    /// Whether a Ping should follow what was just sent: the queue is gone, and it measures the way.
    pub(super) fn wants_ping(&self, in_flight: u64) -> bool {
        match self.phase {
            Phase::Dip { ping: None, .. } => in_flight <= self.window(),
            // Interactive output goes on whatever the window is.
            Phase::Search { ping: None, drained_at, .. } => in_flight <= self.window() || self.delivered >= drained_at,
            Phase::Startup { .. } | Phase::Cruise { .. } | Phase::Dip { .. } | Phase::Search { .. } => false,
        }
    }

    /// A Ping was sent.
    pub(super) fn pinged(&mut self, ping: u32, in_flight: u64) {
        self.newest_ping = ping;
        if self.shrinks && in_flight <= self.window() / 8 * 9 {
            (self.shrinks, self.fair_from) = (false, ping);
        }
        let measures = self.wants_ping(in_flight);
        if let Phase::Dip { ping: awaited, .. } | Phase::Search { ping: awaited, .. } = &mut self.phase
            && measures
        {
            *awaited = Some(ping);
        }
        if self.round.is_none() && in_flight > 0 {
            let (since, sent_since) = (self.delivered_at, self.delivered_sent_at);
            self.round = Some(Round { ping, since, sent_since, delivered: self.delivered });
        }
    }

    /// Bytes were acknowledged.
    pub(super) fn acknowledged(&mut self, now: Time, bytes: u64) {
        self.delivered += bytes;
        self.delivered_at = now;
    }

    /// A Pong arrived to a Ping that was sent at `sent_at`, after what it acknowledges was counted.
    pub(super) fn ponged(&mut self, now: Time, ping: u32, sent_at: Time, in_flight: u64) {
        let round_trip_ms = now.ms_since(sent_at);
        let known_ms = self.round_trip_ms_min.unwrap_or(round_trip_ms);
        self.round_trip_ms_min = Some(known_ms.min(round_trip_ms));
        if let Some(round) = self.round.filter(|round| round.ping <= ping) {
            // Acknowledgements may come closer together than what they are for was sent, and then say too much.
            let took_ms = self.delivered_at.ms_since(round.since).max(sent_at.ms_since(round.sent_since));
            if took_ms >= ROUND_MS_MIN {
                self.round = None;
                let sample = (self.delivered - round.delivered).saturating_mul(1_000) / took_ms;
                self.end_round(now, sample, round_trip_ms, in_flight);
            }
        }
        self.delivered_sent_at = self.delivered_sent_at.max(sent_at);
        // A window that goes out at once waits for itself.
        let is_fair = self.fair_from <= ping;
        if is_fair {
            self.fair_from = 0;
        }
        let is_long = round_trip_ms > 2 * self.way_ms() + LONG_MS && !self.shrinks && is_fair;
        self.long_since = is_long.then(|| self.long_since.unwrap_or(now));
        match self.phase {
            Phase::Cruise { .. } | Phase::Dip { .. }
                if self.long_since.is_some_and(|since| now.ms_since(since) >= LONG_LASTS_MS)
                    && self.cruise_bytes() > LINK_WINDOW_BYTES_MIN =>
            {
                self.search(now, in_flight, Some((round_trip_ms, 0)));
            }
            Phase::Dip { ping: Some(awaited), shorter } if awaited <= ping => {
                self.end_dip(now, known_ms, round_trip_ms, in_flight, shorter);
            }
            Phase::Search { ping: Some(awaited), .. } if awaited <= ping => {
                self.search_on(now, round_trip_ms, in_flight);
            }
            Phase::Startup { .. } | Phase::Cruise { .. } | Phase::Dip { .. } | Phase::Search { .. } => {}
        }
    }

    /// Time that the process did not live through does not count.
    pub(super) fn shift_ms(&mut self, ms: u64) {
        self.delivered_at = self.delivered_at.after_ms(ms);
        self.delivered_sent_at = self.delivered_sent_at.after_ms(ms);
        self.round = None;
    }

    fn end_round(&mut self, now: Time, sample: u64, round_trip_ms: u64, in_flight: u64) {
        let full = core::mem::take(&mut self.full);
        self.refills = false;
        let is_long = round_trip_ms > self.way_ms() + LONG_MS;
        let known = self.bandwidth();
        // The queue allows for so much more in a round: on a long way little.
        let is_long_way = self.way_ms() >= LONG_MS;
        let more = if is_long_way { 8 } else { 4 };
        let grows = full && !is_long && sample > known + known / more;
        match &mut self.phase {
            Phase::Startup { flat, best } => {
                if sample > *best + *best / 4 {
                    (*flat, *best) = (0, sample);
                } else if full {
                    *flat += 1;
                }
                if is_long || *flat >= FLAT_ROUNDS_MAX {
                    self.cruise();
                    self.shrinks = true;
                }
                self.keep(sample, full);
            }
            Phase::Cruise { trusted: true, .. } if grows => {
                self.phase = Phase::Startup { flat: 0, best: sample };
                self.keep(sample, full);
            }
            Phase::Cruise { full: rounds, long, trusted } => {
                // On a short way samples are short, and far from exact; but a window can grow sixfold.
                *trusted = grows || *trusted && is_long_way;
                *rounds += u8::from(full);
                *long = if is_long { *long + 1 } else { 0 };
                let stays_long = *long >= LONG_ROUNDS_MAX;
                let is_time = *rounds >= CRUISE_ROUNDS;
                self.keep(sample, full);
                if stays_long && self.cruise_bytes() > LINK_WINDOW_BYTES_MIN {
                    self.search(now, in_flight, Some((round_trip_ms, 0)));
                } else if is_time {
                    let is_worth_it = self.way_ms() >= DIP_WAY_MS_MIN && self.dip_bytes() > LINK_WINDOW_BYTES_MIN;
                    self.phase = if is_worth_it {
                        Phase::Dip { ping: None, shorter: false }
                    } else {
                        Phase::cruise(is_long_way)
                    };
                }
            }
            Phase::Search { slower: Some((_, best)), .. } => *best = sample.max(*best),
            Phase::Dip { .. } | Phase::Search { slower: None, .. } => {}
        }
    }

    fn end_dip(&mut self, now: Time, known_ms: u64, round_trip_ms: u64, in_flight: u64, shorter: bool) {
        let is_shorter = round_trip_ms + 2 + known_ms / 32 < known_ms;
        let is_longer = round_trip_ms > known_ms + 5 + known_ms / 8;
        let searched_lately = now.ms_since(self.searched_at) < SEARCH_EVERY_MS.max(50 * known_ms);
        // A way that is shorter was measured with a queue before. One that is shorter a second time is mostly queue.
        if is_shorter && shorter || is_longer && !searched_lately {
            let is_slower = round_trip_ms > known_ms + LONG_MS;
            self.search(now, in_flight, is_slower.then_some((round_trip_ms, 0)));
        } else if is_shorter {
            self.phase = Phase::Dip { ping: None, shorter: true };
        } else {
            self.cruise();
        }
    }

    fn cruise(&mut self) {
        self.phase = Phase::cruise(self.way_ms() >= LONG_MS);
        self.long_since = None;
    }

    fn search(&mut self, now: Time, in_flight: u64, slower: Option<(u64, u64)>) {
        let window = (in_flight.min(self.window()) / 4).max(SEARCH_BYTES_MIN);
        let (since, drained_at) = ((now, self.delivered), self.delivered + in_flight);
        self.phase = Phase::Search { window, ping: None, before_ms: u64::MAX, slower, drained_at, since };
        self.round = None;
    }

    fn search_on(&mut self, now: Time, round_trip_ms: u64, in_flight: u64) {
        let Phase::Search { window, before_ms, slower, since, .. } = self.phase else { return };
        // The first one has nothing to be compared with.
        if round_trip_ms < before_ms - before_ms / 8 && window > SEARCH_BYTES_MIN {
            let window = (window / 4).max(SEARCH_BYTES_MIN);
            let drained_at = self.delivered + in_flight;
            self.phase = Phase::Search { window, ping: None, before_ms: round_trip_ms, slower, drained_at, since };
            return;
        }
        let known_ms = self.way_ms();
        self.round_trip_ms_min = Some(round_trip_ms.min(before_ms));
        // The round trip was long for the queue more than for the way.
        if let Some((_, best)) = slower.filter(|(long_ms, _)| 2 * round_trip_ms < known_ms + long_ms) {
            let took_ms = now.ms_since(since.0).max(1);
            let mean = (self.delivered - since.1).saturating_mul(1_000) / took_ms;
            self.samples = [best.max(mean); ROUNDS_KEPT];
            self.cruise();
            // A mean of what was sent with a small window, too, is too low.
            self.phase = Phase::cruise(false);
        } else {
            self.cruise();
            self.refills = true;
        }
        self.searched_at = now;
        self.round = None;
        self.full = false;
    }

    /// Takes in a sample; one that the application limits counts only if it is the greatest.
    fn keep(&mut self, sample: u64, full: bool) {
        if full || sample > self.bandwidth() {
            self.newest = (self.newest + 1) % ROUNDS_KEPT;
            self.samples[self.newest] = sample;
        }
    }

    /// Bytes a second.
    fn bandwidth(&self) -> u64 {
        self.samples.into_iter().fold(0, u64::max)
    }

    fn way_ms(&self) -> u64 {
        self.round_trip_ms_min.unwrap_or(0)
    }

    fn cruise_bytes(&self) -> u64 {
        let queue_ms = QUEUE_TARGET_MS.min(QUEUE_TARGET_MS_MIN + 3 * self.way_ms());
        self.bandwidth().saturating_mul(self.way_ms() + queue_ms) / 1_000
    }

    fn dip_bytes(&self) -> u64 {
        self.bandwidth().saturating_mul(self.way_ms()) / 10 * 9 / 1_000
    }
}

#[cfg(test)]
mod tests;
