//! The live view: draws the model as rows of a terminal.
//!
//! It returns rows of the given size and writes nothing. Every figure may be missing.

use std::time::Instant;

use serde_json::Value;

use crate::command::Command;
use crate::model::{Link, Model};
use crate::paint::{Row, Style, bytes, long};

/// The widest a bar gets, in cells.
const BAR_CELLS: usize = 30;

/// The most cores with their own bar.
const CORES_MAX: usize = 16;

/// The columns of a cell with a fact about the agent: three cells in a terminal of 80 columns.
const FACT_COLUMNS: usize = 26;

/// The keys, in 80 columns.
const KEYS: &str = "t shell  : command  c cancel it  w page  x cut link  r restart console  q quit";

/// The content of the last row.
pub(crate) enum Prompt<'a> {
    /// The keys.
    Keys,
    /// A command line being typed.
    Line(&'a str),
}

/// All rows, exactly as many as the terminal has. A wide line continues in the next row.
pub(crate) fn rows(
    model: &Model,
    command: &Command,
    prompt: &Prompt<'_>,
    (columns, rows): (usize, usize),
    now: Instant,
) -> Vec<Row> {
    let wrap = |rows: Vec<Row>| rows.into_iter().flat_map(move |row| row.wrapped(columns)).collect::<Vec<Row>>();
    let mut shown = wrap(head(model, columns, now));
    shown.push(Row::new());
    shown.extend(wrap(measures(&model.metrics)));
    let left = rows.saturating_sub(shown.len() + 3); // two headings and the prompt
    let for_output = if command.line.is_empty() { 0 } else { left / 2 };
    shown.push(Row::new().with(Style::Bold, "Events"));
    shown.extend(last(wrap(events(model, left - for_output)), left - for_output));
    if for_output > 0 {
        let status = command.status(now);
        shown.push(
            Row::new().with(Style::Bold, "$ ").with(Style::Bold, &command.line).with(Style::Dim, format!("  {status}")),
        );
        let output = command.lines(for_output).iter().map(|line| Row::of_output(line)).collect();
        shown.extend(last(wrap(output), for_output));
    }
    shown.truncate(rows.saturating_sub(1));
    shown.resize(rows.saturating_sub(1), Row::new());
    shown.push(match prompt {
        Prompt::Keys => Row::new().with(Style::Dim, KEYS),
        Prompt::Line(line) => {
            let too_many = line.chars().count().saturating_sub(columns.saturating_sub(3)); // ": " and the cursor
            let end: String = line.chars().skip(too_many).collect();
            Row::new().with(Style::Bold, ": ").with(Style::Plain, end).with(Style::Dim, "█")
        }
    });
    shown
}

fn last(mut rows: Vec<Row>, count: usize) -> Vec<Row> {
    rows.split_off(rows.len().saturating_sub(count))
}

fn head(model: &Model, columns: usize, now: Instant) -> Vec<Row> {
    let (style, link) = match &model.link {
        Link::Awaited => (Style::Warning, "waiting for the agent".to_owned()),
        Link::Registered => (Style::Warning, "registered".to_owned()),
        Link::Connecting => (Style::Warning, "connecting".to_owned()),
        Link::Connected => (Style::Good, "connected".to_owned()),
        Link::Draining => (Style::Warning, "draining".to_owned()),
        Link::Lost(how) => (Style::Bad, format!("link lost ({how})")),
        Link::Exited(how) => (Style::Bad, format!("agent ended ({how})")),
    };
    let text = |key: &str| model.registration[key].as_str().unwrap_or("-").to_owned();
    let heartbeat = model.heartbeat_at.map(|at| now.saturating_duration_since(at).as_secs_f64());
    let facts = [
        ("instance", model.id.clone()),
        ("host", text("hostname")),
        ("version", text("agent_version")),
        ("provider", text("provider")),
        ("region", text("region")),
        ("system", format!("{}/{}", text("os"), text("arch"))),
        ("uptime", model.uptime(now).map_or("-".to_owned(), long)),
        ("heartbeat", heartbeat.map_or("-".to_owned(), |age| format!("{age:.1} s ago"))),
        ("messages", format!("{:.1}/s, {} in all", model.messages_per_second(now), model.messages)),
        ("links", model.connections.to_string()),
    ];
    let mut rows = vec![Row::new().with(Style::Bold, "Draupnir  ").with(style, format!("● {link}"))];
    if !model.page.is_empty() {
        rows.push(Row::new().with(Style::Dim, "page ").with(Style::Plain, &model.page));
    }
    let (mut row, mut used) = (Row::new(), 0_usize);
    for (name, value) in facts {
        let fact_columns = name.len() + 1 + value.chars().count();
        let start = if used == 0 { 0 } else { (used + 1).next_multiple_of(FACT_COLUMNS) };
        if start > 0 && start + fact_columns > columns {
            rows.push(std::mem::take(&mut row));
            used = 0;
        }
        let blanks = if used == 0 { 0 } else { start - used };
        row = row.with(Style::Dim, format!("{:blanks$}{name} ", "")).with(Style::Plain, value);
        used += blanks + fact_columns;
    }
    rows.push(row);
    rows
}

