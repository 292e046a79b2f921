//! Stand-ins for the npm packages of the page.

/// A folder that holds each file of the page's npm packages, with its own name in it.
pub(crate) fn stand_ins() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for place in draupnir_console::missing_assets(folder.path()) {
        let file = folder.path().join(place);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("created");
        std::fs::write(file, place).expect("written");
    }
    folder
}
