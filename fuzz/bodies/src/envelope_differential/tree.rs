//! Parses a JSON text into a tree that keeps every key, in order.
//!
//! `serde_json::Value` is not enough: it keeps only the last of two equal keys, and with the feature `raw_value`, which
//! the agent uses, one special key makes it parse a string as JSON again. So this module builds its own tree with the
//! same parser. Levels of lists and objects count from 1.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// A JSON value.
#[derive(Debug)]
pub(super) enum Tree {
    Null,
    Flag(bool),
    /// Any number. Integers beyond 2⁵³ are rounded.
    Number(f64),
    Text(String),
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// Why there is no tree.
#[derive(Debug)]
pub(super) enum Unread {
    /// It cannot be read.
    NotJson,
    /// Other readers may read it, but this tree cannot hold its strings or numbers.
    BeyondThisReading,
}

impl Tree {
    pub(super) fn read(text: &str) -> Result<Self, Unread> {
        serde_json::from_str(text).map_err(|error| {
            let words = error.to_string();
            let is_beyond = ["surrogate", "hex escape", "number out of range", "recursion limit"]
                .iter()
                .any(|beyond| words.contains(beyond));
            if is_beyond { Unread::BeyondThisReading } else { Unread::NotJson }
        })
    }

    /// The depth of nested lists and objects.
    pub(super) fn depth(&self) -> u32 {
        match self {
            Self::Null | Self::Flag(_) | Self::Number(_) | Self::Text(_) => 0,
            Self::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or_default(),
            Self::Object(fields) => 1 + fields.iter().map(|(_, value)| value.depth()).max().unwrap_or_default(),
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Tree, E> {
        Ok(Tree::Flag(flag))
    }

    #[expect(clippy::cast_precision_loss, reason = "rounded like any other number")]
    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Number(number as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "rounded like any other number")]
    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Number(number as f64))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Tree, E> {
        Ok(Tree::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Tree::Object(fields))
    }
}
