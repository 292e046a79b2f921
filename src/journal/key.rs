//! The key of a journal: checksums and hashes.

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use std::fmt;

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;

/// A hash of an id or of an owner.
pub type Hash = u128;

/// Makes hashes that cannot be foreseen without it.
#[derive(Clone)]
pub struct Key {
    bytes: [u8; KEY_BYTES],
    hmac: hmac::Key,
}

impl Key {
    /// A new one.
    pub fn random() -> Self {
        let mut bytes = [0; KEY_BYTES];
        // Where the kernel gives none, the standard library still has what it seeded its tables with.
        if SystemRandom::new().fill(&mut bytes).is_err() {
            use std::hash::{BuildHasher as _, Hasher as _, RandomState};
            for part in bytes.chunks_mut(8) {
                part.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
            }
        }
        Self::of(bytes)
    }

    pub(super) fn of(bytes: [u8; KEY_BYTES]) -> Self {
        Self { hmac: hmac::Key::new(hmac::HMAC_SHA256, &bytes), bytes }
    }

    /// Its bytes, for the file and for the program that takes over.
    pub const fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// The hash of the console's id of a session or command.
    pub fn id(&self, id: &str) -> Hash {
        self.hash(&[b"id", id.as_bytes()])
    }

    /// The hash of an owner: the console's URL, the configured id, and the console's id if it gave one.
    pub fn owner(&self, console: &str, configured: &str, given: Option<&str>) -> Hash {
        self.hash(&[b"owner", console.as_bytes(), configured.as_bytes(), given.unwrap_or_default().as_bytes()])
    }

    /// The hash of a text that is no id.
    pub(super) fn text(&self, text: &[u8]) -> Hash {
        self.hash(&[b"text", text])
    }

    /// The checksum of a payload.
    pub(super) fn checksum(&self, payload: &[u8]) -> [u8; 8] {
        let tag = hmac::sign(&self.hmac, payload);
        *tag.as_ref().first_chunk().expect("a SHA-256 has 32 bytes")
    }

    fn hash(&self, parts: &[&[u8]]) -> Hash {
        let mut context = hmac::Context::with_key(&self.hmac);
        for part in parts {
            context.update(part);
            // No part holds a NUL, so that two lists never make one text.
            context.update(&[0]);
        }
        let tag = context.sign();
        u128::from_le_bytes(*tag.as_ref().first_chunk().expect("a SHA-256 has 32 bytes"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key")
    }
}
