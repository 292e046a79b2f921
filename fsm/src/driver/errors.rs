//! How often an error is reported: each cause once a minute, for neither the network nor the disk is the console's to
//! fill.

use super::output::{Action, ErrorEvent};
use super::ports::Body;
use super::{Driver, NoteId, Todo};
use crate::time::Time;
use alloc::collections::VecDeque;

/// Each cause is reported at most once in this time.
pub const ERROR_INTERVAL_MS: u64 = 60_000;

/// How many causes are remembered. When more appear within a minute, the oldest is forgotten and may be reported again.
pub const CAUSES_MAX: usize = 64;

/// The causes that were reported within the last minute.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct ErrorRateLimiter {
    reported: VecDeque<(u64, Time)>,
}

impl ErrorRateLimiter {
    /// Whether `cause` may be reported now; if so, it counts as reported.
    pub(super) fn allow(&mut self, now: Time, cause: u64) -> bool {
        while self.reported.front().is_some_and(|(_, at)| now.ms_since(*at) >= ERROR_INTERVAL_MS) {
            self.reported.pop_front();
        }
        if self.reported.iter().any(|(known, _)| *known == cause) {
            return false;
        }
        if self.reported.len() == CAUSES_MAX {
            self.reported.pop_front();
        }
        self.reported.push_back((cause, now));
        true
    }
}

impl ErrorEvent {
    /// A number that identifies its cause. The adapter's notes have their own.
    const fn cause(self) -> u64 {
        match self {
            Self::Note(_) | Self::Gap(_) | Self::Drops(_) => 0,
            Self::SessionRefused(_, refusal) => 1 + refusal as u64,
            Self::SpawnFailed(_) => 16,
            Self::CommandRefused(_) => 17,
            Self::Exhausted(_) => 18,
            Self::AuditUnavailable => 19,
        }
    }
}

impl<B: Body> Driver<B> {
    /// Reports an error unless its cause was reported within the last minute.
    pub(super) fn report(&mut self, now: Time, event: ErrorEvent) {
        if self.errors.allow(now, event.cause()) {
            self.todo.push_back(Todo::Error(event));
        }
    }

    /// Reports a text of the adapter's likewise; without a cause always.
    pub(super) fn note(&mut self, now: Time, note: NoteId, cause: Option<u64>) {
        if cause.is_none_or(|cause| self.errors.allow(now, cause)) {
            self.todo.push_back(Todo::Error(ErrorEvent::Note(note)));
        } else {
            self.out(Action::DropNote { note });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_is_allowed_once_a_minute() {
        let mut limiter = ErrorRateLimiter::default();
        assert!(limiter.allow(Time::START, 1));
        assert!(limiter.allow(Time::START, 2));
        assert!(!limiter.allow(Time::from_ms(59_999), 1));
        assert!(limiter.allow(Time::from_ms(60_000), 1));
    }

    #[test]
    fn remembered_causes_are_bounded() {
        let mut limiter = ErrorRateLimiter::default();
        for cause in 0..10_000 {
            assert!(limiter.allow(Time::START, cause));
            assert!(limiter.reported.len() <= CAUSES_MAX);
        }
    }
}
