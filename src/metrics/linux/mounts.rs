//! The mount table as the kernel lists it.
//!
//! Source: `/proc/self/mountinfo`, proc_pid_mountinfo(5). Decides nothing about what the mounts mean.
//!
//! Invariant: any bytes are accepted; a line that is not of the documented form is left out.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::super::scan::{lines, number, words};

/// The number of the device behind a file system; anonymous ones have a major number of 0.
pub(crate) type DeviceNumber = (u32, u32);

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount<'a> {
    /// What `stat` says of files on it.
    pub(crate) number: DeviceNumber,
    /// Which directory of the file system is mounted here; `/` is the whole of it.
    pub(crate) root: Cow<'a, [u8]>,
    /// Where it is mounted.
    pub(crate) mount_point: Cow<'a, [u8]>,
    /// The type of the file system, with its subtype if it has one.
    pub(crate) fs_type: &'a [u8],
    /// What is mounted, by name.
    pub(crate) source: Cow<'a, [u8]>,
    /// Options of the file system itself; legacy control groups name their controllers here.
    pub(crate) options: &'a [u8],
}

impl Mount<'_> {
    /// Where it is mounted, as a path.
    pub(crate) fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.mount_point))
    }
}

/// The mounts in the kernel's order: a later one covers an earlier one at the same place.
pub(crate) fn mounts(text: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    lines(text).filter_map(mount)
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn mount(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = words(line);
    let mut numbers = fields.nth(2)?.splitn(2, |byte| *byte == b':');
    let mut half = || numbers.next().and_then(number).and_then(|half| u32::try_from(half).ok());
    let number = (half()?, half()?);
    let (root, mount_point) = (unescaped(fields.next()?), unescaped(fields.next()?));
    // The mount options, then any number of optional fields up to a lone dash.
    fields.by_ref().skip(1).find(|word| *word == b"-")?;
    let fs_type = fields.next()?;
    let source = fields.next().map_or(Cow::Borrowed(&b""[..]), unescaped);
    Some(Mount { number, root, mount_point, fs_type, source, options: fields.next().unwrap_or_default() })
}

/// Space, tab, newline, backslash and `#` stand as a backslash and three octal digits.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'\\'
            && let Some((digits, beyond)) = after.split_at_checked(3)
            && let Some(byte) = octal(digits)
        {
            plain.push(byte);
            rest = beyond;
        } else {
            plain.push(*first);
        }
    }
    Cow::Owned(plain)
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |sum, byte| {
        let digit = (b'0'..=b'7').contains(byte).then(|| byte - b'0')?;
        sum.checked_mul(8)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_manual_s_example_is_read() {
        let line = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue\n";
        let all: Vec<_> = mounts(line).collect();
        let expected = Mount {
            number: (98, 0),
            root: Cow::Borrowed(b"/mnt1"),
            mount_point: Cow::Borrowed(b"/mnt2"),
            fs_type: b"ext3",
            source: Cow::Borrowed(b"/dev/root"),
            options: b"rw,errors=continue",
        };
        assert_eq!(all, [expected]);
    }

    #[test]
    fn names_with_spaces_are_restored() {
        let line = br"41 35 0:40 / /mnt/my\040disk\134x rw - 9p C:\134 rw,aname=drvfs";
        let mount = mounts(line).next().expect("the line is whole");
        assert_eq!(mount.mount_point.as_ref(), br"/mnt/my disk\x");
        assert_eq!(mount.source.as_ref(), br"C:\");
        assert_eq!(unescaped(br"\04"), &br"\04"[..]);
        assert_eq!(unescaped(br"\777"), &br"\777"[..]);
    }

    #[test]
    fn what_is_not_whole_is_left_out() {
        let text = b"\n1 2\n1 2 3 / / rw - ext4 x rw\n1 2 3:x / / rw - ext4 x rw\n1 2 3:4 / / rw ext4 x rw\n1 2 3:4 / / rw -\n";
        assert_eq!(mounts(text).count(), 0);
        assert_eq!(mounts(b"1 2 3:4 / / rw - tmpfs").count(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            for mount in mounts(&text) {
                let _ = mount.path();
            }
        }

        #[test]
        fn any_words_in_the_right_places_are_read(words in proptest::collection::vec("[0-9a-z:/,\\\\-]{1,8}", 0..14)) {
            let _ = mounts(words.join(" ").as_bytes()).count();
        }
    }
}
