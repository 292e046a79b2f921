//! The source of a world's details: bytes of the input first, then a generator.
//!
//! Only details that matter to the ledger use bytes, so that each byte counts.

use draupnir_fsm::random::Random;

/// The details.
pub(crate) struct Choices {
    bytes: std::vec::IntoIter<u8>,
    random: Random,
}

impl Choices {
    pub(crate) fn new(seed: u64, bytes: Vec<u8>) -> Self {
        Self { bytes: bytes.into_iter(), random: Random::new(seed) }
    }

    /// The next byte; `None` after the last.
    pub(crate) fn next_byte(&mut self) -> Option<u8> {
        self.bytes.next()
    }

    /// A number in `low..=high`, from as few bytes as possible, or from the generator after the last byte.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low);
        if span == 0 || self.bytes.len() == 0 {
            return self.random.between(low, high);
        }
        let wanted = usize::try_from(span.ilog2() / 8 + 1).expect("at most 8");
        let said = self.bytes.by_ref().take(wanted).fold(0, |said, byte| said << 8 | u64::from(byte));
        low + if span == u64::MAX { said } else { said % (span + 1) }
    }

    /// 64 random bits whose value does not matter; never from the bytes.
    pub(crate) fn any_u64(&mut self) -> u64 {
        self.random.next_u64()
    }
}
