//! The README's table of environment variables is the one that `--help` prints.

use draupnir::config::markdown_table;

#[test]
fn the_readme_holds_every_row_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).unwrap_or_default();
    let table = markdown_table();
    let missing: Vec<&str> = table.lines().filter(|row| !readme.lines().any(|line| line == *row)).collect();
    assert!(missing.is_empty(), "README.md lacks these rows of its table:\n{}", missing.join("\n"));
}
