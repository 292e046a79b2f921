//! `heartbeat`: the instance is alive, and how it does at a glance.
//!
//! It measures nothing. The live figures have the names that the production console reads (CONSOLE.md, "Heartbeats").
//! There is deliberately no room for `sindri_version` or `cli_target`, which break that console's recovery.

use super::encode::{Payload, encode, sealed};
use super::id::InstanceId;
use super::inventory::Inventory;
use super::metrics::Live;
use super::number::Count;
use super::timestamp::Timestamp;
use serde::Serialize;

/// One heartbeat.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Heartbeat<'a> {
    /// The id by which the console knows the instance.
    pub instance_id: &'a InstanceId,
    /// The moment.
    pub timestamp: Timestamp,
    /// Whole seconds since the agent started.
    pub uptime_seconds: Count,
    /// What the console shows beside it, as soon as it was measured.
    #[serde(flatten)]
    pub live: Option<Live>,
    /// The instance's software: with the first heartbeat of a connection, and with the first after it changed.
    #[serde(flatten)]
    pub inventory: Option<&'a Inventory>,
}

impl Heartbeat<'_> {
    /// The message.
    pub fn message(&self) -> String {
        encode(self)
    }
}

impl sealed::Object for Heartbeat<'_> {}

impl Payload for Heartbeat<'_> {
    const KIND: &'static str = "heartbeat";
}
