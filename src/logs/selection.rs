//! Which logs the console asked for.
//!
//! Bounds: [`PATHS_MAX`] paths of [`PATH_BYTES_MAX`] bytes; what goes beyond is not followed.

use super::root::Root;
use std::path::Path;

/// The most paths that are remembered: of a console that names each file.
pub const PATHS_MAX: usize = 1_024;

/// The longest path that is remembered, in bytes: that of Linux.
pub const PATH_BYTES_MAX: usize = 4_096;

/// What stands for all logs.
const ALL: &str = "*";

/// The logs that the console asked for: a set of what it named.
///
/// All and a single log are different members: the production console asks for all when an agent connects, and for a
/// single log as long as a browser shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    has_all: bool,
    /// In order.
    paths: Vec<Box<str>>,
}

impl Selection {
    /// Asks for more; whether that changes anything.
    pub fn add(&mut self, paths: &[String]) -> bool {
        let before = self.clone();
        for path in paths {
            if path == ALL { self.has_all = true } else { self.remember(path) }
        }
        *self != before
    }

    /// Asks for less, for nothing where no path is named; whether that changes anything.
    pub fn remove(&mut self, paths: &[String]) -> bool {
        let before = self.clone();
        if paths.is_empty() {
            *self = Self::default();
        }
        for path in paths {
            if path == ALL { self.has_all = false } else { self.forget(path) }
        }
        *self != before
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        !self.has_all && self.paths.is_empty()
    }

    /// Whether this log is wanted: by its path, or by the entry of the configuration that it is from.
    pub fn wants(&self, path: &str, root: &Root) -> bool {
        self.names(path) || root.text().is_some_and(|text| self.has(text))
    }

    /// Whether something of this root may be wanted.
    pub fn may_want(&self, root: &Root) -> bool {
        let is_of_root = |path: &str| match root.text() {
            None => !Path::new(path).is_absolute(),
            Some(text) => path == text || root.covers(Path::new(path)),
        };
        self.has_all || self.paths.iter().any(|path| is_of_root(path))
    }

    /// Whether this is wanted, which is no file.
    pub fn names(&self, name: &str) -> bool {
        self.has_all || self.has(name)
    }

    fn has(&self, path: &str) -> bool {
        self.paths.binary_search_by(|known| (**known).cmp(path)).is_ok()
    }

    fn remember(&mut self, path: &str) {
        if path.len() <= PATH_BYTES_MAX
            && self.paths.len() < PATHS_MAX
            && let Err(place) = self.paths.binary_search_by(|known| (**known).cmp(path))
        {
            self.paths.insert(place, path.into());
        }
    }

    fn forget(&mut self, path: &str) {
        if let Ok(place) = self.paths.binary_search_by(|known| (**known).cmp(path)) {
            self.paths.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths<const N: usize>(paths: [&str; N]) -> Vec<String> {
        paths.map(str::to_owned).into()
    }

    #[test]
    fn selection_follows_what_the_console_asks() {
        let home = Root::of_home(Path::new("/home/x"));
        let nginx = Root::configured("/var/log/nginx/*.log").expect("it is legal");
        let mut selection = Selection::default();
        assert!(selection.is_empty() && !selection.may_want(&home));
        assert!(selection.add(&paths(["a.log", "/var/log/nginx/*.log"])) && !selection.add(&paths(["a.log"])));
        assert!(selection.wants("a.log", &home) && !selection.wants("b.log", &home));
        assert!(selection.wants("/var/log/nginx/error.log", &nginx) && selection.may_want(&nginx));
        assert!(selection.add(&paths(["*"])) && !selection.add(&paths(["*", "a.log"])));
        assert!(selection.remove(&paths(["a.log"])) && selection.wants("a.log", &home), "all are still asked for");
        assert!(selection.add(&paths(["b.log"])) && selection.remove(&paths(["*"])));
        assert!(selection.wants("b.log", &home) && !selection.wants("a.log", &home));
        assert!(selection.remove(&[]) && selection.is_empty() && !selection.remove(&[]));
        assert!(selection.add(&paths(["/etc/passwd"])) && !selection.may_want(&nginx) && !selection.may_want(&home));
    }

    #[test]
    fn selection_is_bounded() {
        let mut selection = Selection::default();
        let many: Vec<String> = (0..2 * PATHS_MAX).map(|number| format!("{number}.log")).collect();
        assert!(selection.add(&many) && selection.paths.len() == PATHS_MAX);
        assert!(!Selection::default().add(&["x".repeat(PATH_BYTES_MAX + 1)]));
    }
}
