//! The distribution, as os-release(5) names it.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Longest file that is read, in bytes; they have some 400.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// The distribution's `ID` in lower case, without the edition of openSUSE (`opensuse-leap`): the console knows it by
/// the family. os-release(5) names `linux` where nothing is set; a system without the file is named by its kernel.
pub(super) fn distro(root: &Path) -> String {
    let files = ["etc/os-release", "usr/lib/os-release"];
    let id = files.iter().find_map(|file| {
        let mut text = String::new();
        File::open(root.join(file)).ok()?.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
        id(&text)
    });
    id.unwrap_or_else(|| std::env::consts::OS.to_owned())
}

fn id(text: &str) -> Option<String> {
    let value = text.lines().rev().find_map(|line| line.trim().strip_prefix("ID="))?;
    let id = value.trim_matches(['"', '\'']).to_ascii_lowercase();
    let family = if id.starts_with("opensuse-") { "opensuse" } else { &id };
    (!family.is_empty()).then(|| family.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_read_as_a_shell_would() {
        for (text, expected) in [
            ("NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\n", Some("ubuntu")),
            ("ID=\"opensuse-tumbleweed\"\n", Some("opensuse")),
            ("ID='fedora'", Some("fedora")),
            ("ID=a\nID=b\n", Some("b")),
            ("ID=\nNAME=x\n", None),
            ("", None),
        ] {
            assert_eq!(id(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn without_a_file_it_is_the_kernel_s_name() {
        assert_eq!(distro(Path::new("/nonexistent")), std::env::consts::OS);
    }
}
