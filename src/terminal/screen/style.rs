//! How a cell looks: its colours and attributes, as `ESC [ … m` sets them and as a snapshot sets them again.

use std::io::Write;

/// Bits of [`Style::attributes`]; the kind of underline is a number in three of them.
pub(super) const BOLD: u16 = 1;
pub(super) const DIM: u16 = 1 << 1;
pub(super) const ITALIC: u16 = 1 << 2;
pub(super) const BLINK: u16 = 1 << 3;
pub(super) const INVERSE: u16 = 1 << 4;
pub(super) const HIDDEN: u16 = 1 << 5;
pub(super) const STRUCK: u16 = 1 << 6;
pub(super) const OVERLINED: u16 = 1 << 7;
const UNDERLINE_SHIFT: u16 = 8;
const UNDERLINE: u16 = 0b111 << UNDERLINE_SHIFT;

/// The attributes that are one bit, and the numbers that set and reset each.
const ATTRIBUTES: [(u16, u16, u16); 8] = [
    (BOLD, 1, 22),
    (DIM, 2, 22),
    (ITALIC, 3, 23),
    (BLINK, 5, 25),
    (INVERSE, 7, 27),
    (HIDDEN, 8, 28),
    (STRUCK, 9, 29),
    (OVERLINED, 53, 55),
];

/// A colour: the default, one of the 16 with a number of their own, one of 256, or 24 bits. Some terminals show the
/// first 16 of the 256 otherwise than those 16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Colour(u32);

const INDEXED: u32 = 1 << 24;
const DIRECT: u32 = 2 << 24;
const NAMED: u32 = 3 << 24;

impl Colour {
    fn named(number: u16) -> Self {
        Self(NAMED | u32::from(number))
    }

    fn indexed(index: u16) -> Self {
        Self(INDEXED | u32::from(index & 0xff))
    }

    fn direct(channels: [u16; 3]) -> Self {
        Self(channels.into_iter().fold(DIRECT >> 24, |colour, channel| colour << 8 | u32::from(channel & 0xff)))
    }

    /// Writes the parameters that set it: `base` is 30 for text, 40 for the background.
    fn write(self, base: u16, separator: &mut Separator, out: &mut Vec<u8>) {
        let value = self.0 & 0xff_ffff;
        match (self.0 & !0xff_ffff, value) {
            (NAMED, 0..8) => separator.number(u32::from(base) + value, out),
            (NAMED, _) => separator.number(u32::from(base) + 60 + value - 8, out),
            (INDEXED, _) => [u32::from(base) + 8, 5, value].iter().for_each(|n| separator.number(*n, out)),
            (DIRECT, _) => {
                let [_, red, green, blue] = value.to_be_bytes().map(u32::from);
                [u32::from(base) + 8, 2, red, green, blue].iter().for_each(|n| separator.number(*n, out));
            }
            _ => separator.number(u32::from(base) + 9, out),
        }
    }
}

/// Colours, attributes and the link of a cell or of the pen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) text: Colour,
    pub(super) background: Colour,
    pub(super) underline: Colour,
    pub(super) attributes: u16,
    /// The number of a link; 0 for none.
    pub(super) link: u16,
}

impl Style {
    /// What an erased cell has of this pen.
    pub(super) fn erased(self) -> Self {
        Self { background: self.background, ..Self::default() }
    }

