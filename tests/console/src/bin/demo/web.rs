//! The demo in a browser: installs the npm packages of the page where they are missing, and serves it.
//!
//! Without npm it says what to do, and the rest of the demo works.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use draupnir_console::{Console, Page, missing_assets};

/// Where the packages are installed.
pub(crate) const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/web");

/// The script that installs them.
const INSTALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/web/install");

/// How many lines of the script's errors are shown.
const ERROR_LINES: usize = 3;

/// What the page needs.
#[derive(Clone)]
pub(crate) struct Web {
    pub(crate) console: Console,
    pub(crate) recording: PathBuf,
    pub(crate) packages: PathBuf,
}

impl Web {
    /// Serves the page. It takes some seconds where packages must be installed.
    ///
    /// # Errors
    /// A sentence for the user: why there is no page, and what to do.
    pub(crate) fn open(&self) -> Result<Page, String> {
        if !missing_assets(&self.packages).is_empty() {
            install(&self.packages)?;
        }
        if let Some(missing) = missing_assets(&self.packages).first() {
            return Err(format!("no page: {} has no {missing}", self.packages.display()));
        }
        Page::start(&self.console, &self.recording, &self.packages).map_err(|error| format!("no page: {error}"))
    }
}

fn install(folder: &Path) -> Result<(), String> {
    const NO_NPM: &str = "no page: npm is not installed; install Node.js with npm, then press w or use --web again";
    let npm = Command::new("npm").arg("--version").stdin(Stdio::null()).output();
    if npm.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Err(NO_NPM.to_owned());
    }
    let output = Command::new(INSTALL).arg(folder).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("no page: {INSTALL}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = errors.lines().collect();
    let last = lines.get(lines.len().saturating_sub(ERROR_LINES)..).unwrap_or_default().join("; ");
    Err(format!("no page: the packages could not be installed ({last}); run tests/console/web/install"))
}
