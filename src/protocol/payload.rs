//! Reads the fields of a payload one by one, leniently.
//!
//! It knows JSON, not messages. A field is read only by who needs it, so that a wrong type in one never hides another:
//! a dispatch with nonsense in `args` still has its `command_id`. Unknown fields are ignored, `null` is absent, and
//! a known field that stands there twice is a fault. Values are borrowed from the frame as far as they need no
//! unescaping.

use super::fault::Fault;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Most texts of a list. No program takes more arguments of ordinary length, and a list of empty ones would take eight
/// times the memory of its frame.
pub(super) const LIST_LENGTH_MAX: usize = 65_536;

/// The known fields of one payload, as they stand there.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    found: Vec<(&'static str, &'a RawValue)>,
    faults: Vec<Fault>,
}

impl<'a> Fields<'a> {
    /// Finds `names` in a payload. A payload that is missing or null has none of them.
    pub(super) fn read(payload: Option<&'a RawValue>, names: &'static [&'static str]) -> Self {
        let Some(payload) = payload.filter(|payload| payload.get() != "null") else {
            return Self::default();
        };
        let mut json = serde_json::Deserializer::from_str(payload.get());
        match json.deserialize_map(FieldsVisitor { names }) {
            Ok(fields) => fields,
            // The frame is known to be JSON, so what remains is that it is no object, or a key that is no text.
            Err(_) => Self { found: Vec::new(), faults: vec![Fault::NotAnObject] },
        }
    }

    /// What was wrong so far; each further read adds to it.
    pub(super) fn take_faults(&mut self) -> Vec<Fault> {
        std::mem::take(&mut self.faults)
    }

    /// One field as it stands there; `None` where it is absent or null.
    pub(super) fn raw(&self, name: &'static str) -> Option<&'a RawValue> {
        let found = self.found.iter().find(|(field, _)| *field == name);
        found.map(|(_, raw)| *raw).filter(|raw| raw.get() != "null")
    }

    /// A text that may be absent; an empty one counts as absent.
    pub(super) fn text(&self, field: &'static str) -> Result<Option<Cow<'a, str>>, Fault> {
        let Some(raw) = self.raw(field) else {
            return Ok(None);
        };
        let text = Text::read(raw).ok_or(Fault::WrongType { field, wanted: "a string" })?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// A text for the operating system, which takes no NUL; an empty one counts as absent.
    pub(super) fn argument(&self, field: &'static str) -> Result<Option<String>, Fault> {
        match self.text(field)? {
            Some(text) if text.contains('\0') => Err(Fault::Nul { field }),
            text => Ok(text.map(Cow::into_owned)),
        }
    }

    /// Any JSON number; `None` where it is absent. One too large for a float is infinite.
    pub(super) fn number(&self, field: &'static str) -> Result<Option<f64>, Fault> {
        let Some(raw) = self.raw(field) else {
            return Ok(None);
        };
        number(raw).map(Some).ok_or(Fault::WrongType { field, wanted: "a number" })
    }

    /// A flag; `false` where it is absent.
    pub(super) fn flag(&self, field: &'static str) -> Result<bool, Fault> {
        match self.raw(field).map(RawValue::get) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Fault::WrongType { field, wanted: "true or false" }),
        }
    }

    /// A list of texts; empty where it is absent.
    pub(super) fn texts(&self, field: &'static str) -> Result<Vec<String>, Fault> {
        let Some(raw) = self.raw(field) else {
            return Ok(Vec::new());
        };
        let mut json = serde_json::Deserializer::from_str(raw.get());
        json.deserialize_seq(TextsVisitor)
            .map_err(|_| Fault::WrongType { field, wanted: "a list of at most 65,536 strings" })
    }
}

/// The number that a value is, if it is one.
fn number(raw: &RawValue) -> Option<f64> {
    let text = raw.get();
    let is_number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// A JSON text, borrowed where it holds no escapes.
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'a> Text<'a> {
    /// The text that a value is, if it is one.
    pub(super) fn read(raw: &'a RawValue) -> Option<Cow<'a, str>> {
        serde_json::from_str::<Text<'a>>(raw.get()).ok().map(|text| text.0)
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

struct FieldsVisitor {
    names: &'static [&'static str],
}

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields { found: Vec::with_capacity(self.names.len()), faults: Vec::new() };
        while let Some(Text(key)) = map.next_key()? {
            let Some(&field) = self.names.iter().find(|name| **name == key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value: &'de RawValue = map.next_value()?;
            if fields.found.iter().any(|(name, _)| *name == field) {
                let fault = Fault::Twice { field };
                if !fields.faults.contains(&fault) {
                    fields.faults.push(fault);
                }
            } else {
                fields.found.push((field, value));
            }
        }
        // A field of which there are two has no value: either could be meant.
        let Fields { found, faults } = &mut fields;
        found.retain(|(field, _)| !faults.contains(&Fault::Twice { field }));
        Ok(fields)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Vec<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
        let mut texts = Vec::new();
        while let Some(Text(text)) = list.next_element()? {
            if texts.len() == LIST_LENGTH_MAX {
                return Err(serde::de::Error::invalid_length(LIST_LENGTH_MAX + 1, &self));
            }
            texts.push(text.into_owned());
        }
        texts.shrink_to_fit(); // What is made of it stands beside it, and both must fit.
        Ok(texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_fields(payload: &str, check: impl FnOnce(Fields<'_>)) {
        let raw: &RawValue = serde_json::from_str(payload).expect("JSON");
        check(Fields::read(Some(raw), &["a", "b"]));
    }

    #[test]
    fn fields_are_independent_of_each_other() {
        with_fields(r#"{"a":[1],"b":"text","c":{"a":1}}"#, |fields| {
            assert!(fields.text("a").is_err());
            assert_eq!(fields.text("b"), Ok(Some("text".into())));
        });
    }

    #[test]
    fn null_and_empty_are_absent() {
        with_fields(r#"{"a":null,"b":""}"#, |fields| {
            assert_eq!(fields.number("a"), Ok(None));
            assert_eq!(fields.text("b"), Ok(None));
        });
    }

    #[test]
    fn a_known_field_twice_has_no_value() {
        with_fields(r#"{"a":1,"\u0061":2,"a":3,"c":1,"c":2,"b":4}"#, |mut fields| {
            assert_eq!(fields.raw("a").map(RawValue::get), None);
            assert_eq!(fields.number("b"), Ok(Some(4.0)));
            assert_eq!(fields.take_faults(), [Fault::Twice { field: "a" }]);
        });
    }

    #[test]
    fn non_object_payload_is_a_fault() {
        for payload in ["[]", "1", "\"x\"", "true"] {
            with_fields(payload, |mut fields| {
                assert_eq!(fields.take_faults(), [Fault::NotAnObject]);
            });
        }
    }

    #[test]
    fn numbers_of_any_size_are_numbers() {
        with_fields(r#"{"a":1e999,"b":-0.5}"#, |fields| {
            assert_eq!(fields.number("a"), Ok(Some(f64::INFINITY)));
            assert_eq!(fields.number("b"), Ok(Some(-0.5)));
        });
        with_fields(r#"{"a":"80","b":true}"#, |fields| {
            assert!(fields.number("a").is_err());
            assert!(fields.number("b").is_err());
            assert_eq!(fields.flag("b"), Ok(true));
        });
    }

    #[test]
    fn a_list_is_bounded() {
        let payload = |count| format!("{{\"a\":[{}]}}", vec!["\"\""; count].join(","));
        with_fields(&payload(LIST_LENGTH_MAX), |fields| assert!(fields.texts("a").is_ok()));
        with_fields(&payload(LIST_LENGTH_MAX + 1), |fields| assert!(fields.texts("a").is_err()));
    }

    #[test]
    fn a_list_holds_texts_only() {
        with_fields(r#"{"a":["x","y\n"],"b":["x",1]}"#, |fields| {
            assert_eq!(fields.texts("a"), Ok(vec!["x".to_owned(), "y\n".to_owned()]));
            assert!(fields.texts("b").is_err());
        });
    }
}
