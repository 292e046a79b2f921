//! The agent uses two modules of the state machine only: `draupnir_fsm::driver` and `draupnir_fsm::scenario`.

use std::path::Path;

/// The paths in a text that lead to other modules.
fn past_the_door(text: &str) -> Vec<&str> {
    let after = text.split("draupnir_fsm::").skip(1);
    after.filter(|rest| !["driver", "scenario"].iter().any(|door| rest.starts_with(door))).collect()
}

fn check(folder: &Path, files: &mut usize) {
    for entry in std::fs::read_dir(folder).expect("a folder of this repository") {
        let path = entry.expect("a folder of this repository").path();
        if path.is_dir() {
            check(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            *files += 1;
            let text = std::fs::read_to_string(&path).expect("a source file");
            let found = past_the_door(&text);
            let found: Vec<String> = found.iter().map(|rest| rest.chars().take(40).collect()).collect();
            assert!(found.is_empty(), "{} reaches past the driver: {found:?}", path.display());
        }
    }
}

#[test]
fn src_uses_fsm_only_through_the_driver() {
    let mut files = 0;
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files > 80, "only {files} files were read");
}

#[test]
fn path_past_the_driver_is_found() {
    assert!(past_the_door("use draupnir_fsm::driver::Driver;").is_empty());
    assert_eq!(past_the_door("use draupnir_fsm::machine::Machine;"), ["machine::Machine;"]);
}
