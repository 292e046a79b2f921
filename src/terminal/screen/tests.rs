use super::*;
use proptest::prelude::*;

const SIZE: Size = Size { cols: 20, rows: 5 };

fn screen(output: &[u8]) -> Screen {
    let mut screen = Screen::new(SIZE);
    screen.feed(output);
    screen
}

fn restored(screen: &Screen) -> Screen {
    let mut other = Screen::new(screen.state.size);
    other.feed(&screen.snapshot(true));
    other
}

fn shown(output: &[u8]) -> String {
    let snapshot = String::from_utf8(screen(output).snapshot(true)).expect("text");
    snapshot.strip_prefix("\x1bc").expect("a reset comes first").replace('\x1b', "^").replace("\r\n", "|")
}

#[test]
fn screen_is_written_from_its_first_cell() {
    assert_eq!(shown(b""), "||||^[1;1H");
    assert_eq!(shown(b"$ ls\r\n\x1b[1;32mfile\x1b[m  x\r\n$ "), "$ ls|^[1;32mfile^[m  x|$ ||^[3;3H");
    assert_eq!(shown(b"a\x1b[10Gb\x1b[44m\x1b[K"), "a^[8Cb^[44m^[K^[m||||^[1;11H^[44m");
    assert_eq!(shown("e\u{301}界".as_bytes()), "e\u{301}界||||^[1;4H");
    assert_eq!(shown(b"\x1b]8;id=1;http://a/b;c\x07x\x1b]8;;\x07y"), "^]8;id=1;http://a/b;c^\\x^]8;;^\\y||||^[1;3H");
}

#[test]
fn history_comes_before_the_screen() {
    assert_eq!(shown(b"1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7"), "1|2|3|4|5|6|7^[5;2H");
    let long: Vec<u8> = (0..20_000).flat_map(|line| format!("{line:09}\r\n").into_bytes()).collect();
    let snapshot = screen(&long).snapshot(true);
    let lines = snapshot.split(|byte| *byte == b'\n').count();
    assert_eq!(lines, HISTORY_ROWS_MAX + 5);
    assert!(screen(&long).snapshot(false).len() < 100);
    let wide: Vec<u8> = (0..2_000)
        .flat_map(|_| {
            b"\x1b[1;38;2;100;200;100mvery\x1b[38;2;200;200;200mwide\x1b[32mwide\x1b[34mmore\x1b[mmany\r\n\x1b[m"
                .to_vec()
        })
        .collect();
    let snapshot = screen(&wide).snapshot(true);
    assert!((HISTORY_BYTES_MAX - 100..HISTORY_BYTES_MAX + 300).contains(&snapshot.len()), "{}", snapshot.len());
}

#[test]
fn rows_scroll_in_as_in_xterm_js() {
    assert_eq!(shown(b"\x1b[44m\x1b[S"), "||||^[44m^[K^[m^[1;1H^[44m");
    assert_eq!(shown(b"\x1b[44m\x1b[T"), "||||^[1;1H^[44m", "without the background");
}

#[test]
fn wrapped_line_stays_one_line() {
    assert_eq!(shown(b"12345678901234567890abc\r\nd"), "12345678901234567890abc|d||^[3;2H");
    // Its first character is erased, or the last one of the row above.
    assert_eq!(shown(b"12345678901234567890ab\r\x1b[X"), "12345678901234567890 \r^[X^[Cb|||^[2;1H");
    assert_eq!(
        shown(b"12345678901234567890ab\x1b[A\x1b[20G\x1b[X"),
        "1234567890123456789^[20G  \r^[X^[A^[20G^[X^[B\rab|||^[1;20H"
    );
    // It begins again after a line feed or an erased beginning.
    for ends in ["\x1b[A\n", "\r\x1b[K", "\x1b[2K", "\r\x1b[J", "\x1b[A\x1b[20G\x1b[1J"] {
        let screen = screen(format!("12345678901234567890ab{ends}").as_bytes());
        assert!(!screen.state.main.rows[1].continues, "{ends:?}");
    }
    // The next character is wrapped: the last one is printed again.
    assert_eq!(shown(b"12345678901234567890"), "12345678901234567890||||^[1;20H0");
    assert_eq!(shown(b"12345678901234567890\x1b[2K"), "||||^[1;20H ^[1K");
}

#[test]
fn both_screens_and_their_cursors_are_restored() {
    let vim = b"$ vim\x1b[?1049h\x1b[?1h\x1b=\x1b[?25l\x1b[2;4r\x1b[3;3Htext\x1b[?2004h\x1b[?1000;1006h";
    assert_eq!(
        shown(vim),
        "$ vim||||^[1;6H^7^[?1049h^[H^[2J||  text||^[2;4r^[3;7H^=^[?1h^[?25l^[?2004h^[?1006h^[?1000h"
            .replace("  ", "^[2C")
    );
    let mut left = restored(&screen(vim));
    left.feed(b"\x1b[?1049l");
    assert_eq!((left.state.column, left.state.row), (5, 0));
}

