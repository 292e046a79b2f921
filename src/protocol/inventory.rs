//! What software the instance runs: its distribution and Sindri's extensions, as the registration and the heartbeat
//! name them.
//!
//! It reads nothing. Invariant: no text is empty or holds a control character, and no list holds more than
//! [`EXTENSIONS_MAX`] names of [`NAME_CHARACTERS_MAX`] characters: one NUL in them keeps the production console from
//! healing the instance (CONSOLE.md, "Heartbeats").

#[cfg(test)]
use super::schema;
use serde::Serialize;

/// Most extensions that are named; the production console's registration takes no more.
pub const EXTENSIONS_MAX: usize = 200;

/// Longest name of a distribution or an extension, in characters; the production console's registration takes no more.
pub const NAME_CHARACTERS_MAX: usize = 128;

/// The distributions that the production console's registration takes. It answers 422 to any other.
pub(super) const REGISTRABLE_DISTROS: &[&str] = &["ubuntu", "fedora", "opensuse"];

/// What is known of the instance's software.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Inventory {
    /// The `ID` of os-release(5), or the name of the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<schema::Name>"))]
    distro: Option<String>,
    /// Names of Sindri's extensions, sorted, each once; left out where no ledger of extensions is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<schema::Names>"))]
    extensions: Option<Vec<String>>,
}

impl Inventory {
    /// Cleans the names. Extensions are sorted, each once; a name that is too long is left out, because a part of it
    /// would name another extension.
    pub fn new(distro: Option<&str>, extensions: Option<Vec<String>>) -> Self {
        let extensions = extensions.map(|names| {
            let mut names: Vec<String> = names.iter().filter_map(|name| clean(name)).collect();
            names.sort_unstable();
            names.dedup();
            names.truncate(EXTENSIONS_MAX);
            names
        });
        Self { distro: distro.and_then(clean), extensions }
    }

    /// The part that a registration may hold.
    pub(super) fn registrable(&self) -> (Option<&str>, Option<&[String]>) {
        let distro = self.distro.as_deref().filter(|distro| REGISTRABLE_DISTROS.contains(distro));
        (distro, self.extensions.as_deref())
    }
}

/// The text without control characters and surrounding white space; `None` if nothing is left, or too much.
fn clean(name: &str) -> Option<String> {
    let name: String = name.chars().filter(|character| !character.is_control()).collect();
    let name = name.trim();
    (!name.is_empty() && name.chars().count() <= NAME_CHARACTERS_MAX).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn names_are_cleaned_sorted_and_bounded() {
        let names = ["b\0", "a\n", " ", "b", "", "é"].map(str::to_owned);
        let long = "x".repeat(NAME_CHARACTERS_MAX + 1);
        let inventory = Inventory::new(Some("ubu\0ntu "), Some(names.into_iter().chain([long]).collect()));
        let value = serde_json::to_value(inventory).expect("it encodes");
        assert_eq!(value, json!({"distro": "ubuntu", "extensions": ["a", "b", "é"]}));
        let many = (0..EXTENSIONS_MAX + 9).map(|number| number.to_string()).collect();
        let many = serde_json::to_value(Inventory::new(None, Some(many))).expect("it encodes");
        assert_eq!(many["extensions"].as_array().map(Vec::len), Some(EXTENSIONS_MAX));
    }

    #[test]
    fn unknown_is_left_out_and_none_is_an_empty_list() {
        let value = |inventory: Inventory| serde_json::to_value(inventory).expect("it encodes");
        assert_eq!(value(Inventory::default()), json!({}));
        assert_eq!(value(Inventory::new(Some(""), Some(Vec::new()))), json!({"extensions": []}));
    }

    #[test]
    fn registration_takes_three_distributions() {
        for (distro, expected) in [("ubuntu", Some("ubuntu")), ("debian", None), ("opensuse", Some("opensuse"))] {
            assert_eq!(Inventory::new(Some(distro), None).registrable(), (expected, None));
        }
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_that_the_console_stores(
            distro: String, names in proptest::collection::vec(any::<String>(), 0..9),
        ) {
            let value = serde_json::to_value(Inventory::new(Some(&distro), Some(names))).expect("it encodes");
            let texts = value["extensions"].as_array().into_iter().flatten().chain(value.get("distro"));
            for text in texts.map(Value::as_str) {
                let text = text.expect("a text");
                prop_assert!(!text.is_empty() && !text.contains('\0') && text.chars().count() <= NAME_CHARACTERS_MAX);
            }
        }
    }
}
