//! The wire as types.
