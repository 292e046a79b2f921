//! The files of the page: its own, which are part of this program, and those of the npm packages.
//!
//! Only names of these two tables are served; no path of a request reaches the file system.

use std::path::Path;

use crate::script::Response;

/// The largest file of a package that is served, in bytes: xterm.js has 490 kB.
const ASSET_BYTES_MAX: u64 = 4 << 20;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// The page's own files: path, type, content.
const OWN: [(&str, &str, &str); 10] = [
    ("", HTML, include_str!("../../web/index.html")),
    ("page.css", STYLE, include_str!("../../web/page.css")),
    ("icon.svg", "image/svg+xml", include_str!("../../web/icon.svg")),
    ("page.js", SCRIPT, include_str!("../../web/page.js")),
    ("socket.js", SCRIPT, include_str!("../../web/socket.js")),
    ("chart.js", SCRIPT, include_str!("../../web/chart.js")),
    ("plots.js", SCRIPT, include_str!("../../web/plots.js")),
    ("terminals.js", SCRIPT, include_str!("../../web/terminals.js")),
    ("commands.js", SCRIPT, include_str!("../../web/commands.js")),
    ("lists.js", SCRIPT, include_str!("../../web/lists.js")),
];

/// The files of packages: path, type, place below the folder of assets.
const ASSETS: [(&str, &str, &str); 5] = [
    ("assets/xterm.mjs", SCRIPT, "node_modules/@xterm/xterm/lib/xterm.mjs"),
    ("assets/xterm.css", STYLE, "node_modules/@xterm/xterm/css/xterm.css"),
    ("assets/addon-fit.mjs", SCRIPT, "node_modules/@xterm/addon-fit/lib/addon-fit.mjs"),
    ("assets/uplot.mjs", SCRIPT, "node_modules/uplot/dist/uPlot.esm.js"),
    ("assets/uplot.css", STYLE, "node_modules/uplot/dist/uPlot.min.css"),
];

/// The files of packages that are missing below this folder.
#[must_use]
pub fn missing_assets(folder: &Path) -> Vec<&'static str> {
    ASSETS.iter().map(|(.., place)| *place).filter(|place| !folder.join(place).is_file()).collect()
}

/// The answer to a plain request.
pub(super) fn answer(method: &str, path: &str, assets: &Path) -> Response {
    if method != "GET" {
        return Response::new(405);
    }
    if let Some((_, kind, content)) = OWN.iter().find(|(name, ..)| *name == path) {
        return found(kind, content.as_bytes().to_vec());
    }
    let Some((_, kind, place)) = ASSETS.iter().find(|(name, ..)| *name == path) else {
        return Response::new(404);
    };
    let file = assets.join(place);
    let fits = file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= ASSET_BYTES_MAX);
    match std::fs::read(file) {
        Ok(content) if fits => found(kind, content),
        Ok(_) | Err(_) => Response::new(404),
    }
}

fn found(kind: &str, body: Vec<u8>) -> Response {
    let mut response = Response::new(200);
    response.headers.push(("Content-Type".to_owned(), kind.to_owned()));
    response.body = body;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The states of the chart, from the tree in its documentation: `connected.ready`.
    fn states() -> Vec<String> {
        let chart = include_str!("../../../../fsm/src/machine/chart.rs");
        let (_, tree) = chart.split_once("```text\n").expect("a tree");
        let (tree, _) = tree.split_once("\n//! ```").expect("its end");
        let (mut found, mut parent): (Vec<String>, String) = Default::default();
        for line in tree.lines().filter_map(|line| line.strip_prefix("//! ")) {
            let branch: String = line.chars().take_while(|c| "│├└─ ".contains(*c)).collect();
            let name = line.trim_start_matches(&*branch).split(' ').next().unwrap_or_default();
            // A child of `draining` is as deep as `connected`: the state that holds all others is not named.
            let is_child = branch.chars().count() == 8 || (!branch.is_empty() && parent == "draining");
            if is_child {
                found.retain(|state| *state != parent);
                found.push(format!("{parent}.{name}"));
            } else {
                name.clone_into(&mut parent);
                found.push(parent.clone());
            }
        }
        found.retain(|state| state != "running");
        found
    }

    #[test]
    fn chart_of_the_page_has_the_states_of_the_machine() {
        let script = include_str!("../../web/chart.js");
        let (_, leaves) = script.split_once("const LEAVES = {").expect("a table");
        let (leaves, _) = leaves.split_once("};").expect("its end");
        let mut drawn: Vec<&str> = leaves.split('"').skip(1).step_by(2).collect();
        let mut states = states();
        drawn.sort_unstable();
        states.sort_unstable();
        assert!(states.len() > 10, "{states:?}");
        assert_eq!(drawn, states);
    }

    #[test]
    fn paths_reach_nothing_but_the_tables() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        for path in ["Cargo.toml", "../Cargo.toml", "assets/../Cargo.toml", "%2e%2e/Cargo.toml", "assets/", "/"] {
            assert_eq!(answer("GET", path, folder).status, 404, "{path}");
        }
        assert_eq!(answer("POST", "", folder).status, 405);
        assert_eq!(answer("GET", "", folder).status, 200);
    }
}