#[test]
fn cursor_is_saved_behind_the_last_column() {
    let line = "12345678901234567890";
    assert_eq!(shown(format!("{line}\x1b7\r").as_bytes()), "12345678901234567890||||^[1;20H0^7^[1;1H");
    let erased = format!("{line}\x1b7\x1b[X\x1b8");
    assert_eq!(shown(erased.as_bytes()), "1234567890123456789||||^[1;20H ^7^[1;20H^[X^8^[1;20H^8");
    // That of the other screen stays while that is not used.
    assert_eq!(shown(b"\x1b[?1047h\x1b[3;3H\x1b7\x1b[?1047l\r"), "||||^[?1047h^[3;3H^7^[?1047l^[3;1H");
}

#[test]
fn modes_and_titles_are_set_last() {
    assert_eq!(shown(b"\x1b[4h\x1b[3 q\x1b[?1004h\x1b]2;t\x07"), "||||^[1;1H^[4h^[3 q^[?1004h^]2;t^\\");
    assert_eq!(shown(b"\x1b[3g\x1b[7G\x1bH\r"), "||||^[3g^[7G^H^[1;1H");
    assert_eq!(shown(b"\x1b(0q\x0e"), "─||||^[1;2H^(0\x0e");
    assert_eq!(shown(b"\x1b[=3u\x1b[>5u"), "||||^[1;1H^[=3u^[>5u");
    assert_eq!(shown(b"\x1b]0;a\x01bc\x07"), "||||^[1;1H^]0;abc^\\");
}

#[test]
fn queries_and_side_effects_leave_no_trace() {
    let silent = [
        "\x07",
        "\x05",
        "\x1b[c",
        "\x1b[>c",
        "\x1b[6n",
        "\x1b[?6n",
        "\x1b[18t",
        "\x1b[8;50;50t",
        "\x1b[x",
        "\x1b[5i",
        "\x1b]52;c;aGk=\x07",
        "\x1b]9;note\x07",
        "\x1b]777;notify;a;b\x07",
        "\x1b]11;?\x07",
        "\x1bP$qm\x1b\\",
        "\x1b_Gi=1;AAAA\x1b\\",
        "\x1b[?u",
        "\x1b[?2026$p",
        "\x1b[>q",
        "\x1b[22t",
        "\x1bZ",
        "\u{9b}c",
        "\x1b[2;4y",
        "\x1b]1337;File=:AAAA\x07",
        "\x1b[?1$p",
    ];
    silent.iter().for_each(|output| assert_eq!(shown(output.as_bytes()), "||||^[1;1H", "{output:?}"));
}

#[test]
fn smaller_screen_cuts_columns_and_moves_rows_up() {
    let mut screen = screen(b"1\r\n2\r\n3\r\n4 and more text\r\n5");
    screen.resize(Size { cols: 6, rows: 3 });
    let text = String::from_utf8(screen.snapshot(false)).expect("text").replace("\r\n", "|");
    assert_eq!(text, "\x1bc3|4 and |5\x1b[3;2H");
    screen.resize(Size { cols: 20, rows: 5 });
    let text = String::from_utf8(screen.snapshot(true)).expect("text").replace("\r\n", "|");
    assert_eq!(text, "\x1bc1|2|3|4 and |5||\x1b[3;2H", "rows come in at the bottom");
    let mut screen = self::screen(b"1\r\n2");
    screen.resize(Size { cols: 20, rows: 2 });
    assert!(screen.snapshot(true).starts_with(b"\x1bc1\r\n2"), "empty rows go first");
}

#[test]
fn missed_output_is_known_again_after_a_redraw() {
    let missed = || {
        let mut screen = screen(b"");
        screen.forget();
        screen
    };
    let lines = "line\r\n".repeat(11);
    for (output, is_known) in [
        ("text", false),
        ("\x1b[H\x1b[2Jtext", true),
        ("\x1b[H\x1b[Jtext", true),
        ("\x1b[2Jtext", false),
        ("\x1bctext", true),
        ("\x1b[?1049h\x1b[Htext", false),
        (&*lines, true),
        (&*lines.replace("\r\n", "\n"), false),
        (&*"line\r\n".repeat(9), false),
        (&*["line\r\n".repeat(6), "line\r\n".repeat(6)].join("\x1b[A"), false),
    ] {
        let mut screen = missed();
        screen.feed(output.as_bytes());
        assert_eq!(screen.is_known(), is_known, "{output:?}");
    }
    let (mut one, mut other) = (missed(), screen(b"some\r\nolder text"));
    one.feed(lines.as_bytes());
    other.feed(lines.as_bytes());
    one.state.main.forget_history();
    other.state.main.forget_history();
    assert_eq!(one.difference(&other), None);
}

