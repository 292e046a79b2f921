//! Payloads of Pings as hexadecimal text, in recordings.

use crate::delivery::ping::PAYLOAD_BYTES;
use alloc::format;
use alloc::string::String;
use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(payload: &[u8; PAYLOAD_BYTES], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{:032x}", u128::from_be_bytes(*payload)))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; PAYLOAD_BYTES], D::Error> {
    let text = String::deserialize(deserializer)?;
    let number = Some(&text).filter(|text| text.len() == 2 * PAYLOAD_BYTES && text.is_ascii());
    let number = number.and_then(|text| u128::from_str_radix(text, 16).ok());
    number.map(u128::to_be_bytes).ok_or_else(|| D::Error::custom("a payload is 32 hexadecimal digits"))
}
