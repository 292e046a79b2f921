//! Which shell a session runs, and in which surroundings.
//!
//! It reads no variable: where shell and home are said, `config` has read them. The variables are the agent's own but
//! for its secrets and what would mislead a terminal.

use super::TerminalSettings;
use crate::sys::child::Child;
use crate::sys::environment::Environment;
use crate::sys::spawn::{Program, SpawnError, Start, spawn};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A shell to start.
#[derive(Debug)]
pub(super) struct Shell {
    /// Its path, or a name to look for.
    pub(super) path: OsString,
    /// What it finds as its own name; a dash in front makes it a login shell.
    pub(super) name: OsString,
    pub(super) environment: Environment,
    pub(super) home: PathBuf,
}

/// The directories of programs where the agent itself was given none.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables that say in which encoding programs write. The first one that is set counts.
const LOCALE: [&str; 3] = ["LC_ALL", "LC_CTYPE", "LANG"];

/// UTF-8 locales, and the files each of which shows that it is there: of the GNU C library, of musl (which knows the
/// first one without a file of its own), of macOS.
const UTF8_LOCALES: [(&str, &[&str]); 2] = [
    (
        "C.UTF-8",
        &[
            "usr/lib/locale/C.utf8",
            "usr/lib/locale/C.UTF-8",
            "usr/share/locale/C.UTF-8",
            "lib/ld-musl-x86_64.so.1",
            "lib/ld-musl-aarch64.so.1",
        ],
    ),
    ("en_US.UTF-8", &["usr/lib/locale/en_US.utf8", "usr/lib/locale/en_US.UTF-8", "usr/share/locale/en_US.UTF-8"]),
];

impl Shell {
    /// The shell that was asked for, or the default one as a login shell.
    pub(super) fn new(asked_for: Option<&str>, settings: &TerminalSettings) -> Self {
        let user = User::current();
        let (path, name) = match asked_for.filter(|shell| !shell.is_empty()) {
            Some(shell) => (OsString::from(shell), OsString::from(shell)),
            None => {
                let path = settings.shell.clone();
                let mut name = OsString::from("-");
                name.push(Path::new(&path).file_name().unwrap_or(&path));
                (path, name)
            }
        };
        let of_user = || Some(PathBuf::from(&user.as_ref()?.home));
        let home = settings.home.clone().or_else(of_user).unwrap_or_else(|| PathBuf::from("/"));
        let environment = environment(settings, user.as_ref(), &path, &home);
        Self { path, name, environment, home }
    }

    /// Starts it in this terminal, which becomes the controlling one. A home that is gone is no reason to refuse the
    /// shell in which it can be made again.
    pub(super) fn spawn(&self, arguments: &[OsString], terminal: &OwnedFd) -> Result<(Child, Start), SpawnError> {
        spawn(&Program {
            path: &self.path,
            name: Some(&self.name),
            arguments,
            environment: &self.environment,
            home: &self.home,
            directory: None,
            stdio: [terminal.as_fd(), terminal.as_fd(), terminal.as_fd()],
            controlling_terminal: true,
        })
    }
}

fn environment(settings: &TerminalSettings, user: Option<&User>, shell: &OsStr, home: &Path) -> Environment {
    let secrets: Vec<&str> = settings.secrets.iter().map(String::as_str).collect();
    let mut environment = Environment::inherited(&secrets);
    environment.set("TERM", "xterm-256color");
    environment.set("COLORTERM", "truecolor");
    environment.set("SHELL", shell);
    environment.set("HOME", home);
    let is_set = |name: &&str| environment.value(name).is_some_and(|value| !value.is_empty());
    if !LOCALE.iter().any(is_set)
        && let Some(locale) = utf8_locale(Path::new("/"))
    {
        environment.set("LANG", locale);
    }
    let mut set_if_missing = |name: &str, value: &str| {
        if environment.value(name).is_none() {
            environment.set(name, value);
        }
    };
    set_if_missing("PATH", PATH_DEFAULT);
    if let Some(user) = user {
        set_if_missing("USER", &user.name);
        set_if_missing("LOGNAME", &user.name);
    }
    environment
}

/// A UTF-8 locale that the system has.
fn utf8_locale(root: &Path) -> Option<&'static str> {
    let is_there = |(_, files): &&(&str, &[&str])| files.iter().any(|file| root.join(file).exists());
    UTF8_LOCALES.iter().find(is_there).map(|(name, _)| *name)
}

/// An entry of `/etc/passwd`.
#[derive(Debug, PartialEq, Eq)]
struct User {
    name: String,
    home: String,
}

impl User {
    /// Read by hand: the C library's way loads plug-ins, which a static binary cannot.
    fn current() -> Option<Self> {
        let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
        Self::find(&passwd, rustix::process::geteuid().as_raw())
    }

    fn find(passwd: &str, number: u32) -> Option<Self> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let is_it = fields.nth(1)?.parse() == Ok(number);
            let home = fields.nth(2)?;
            is_it.then(|| Self { name: name.to_owned(), home: home.to_owned() })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> TerminalSettings {
        TerminalSettings {
            shell: "/usr/bin/fish".into(),
            home: Some("/home/a".into()),
            secrets: vec!["PATH".to_owned()],
        }
    }

    #[test]
    fn the_default_shell_is_a_login_shell_and_another_is_not() {
        let shell = Shell::new(None, &settings());
        assert_eq!((shell.path.to_str(), shell.name.to_str()), (Some("/usr/bin/fish"), Some("-fish")));
        let shell = Shell::new(Some(""), &settings());
        assert_eq!(shell.name, "-fish");
        let shell = Shell::new(Some("/bin/dash"), &settings());
        assert_eq!((shell.path.to_str(), shell.name.to_str()), (Some("/bin/dash"), Some("/bin/dash")));
        assert_eq!(shell.environment.value("SHELL"), Some(OsStr::new("/bin/dash")));
    }

    #[test]
    fn the_surroundings_are_those_of_a_terminal_and_have_no_secret() {
        let shell = Shell::new(None, &settings());
        let value = |name| shell.environment.value(name).and_then(OsStr::to_str);
        assert_eq!(value("TERM"), Some("xterm-256color"));
        assert_eq!(value("COLORTERM"), Some("truecolor"));
        assert_eq!(value("PATH"), Some(PATH_DEFAULT), "the agent's own value counts as a secret here");
        assert_eq!((value("HOME"), shell.home.to_str()), (Some("/home/a"), Some("/home/a")));
    }

    #[test]
    fn locale_is_one_that_exists() {
        let root = tempfile::tempdir().expect("a directory");
        assert_eq!(utf8_locale(root.path()), None);
        for (file, locale) in [("usr/share/locale/en_US.UTF-8", "en_US.UTF-8"), ("usr/lib/locale/C.utf8", "C.UTF-8")] {
            std::fs::create_dir_all(root.path().join(file)).expect("writable");
            assert_eq!(utf8_locale(root.path()), Some(locale));
        }
    }

    #[test]
    fn a_user_is_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbroken\na:x:7:7::/home/a:/bin/sh\n";
        let user = |name: &str, home: &str| Some(User { name: name.to_owned(), home: home.to_owned() });
        assert_eq!(User::find(passwd, 0), user("root", "/root"));
        assert_eq!(User::find(passwd, 7), user("a", "/home/a"));
        assert_eq!(User::find(passwd, 8), None);
    }
}
