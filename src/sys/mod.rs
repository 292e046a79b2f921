//! The only unsafe code.

pub mod socket;
