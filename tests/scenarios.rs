//! Checks every scenario in `tests/scenarios`: the driver gives exactly the outputs, states and deadlines in the file.
//!
//! [`replay`] compares. `UPDATE_SCENARIOS=1` rewrites the files with what the driver does today. Each file says in its
//! `about` which rule it shows, so an update is a separate commit that gives the reason.

use draupnir_fsm::scenario::{Scenario, parse, replay, rewritten};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Fewer scenarios than this mean that some were lost.
const STORIES_MIN: usize = 80;

/// The scenarios of one folder by their names.
fn stories() -> BTreeMap<String, PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = fs::read_dir(&folder).expect("tests/scenarios can be read");
    entries
        .map(|entry| entry.expect("tests/scenarios can be read").path())
        .map(|path| {
            assert_eq!(path.extension().and_then(|end| end.to_str()), Some("jsonl"), "{} is no story", path.display());
            let name = path.file_stem().and_then(|name| name.to_str()).expect("a story has a name").to_owned();
            (name, path)
        })
        .collect()
}

fn read(path: &Path) -> Result<Scenario, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let scenario = parse(&text).map_err(|error| error.to_string())?;
    // Files written by hand have the same form as generated ones, so that an update shows real changes only.
    if scenario.to_string() == text { Ok(scenario) } else { Err("it is not as a program writes it".to_owned()) }
}

/// Replays one scenario, or rewrites it if `update` is set.
fn check(path: &Path, update: bool) -> Result<(), String> {
    if !update {
        return replay::<usize>(&read(path)?).map(drop).map_err(|difference| difference.to_string());
    }
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let scenario = rewritten::<usize>(&parse(&text).map_err(|error| error.to_string())?);
    fs::write(path, scenario.to_string()).map_err(|error| error.to_string())?;
    // An update must not hide a broken invariant.
    replay::<usize>(&read(path)?).map(drop).map_err(|difference| difference.to_string())
}

#[test]
fn every_story_is_true() {
    let update = std::env::var_os("UPDATE_SCENARIOS").is_some_and(|value| value == "1");
    let stories = stories();
    let failures: Vec<String> = stories
        .iter()
        .filter_map(|(name, path)| Some(format!("tests/scenarios/{name}.jsonl, {}", check(path, update).err()?)))
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} stories are not true; where that is meant, UPDATE_SCENARIOS=1 rewrites them\n\n{}",
        failures.len(),
        stories.len(),
        failures.join("\n")
    );
}

#[test]
fn every_story_says_what_it_shows() {
    let stories = stories();
    assert!(stories.len() >= STORIES_MIN, "only {} stories are left", stories.len());
    let mut known: BTreeMap<String, &str> = BTreeMap::new();
    for (name, path) in &stories {
        let snake_case = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
        assert!(name.chars().all(snake_case), "{name} is not named like the others");
        let scenario = read(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let about = scenario.header.about;
        assert!(about.ends_with('.') && about.len() >= 15, "{name} does not say in a sentence what it shows");
        if let Some(other) = known.insert(about, name) {
            panic!("{name} and {other} show the same");
        }
    }
}

#[test]
fn wrong_scenario_fails_with_the_difference_and_its_line() {
    let path = stories().remove("cold_start").expect("the first of all stories");
    let text = fs::read_to_string(path).expect("it can be read");
    let wrong = text.replacen(r#"{"dial":{"link":1}}"#, r#"{"dial":{"link":2}},"exit""#, 1);
    let scenario = parse(&wrong).expect("it is still well-formed");
    let difference = replay::<usize>(&scenario).expect_err("it is no longer true").to_string();
    for part in [
        "line 3",
        r#"- expected {"dial":{"link":2}}"#,
        r#"+ got      {"dial":{"link":1}}"#,
        r#"- expected "exit""#,
        "registering.requesting (2) →",
    ] {
        assert!(difference.contains(part), "{part} is not in:\n{difference}");
    }
}