    /// Applies the numbers of an `ESC [ … m`; each group is a number and what is joined to it by colons.
    pub(super) fn apply<'a>(&mut self, mut groups: impl Iterator<Item = &'a [u16]>) {
        while let Some(group) = groups.next() {
            let number = group.first().copied().unwrap_or_default();
            match number {
                0 => *self = Self { link: self.link, ..Self::default() },
                4 => self.set_underline(group.get(1).copied().unwrap_or(1)),
                21 => self.set_underline(2),
                24 => self.set_underline(0),
                6 => self.attributes |= BLINK,
                30..=37 => self.text = Colour::named(number - 30),
                90..=97 => self.text = Colour::named(number - 90 + 8),
                39 => self.text = Colour::default(),
                40..=47 => self.background = Colour::named(number - 40),
                100..=107 => self.background = Colour::named(number - 100 + 8),
                49 => self.background = Colour::default(),
                59 => self.underline = Colour::default(),
                38 | 48 | 58 => {
                    let Some(colour) = colour(group.get(1..).unwrap_or_default(), &mut groups) else { continue };
                    match number {
                        38 => self.text = colour,
                        48 => self.background = colour,
                        _ => self.underline = colour,
                    }
                }
                _ => {
                    for (bit, set, reset) in ATTRIBUTES {
                        if number == set {
                            self.attributes |= bit;
                        } else if number == reset {
                            self.attributes &= !bit;
                        }
                    }
                }
            }
        }
    }

    fn set_underline(&mut self, kind: u16) {
        self.attributes = self.attributes & !UNDERLINE | kind.min(5) << UNDERLINE_SHIFT;
    }

    /// Writes what makes this style of another; the link is not part of it.
    pub(super) fn write(self, from: Self, out: &mut Vec<u8>) {
        let (to, from) = (Self { link: 0, ..self }, Self { link: 0, ..from });
        if to == from {
            return;
        }
        out.extend_from_slice(b"\x1b[");
        if to == Self::default() {
            // Without numbers it resets everything.
            return out.push(b'm');
        }
        let mut separator = Separator::default();
        let from = if to.attributes == from.attributes && to.underline == from.underline {
            from
        } else {
            if from != Self::default() {
                separator.number(0, out);
            }
            to.write_attributes(&mut separator, out);
            Self::default()
        };
        if to.text != from.text {
            to.text.write(30, &mut separator, out);
        }
        if to.background != from.background {
            to.background.write(40, &mut separator, out);
        }
        out.push(b'm');
    }

    fn write_attributes(self, separator: &mut Separator, out: &mut Vec<u8>) {
        for (bit, set, _) in ATTRIBUTES {
            if self.attributes & bit != 0 {
                separator.number(u32::from(set), out);
            }
        }
        match (self.attributes & UNDERLINE) >> UNDERLINE_SHIFT {
            0 => {}
            1 => separator.number(4, out),
            kind => {
                separator.number(4, out);
                write!(out, ":{kind}").expect("a vector takes everything");
            }
        }
        let value = self.underline.0 & 0xff_ffff;
        match self.underline.0 & !0xff_ffff {
            0 => {}
            INDEXED => {
                separator.number(58, out);
                write!(out, ":5:{value}").expect("a vector takes everything");
            }
            _ => {
                let [_, red, green, blue] = value.to_be_bytes();
                separator.number(58, out);
                write!(out, ":2::{red}:{green}:{blue}").expect("a vector takes everything");
            }
        }
    }
}

/// Reads a colour: from the numbers joined to the first, or from the groups that follow.
fn colour<'a>(joined: &[u16], groups: &mut impl Iterator<Item = &'a [u16]>) -> Option<Colour> {
    let mut next = || groups.next().and_then(|group| group.first().copied()).unwrap_or_default();
    match *joined {
        [] => match next() {
            5 => Some(Colour::indexed(next())),
            2 => Some(Colour::direct([next(), next(), next()])),
            _ => None,
        },
        [5, index, ..] => Some(Colour::indexed(index)),
        [2, red, green, blue] | [2, _, red, green, blue, ..] => Some(Colour::direct([red, green, blue])),
        _ => None,
    }
}

/// Puts `;` between numbers.
#[derive(Default)]
struct Separator {
    is_needed: bool,
}

impl Separator {
    fn number(&mut self, number: u32, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.is_needed, true) {
            out.push(b';');
        }
        write!(out, "{number}").expect("a vector takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(groups: &[&[u16]]) -> Style {
        let mut style = Style::default();
        style.apply(groups.iter().copied());
        style
    }

    fn written(to: Style, from: Style) -> String {
        let mut out = Vec::new();
        to.write(from, &mut out);
        String::from_utf8(out).expect("text").replace('\x1b', "")
    }

    #[test]
    fn style_is_written_as_it_was_read() {
        for (groups, text) in [
            (&[[1_u16].as_slice(), &[31]] as &[&[u16]], "[1;31m"),
            (&[&[38], &[5], &[200]], "[38;5;200m"),
            (&[&[38, 5, 9]], "[38;5;9m"),
            (&[&[1], &[34], &[103]], "[1;34;103m"),
            (&[&[48], &[2], &[1], &[2], &[3]], "[48;2;1;2;3m"),
            (&[&[38, 2, 0, 1, 2, 3]], "[38;2;1;2;3m"),
            (&[&[38, 2, 1, 2, 3]], "[38;2;1;2;3m"),
            (&[&[4, 3], &[58, 2, 0, 9, 8, 7]], "[4:3;58:2::9:8:7m"),
            (&[&[58, 5, 7], &[21]], "[4:2;58:5:7m"),
            (&[&[1], &[2], &[22], &[53], &[4], &[104]], "[53;4;104m"),
            (&[&[38], &[9], &[31]], "[31m"),
        ] {
            assert_eq!(written(style(groups), Style::default()), text);
        }
    }

    #[test]
    fn change_of_a_colour_leaves_the_rest() {
        let red = style(&[&[1], &[31]]);
        let mut blue = red;
        blue.apply([[44].as_slice(), &[39]].into_iter());
        assert_eq!(written(blue, red), "[39;44m");
        assert_eq!(written(Style::default(), red), "[m");
        assert_eq!(written(style(&[&[1]]), red), "[39m");
        assert_eq!(written(Style::default(), style(&[&[31]])), "[m");
        assert_eq!(written(style(&[&[7]]), style(&[&[31]])), "[0;7m");
    }
}