/// Output that is legal, in pieces that meet each other.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let plain = prop::sample::select(vec![
        "a",
        "word ",
        "é",
        "界",
        "e\u{301}",
        "🦀",
        "\u{301}",
        "\r\n",
        "\r",
        "\n",
        "\t",
        "\x08",
        "\x0b",
        "\x0e",
        "\x0f",
        "\x1b7",
        "\x1b8",
        "\x1bD",
        "\x1bE",
        "\x1bM",
        "\x1bH",
        "\x1bc",
        "\x1b=",
        "\x1b>",
        "\x1b(0",
        "\x1b(B",
        "\x1b)0",
        "\x1b*A",
        "\x1bn",
        "\x1bo",
        "\x1b#8",
        "\x1b[!p",
        "\x1b]0;title\x07",
        "\x1b]2;other\x1b\\",
        "\x1b]1;icon\x07",
        "\x1b]8;id=1;http://a/\x07",
        "\x1b]8;;http://b/\x07",
        "\x1b]8;;\x07",
        "\x1b[1m",
        "\x1b[31m",
        "\x1b[44m",
        "\x1b[m",
        "\x1b[38;2;1;2;3m",
        "\x1b[48;5;99m",
        "\x1b[4:3m",
        "\x1b[58:5:3m",
        "\x1b[7;9m",
        "\x1b[>1u",
        "\x1b[<u",
        "\x1b[=5u",
        "\x1b[>4;2m",
        "\x1b[2 q",
        "\x1b[4h",
        "\x1b[4l",
        "\x1b[20h",
        "\x1b[20l",
        "\u{9b}3C",
    ])
    .prop_map(|piece| piece.as_bytes().to_vec());
    let sequence = (prop::sample::select(b"@ABCDEFGHIJKLMPSTXZ`abdefgrsu".to_vec()), 0_u8..24, 0_u8..24, any::<bool>())
        .prop_map(|(last, one, two, both)| {
            let two = if both { format!(";{two}") } else { String::new() };
            format!("\x1b[{one}{two}{}", char::from(last)).into_bytes()
        });
    let mode = (
        prop::sample::select(vec![
            1_u16, 5, 6, 7, 12, 25, 45, 47, 66, 1000, 1002, 1003, 1004, 1006, 1015, 1047, 1048, 1049, 2004, 2026,
        ]),
        any::<bool>(),
    )
        .prop_map(|(number, on)| format!("\x1b[?{number}{}", if on { 'h' } else { 'l' }).into_bytes());
    let text = "[a-z ]{1,30}".prop_map(String::into_bytes);
    prop_oneof![4 => plain, 4 => sequence, 1 => mode, 2 => text]
}

/// The least of some measurements: for how long this output is read.
fn reading(output: &[u8]) -> std::time::Duration {
    let measured = (0..5).map(|_| {
        let began = std::time::Instant::now();
        screen(output);
        began.elapsed()
    });
    measured.min().expect("some")
}

#[test]
fn binary_output_costs_little_more_than_text() {
    let (text, binary) = (reading(&[b'x'; 1 << 18]), reading(&[0xff; 1 << 18]));
    assert!(binary < text * 10, "{binary:?}, and text takes {text:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn snapshot_brings_a_model_to_the_same_state(
        parts in prop::collection::vec(pieces(), 0..60), size in (1_u16..30, 1_u16..8), to in (1_u16..30, 1_u16..8),
    ) {
        let mut screen = Screen::new(Size { cols: size.0, rows: size.1 });
        parts.iter().for_each(|part| screen.feed(part));
        prop_assert_eq!(restored(&screen).difference(&screen), None, "{}", screen.snapshot(true).escape_ascii());
        screen.resize(Size { cols: to.0, rows: to.1 });
        prop_assert_eq!(restored(&screen).difference(&screen), None, "after a change of the size");
        parts.iter().for_each(|part| screen.feed(part));
        prop_assert_eq!(restored(&screen).difference(&screen), None, "after output for the other size");
    }

    #[test]
    fn output_is_read_the_same_however_it_is_cut(
        parts in prop::collection::vec(pieces(), 0..30), cut in any::<prop::sample::Index>(),
    ) {
        let bytes = parts.concat();
        let (front, back) = bytes.split_at(cut.index(bytes.len() + 1));
        let mut other = screen(front);
        other.feed(back);
        prop_assert_eq!(other.difference(&screen(&bytes)), None);
    }
}
