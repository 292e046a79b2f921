//! A small picture of a fleet's return: dials a second as bars, the share that is back as a line.
//!
//! It writes SVG by hand, without a script or a font of its own, so that it can stand in a README.

use super::Figures;
use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 200.0;
const MARGIN: f64 = 40.0;

/// The most bars; seconds are put together where there are more.
const BARS_MAX: usize = 200;

/// The picture of one story.
pub fn svg(title: &str, figures: &Figures) -> String {
    let seconds = figures.dials.len().max(figures.returns.len()).max(1);
    let per_bar = seconds.div_ceil(BARS_MAX);
    let bars: Vec<f64> =
        figures.dials.chunks(per_bar).map(|bar| f64::from(bar.iter().sum::<u32>()) / float(bar.len())).collect();
    let peak = bars.iter().copied().fold(1.0, f64::max);
    let scale = (WIDTH - 2.0 * MARGIN) / float(seconds);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n<text x=\"{MARGIN}\" \
         y=\"16\">{title}</text>\n<g fill=\"#9bb8d3\">\n"
    );
    for (place, dials) in bars.iter().enumerate() {
        let (x, wide) = (MARGIN + float(place * per_bar) * scale, float(per_bar) * scale);
        let high = dials / peak * (HEIGHT - 2.0 * MARGIN);
        let y = HEIGHT - MARGIN - high;
        line(&mut text, format_args!("<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.2}\" height=\"{high:.1}\"/>"));
    }
    text.push_str("</g>\n");
    let mut back = 0;
    let points: Vec<String> = (0..seconds)
        .map(|second| {
            back += figures.returns.get(second).copied().unwrap_or(0);
            let share = f64::from(back) / float(figures.agents().max(1));
            let x = MARGIN + float(second + 1) * scale;
            format!("{x:.1},{:.1}", HEIGHT - MARGIN - share.min(1.0) * (HEIGHT - 2.0 * MARGIN))
        })
        .collect();
    let (right, floor) = (WIDTH - MARGIN, HEIGHT - MARGIN);
    line(
        &mut text,
        format_args!(
            "<polyline fill=\"none\" stroke=\"#b4441c\" stroke-width=\"1.5\" points=\"{}\"/>",
            points.join(" ")
        ),
    );
    line(&mut text, format_args!("<path d=\"M{MARGIN} {MARGIN}V{floor}H{right}\" fill=\"none\" stroke=\"#444\"/>"));
    line(&mut text, format_args!("<text x=\"4\" y=\"{MARGIN}\" fill=\"#4a7198\">{peak:.0}/s</text>"));
    line(&mut text, format_args!("<text x=\"{right}\" y=\"{MARGIN}\" fill=\"#b4441c\">100 %</text>"));
    line(&mut text, format_args!("<text x=\"{MARGIN}\" y=\"{}\">0 s</text>", HEIGHT - 22.0));
    line(&mut text, format_args!("<text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{seconds} s</text>", HEIGHT - 22.0));
    text.push_str("</svg>\n");
    text
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{what}");
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
