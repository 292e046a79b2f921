//! Detects provider, region, host name and shell of the machine.
//!
//! It reads variables and files that the providers document, and makes no network request. The caller passes the root
//! directory in, so that each test has its own machine.
//!
//! | provider | recognised by |
//! |---|---|
//! | `e2b` | `E2B_SANDBOX` or `E2B_SANDBOX_ID`, or `/run/e2b` |
//! | `devpod` | `DEVPOD` or `DEVPOD_WORKSPACE_ID` |
//! | `fly` | `FLY_MACHINE_ID` or `FLY_APP_NAME` |
//! | `k8s` | `KUBERNETES_SERVICE_HOST`, or `/var/run/secrets/kubernetes.io` |
//! | `docker` | `/.dockerenv` |
//!
//! The first match counts: a provider that runs on top of another has an earlier row. The region of `fly` is
//! `FLY_REGION`; the others do not show theirs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A provider and its marks.
struct Marks {
    name: &'static str,
    variables: &'static [&'static str],
    files: &'static [&'static str],
}

const PROVIDERS: &[Marks] = &[
    Marks { name: "e2b", variables: &["E2B_SANDBOX", "E2B_SANDBOX_ID"], files: &["run/e2b"] },
    Marks { name: "devpod", variables: &["DEVPOD", "DEVPOD_WORKSPACE_ID"], files: &[] },
    Marks { name: "fly", variables: &["FLY_MACHINE_ID", "FLY_APP_NAME"], files: &[] },
    Marks { name: "k8s", variables: &["KUBERNETES_SERVICE_HOST"], files: &["var/run/secrets/kubernetes.io"] },
    Marks { name: "docker", variables: &[], files: &[".dockerenv"] },
];

/// How a provider is recognised, as rows of a Markdown table: the README holds them.
pub fn provider_table() -> String {
    let row = |marks: &Marks| {
        let variables = marks.variables.iter().map(|name| format!("`{name}`"));
        let files = marks.files.iter().map(|file| format!("`/{file}`"));
        let all: Vec<String> = variables.chain(files).collect();
        format!("| `{}` | {} |\n", marks.name, all.join(", "))
    };
    PROVIDERS.iter().map(row).collect()
}

/// Longest region that is accepted, in characters.
pub(super) const NAME_CHARACTERS_MAX: usize = 64;

/// The machine that the agent runs on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Where its files are: `/`.
    pub root: PathBuf,
    /// What it calls itself.
    pub host_name: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        Self { root: PathBuf::from("/"), host_name: host_name() }
    }

    /// The provider, if it can be recognised.
    pub(super) fn provider(&self, variable: &impl Fn(&str) -> Option<OsString>) -> Option<String> {
        let is_set = |name: &&str| variable(name).is_some_and(|value| !value.is_empty());
        let fits = |marks: &&Marks| {
            marks.variables.iter().any(is_set) || marks.files.iter().any(|file| self.root.join(file).exists())
        };
        PROVIDERS.iter().find(fits).map(|marks| marks.name.to_owned())
    }

    /// The region, if the provider says it.
    pub(super) fn region(&self, variable: &impl Fn(&str) -> Option<OsString>) -> Option<String> {
        let region = variable("FLY_REGION")?.into_string().ok()?;
        is_name(&region).then_some(region)
    }

    /// The user's shell if it exists and allows a login, else the first usual one that exists, else `/bin/sh`.
    pub(super) fn shell(&self, of_user: Option<PathBuf>) -> PathBuf {
        let usual = ["/bin/bash", "/bin/sh"].map(PathBuf::from);
        let is_there =
            |shell: &PathBuf| shell.strip_prefix("/").is_ok_and(|shell: &Path| self.root.join(shell).is_file());
        let found = of_user.filter(|shell| !refuses_login(shell)).into_iter().chain(usual).find(is_there);
        found.unwrap_or_else(|| PathBuf::from("/bin/sh"))
    }
}

/// Is it a program such as `nologin`, which service accounts have instead of a shell?
pub(super) fn refuses_login(shell: &Path) -> bool {
    shell.file_name().is_some_and(|name| ["nologin", "false"].iter().any(|refuses| name == *refuses))
}

/// The name that the machine has now; empty where it has none. It may change when a machine is cloned or resumed.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether a text can name a provider or a region: 1–64 visible ASCII characters.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_CHARACTERS_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(root: &Path) -> Machine {
        Machine { root: root.to_owned(), host_name: "host".to_owned() }
    }

    fn only<'a>(set: &'a [&'a str]) -> impl Fn(&str) -> Option<OsString> + 'a {
        move |name| set.contains(&name).then(|| "x".into())
    }

    #[test]
    fn providers_are_recognised_by_their_variables() {
        let nowhere = machine(Path::new("/nonexistent"));
        let provider = |set: &[&str]| nowhere.provider(&only(set));
        for (variable, expected) in [
            ("E2B_SANDBOX", "e2b"),
            ("DEVPOD_WORKSPACE_ID", "devpod"),
            ("FLY_MACHINE_ID", "fly"),
            ("KUBERNETES_SERVICE_HOST", "k8s"),
        ] {
            assert_eq!(provider(&[variable]).as_deref(), Some(expected));
        }
        assert_eq!(provider(&["DEVPOD", "KUBERNETES_SERVICE_HOST"]).as_deref(), Some("devpod"));
        assert_eq!(provider(&[]), None);
    }

    #[test]
    fn providers_are_recognised_by_their_files() {
        let root = std::env::temp_dir().join(format!("draupnir-detect-{}", std::process::id()));
        std::fs::create_dir_all(root.join("bin")).expect("a directory");
        std::fs::write(root.join(".dockerenv"), "").expect("a file");
        assert_eq!(machine(&root).provider(&only(&[])).as_deref(), Some("docker"));
        std::fs::create_dir_all(root.join("var/run/secrets/kubernetes.io")).expect("a directory");
        assert_eq!(machine(&root).provider(&only(&[])).as_deref(), Some("k8s"));

        std::fs::write(root.join("bin/sh"), "").expect("a file");
        assert_eq!(machine(&root).shell(Some("/usr/bin/fish".into())), Path::new("/bin/sh"));
        std::fs::write(root.join("bin/fish"), "").expect("a file");
        assert_eq!(machine(&root).shell(Some("/bin/fish".into())), Path::new("/bin/fish"));
        std::fs::remove_dir_all(&root).expect("removed");
        assert_eq!(machine(&root).shell(None), Path::new("/bin/sh"));
    }

    #[test]
    fn a_region_must_be_a_name() {
        let nowhere = machine(Path::new("/nonexistent"));
        assert_eq!(nowhere.region(&|_| Some("fra".into())).as_deref(), Some("fra"));
        assert_eq!(nowhere.region(&|_| Some("".into())), None);
        assert_eq!(nowhere.region(&|_| Some("a b".into())), None);
    }
}
