//! Every line of the threat model in SECURITY.md names tests that exist.

use std::path::Path;

const TOP: &str = env!("CARGO_MANIFEST_DIR");

/// A code span in the text: a file, or a test in the file before it.
#[derive(Debug, PartialEq, Eq)]
enum Named<'a> {
    File(&'a str),
    Test { file: &'a str, test: &'a str },
}

fn named(text: &str) -> Vec<Named<'_>> {
    let (mut file, mut found) = ("", Vec::new());
    for span in text.split('`').skip(1).step_by(2) {
        let is_name = span.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if ["src/", "fsm/", "tests/"].iter().any(|folder| span.starts_with(folder)) {
            file = span;
            found.push(Named::File(span));
        } else if is_name && span.matches('_').count() >= 2 {
            found.push(Named::Test { file, test: span });
        }
    }
    found
}

/// The fault of a code span, if it has one.
fn fault(named: &Named<'_>) -> Option<String> {
    match named {
        Named::File(file) => (!Path::new(TOP).join(file).exists()).then(|| format!("there is no {file}")),
        Named::Test { file, test } => {
            let text = std::fs::read_to_string(Path::new(TOP).join(file)).unwrap_or_default();
            (!text.contains(&format!("fn {test}("))).then(|| format!("there is no {test} in {file:?}"))
        }
    }
}

fn faults(document: &str) -> Vec<String> {
    let mut faults: Vec<String> = named(document).iter().filter_map(fault).collect();
    // Every row of a table is a claim, except the header and the line below it.
    let rows = document.lines().filter(|line| line.starts_with('|') && !line.ends_with("| shown by |"));
    for row in rows.filter(|row| !row.starts_with("|-")) {
        if !named(row).iter().any(|named| matches!(named, Named::Test { .. })) {
            faults.push(format!("no test stands behind: {row}"));
        }
    }
    faults
}

#[test]
fn every_line_of_the_threat_model_has_its_tests() {
    let document = std::fs::read_to_string(Path::new(TOP).join("SECURITY.md")).expect("it is there");
    assert!(named(&document).len() > 100, "it names little");
    let faults = faults(&document);
    assert!(faults.is_empty(), "SECURITY.md:\n{}", faults.join("\n"));
}

#[test]
fn line_without_an_existing_test_is_found() {
    let this = "`tests/security_document.rs`: `line_without_an_existing_test_is_found`";
    let document = format!("| x | shown by |\n|---|---|\n| right | {this} |\n");
    assert_eq!(faults(&document), [] as [&str; 0]);
    for (line, fault) in [
        ("| nothing | `tests/security_document.rs` |", "no test stands behind"),
        ("| renamed | `tests/security_document.rs`: `a_test_that_is_gone` |", "there is no a_test_that_is_gone"),
        ("| moved | `tests/gone.rs`: `a_test_that_is_gone` |", "there is no tests/gone.rs"),
    ] {
        let faults = faults(&format!("{document}{line}\n"));
        assert!(faults.iter().any(|found| found.contains(fault)), "{faults:?}");
    }
}
