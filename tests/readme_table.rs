//! Checks the README's tables: environment variables against `--help`, providers against the code, dependencies against
//! the manifests.

use draupnir::config::{markdown_table, provider_table};

#[test]
fn the_readme_holds_every_row_of_the_tables() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).unwrap_or_default();
    let tables = markdown_table() + &provider_table();
    assert!(tables.contains("| `docker` | `/.dockerenv` |\n"), "{tables}");
    let missing: Vec<&str> = tables.lines().filter(|row| !readme.lines().any(|line| line == *row)).collect();
    assert!(missing.is_empty(), "README.md lacks these rows of its tables:\n{}", missing.join("\n"));
}

#[test]
fn the_readme_says_what_each_dependency_is_for() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).expect("it is there");
    let readme = read("README.md");
    let named: Vec<&str> = readme
        .lines()
        .skip_while(|line| !line.starts_with("| crate |"))
        .take_while(|line| line.starts_with('|'))
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|crates| crates.split(','))
        .map(str::trim)
        .collect();
    let mut asked = 0;
    for manifest in ["Cargo.toml", "fsm/Cargo.toml"].map(read) {
        for line in
            manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1).take_while(|line| !line.is_empty())
        {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(named.contains(&name) || name == "draupnir-fsm", "README.md does not say what {name} is for");
            asked += 1;
        }
    }
    assert!(asked > 20, "only {asked} dependencies were found");
}
