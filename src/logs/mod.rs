//! Logs of the instance on their way to the console.
//!
//! | file | what it does |
//! |---|---|
//! | [`splitter`] | cuts bytes into records, stack traces included |
//! | [`record`] | turns a record into a line of the wire |
//! | [`time`], [`level`] | find the time and the level in a line |
//!
//! Wire: CONSOLE.md, "Logs".

pub mod level;
pub mod record;
pub mod splitter;
pub mod time;