fn measures(metrics: &Value) -> Vec<Row> {
    if metrics.is_null() {
        return vec![Row::new().with(Style::Dim, "no metrics yet")];
    }
    let cpu = &metrics["cpu"];
    let load = ["load_avg_1", "load_avg_5", "load_avg_15"].map(|key| format!("{:.2}", number(&cpu[key])));
    let mut rows = vec![measure("cpu", number(&cpu["usage_percent"]), &format!("load {}", load.join(" ")))];
    let cores = cpu["per_core"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (n, core) in cores.iter().take(CORES_MAX).enumerate() {
        rows.push(measure(&format!(" core {n}"), number(core), ""));
    }
    let memory = &metrics["memory"];
    rows.push(measure("memory", number(&memory["usage_percent"]), &used_of(memory, "used_bytes", "total_bytes")));
    if memory["swap_total_bytes"].as_u64().is_some_and(|total| total > 0) {
        let percent = 100.0 * number(&memory["swap_used_bytes"]) / number(&memory["swap_total_bytes"]);
        rows.push(measure("swap", percent, &used_of(memory, "swap_used_bytes", "swap_total_bytes")));
    }
    for disk in metrics["disk"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let words =
            format!("{} {}", used_of(disk, "used_bytes", "total_bytes"), disk["mount_point"].as_str().unwrap_or("?"));
        rows.push(measure("disk", number(&disk["usage_percent"]), &words));
    }
    let network = |key: &str| bytes(metrics["network"][key].as_u64().unwrap_or_default());
    let words = format!("{} out, {} in", network("bytes_sent"), network("bytes_recv"));
    rows.push(Row::new().with(Style::Dim, format!("{:<8} ", "network")).with(Style::Plain, words));
    rows
}

fn measure(name: &str, percent: f64, words: &str) -> Row {
    let row = Row::new().with(Style::Dim, format!("{name:<8} ")).with_bar(percent, BAR_CELLS);
    row.with(Style::Plain, format!(" {percent:>5.1} %  {words}"))
}

fn used_of(group: &Value, used: &str, total: &str) -> String {
    let size = |key: &str| bytes(group[key].as_u64().unwrap_or_default());
    format!("{} of {}", size(used), size(total))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn events(model: &Model, count: usize) -> Vec<Row> {
    let skipped = model.events.len().saturating_sub(count);
    let newest = model.events.iter().skip(skipped);
    newest
        .map(|(at_ms, words)| {
            let at = format!("{:>8}.{:03} s  ", at_ms / 1000, at_ms % 1000);
            Row::new().with(Style::Dim, at).with(Style::Plain, words)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_fits_any_size() {
        let metrics = json!({"cpu": {"per_core": [1, 2, 3]}, "memory": {"swap_total_bytes": 5}, "disk": [{}, null]});
        let mut model = Model::default();
        model.metrics = metrics;
        let mut command = Command::default();
        for line in ["", "ls"] {
            line.clone_into(&mut command.line);
            for size in 0..60 {
                for columns in [0, 1, 80] {
                    let shown = rows(&model, &command, &Prompt::Keys, (columns, size), Instant::now());
                    assert_eq!(shown.len(), size.max(1));
                }
            }
        }
    }

    #[test]
    fn eighty_columns_cut_no_fact_and_no_event() {
        const COLUMNS: usize = 80;
        let host = "a-host-name-that-is-as-long-as-those-of-some-providers-are.internal";
        let mut model = Model::default();
        model.registration = json!({"hostname": host, "region": "region", "os": "linux", "arch": "amd64"});
        model.events.push_back((1, "event ".repeat(30) + "ends"));
        let shown = rows(&model, &Command::default(), &Prompt::Keys, (COLUMNS, 24), Instant::now());
        let drawn: String = shown.iter().map(|row| row.render(COLUMNS)).collect();
        for text in [host, "linux/amd64", "links", "ends", KEYS] {
            assert!(drawn.contains(text), "{text}: {drawn}");
        }
    }
}
