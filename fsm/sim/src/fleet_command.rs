//! `draupnir-sim fleet`: the figures of fleets as a table, plots of them as files, and whether the bounds hold.
//!
//! It measures nothing itself; see [`draupnir_sim::fleet`].

use draupnir_fsm::limits::Policy;
use draupnir_sim::fleet::{Figures, Fleet, HEADINGS, Story, svg};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The fleets of the README.
const SIZES: [usize; 3] = [100, 10_000, 100_000];

/// The fleet and the stories that the bounds are about: a console that goes away, with notice or without.
const BOUND_AGENTS: usize = 10_000;
const BOUND_STORIES: [Story; 2] = [Story::Restart, Story::Crash];

/// All must be back by then, in milliseconds.
const BACK_MS_MAX: u64 = 90_000;

/// The most links that come up in a second, against the mean until 99 % are back.
const PEAK_TO_MEAN_MAX: f64 = 3.0;

/// The last one comes at most so much later than the one in the middle.
const LAST_TO_MEDIAN_MAX: f64 = 10.0;

/// Clients behind one address, and how far they may exceed the limit of registrations when the console restarts.
const BEHIND_ONE_ADDRESS: usize = 100;
const REGISTRATIONS_TO_LIMIT_MAX: f64 = 2.0;

struct Options {
    sizes: Vec<usize>,
    accepts_per_second: u64,
    seed: u64,
    folder: Option<PathBuf>,
    check: bool,
    policy: Policy,
}

/// Runs the command.
pub(crate) fn run(arguments: &[String]) -> Option<ExitCode> {
    let options = parse(arguments)?;
    if options.check {
        return Some(check(&options));
    }
    for agents in &options.sizes {
        println!("{agents} agents, {} connections accepted a second\n", options.accepts_per_second);
        println!("| story | {} |", HEADINGS.join(" | "));
        println!("|---|{}", "---|".repeat(HEADINGS.len()));
        for story in Story::ALL {
            let figures = fleet(*agents, &options).live(story);
            println!("| {} | {} |", story.name(), figures.row().join(" | "));
            if let Some(folder) = &options.folder
                && let Err(error) = plot(folder, *agents, story, &figures)
            {
                eprintln!("no plot in {}: {error}", folder.display());
                return Some(ExitCode::FAILURE);
            }
        }
        println!();
    }
    Some(ExitCode::SUCCESS)
}

fn parse(arguments: &[String]) -> Option<Options> {
    let mut options = Options {
        sizes: SIZES.to_vec(),
        accepts_per_second: 1_000,
        seed: 1,
        folder: None,
        check: false,
        policy: Policy::default(),
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--agents" => options.sizes = vec![arguments.next()?.parse().ok()?],
            "--accepts" => options.accepts_per_second = arguments.next()?.parse().ok()?,
            "--seed" => options.seed = arguments.next()?.parse().ok()?,
            "--out" => options.folder = Some(PathBuf::from(arguments.next()?)),
            "--check" => options.check = true,
            "--policy" => options.policy = policy(arguments.next()?)?,
            _ => return None,
        }
    }
    Some(options)
}

/// The policy of the agent, or one to hold it against.
fn policy(name: &str) -> Option<Policy> {
    let ours = Policy::default();
    match name {
        "ours" => Some(ours),
        // What many clients do: exponential from a second, full jitter, and no regard for notice.
        "exponential" => Some(Policy {
            first_retry_ms: 1_000,
            away_retry_ms: 1_000,
            retry_base_ms: 1_000,
            retry_cap_ms: 30_000,
            ..ours
        }),
        // Half as wide again after notice, and for the second try.
        "wider" => Some(Policy { away_retry_ms: 15_000, retry_base_ms: 12_000, ..ours }),
        _ => None,
    }
}

fn fleet(agents: usize, options: &Options) -> Fleet {
    Fleet {
        policy: options.policy.clone(),
        agents,
        accepts_per_second: options.accepts_per_second,
        behind_one_address: BEHIND_ONE_ADDRESS,
        seed: options.seed,
    }
}

fn plot(folder: &Path, agents: usize, story: Story, figures: &Figures) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let title = format!("{agents} agents, {}: dials a second, and the share that is back", story.name());
    std::fs::write(folder.join(format!("{}_{agents}.svg", story.name())), svg(&title, figures))
}

/// Holds the figures against the bounds; says which are broken.
fn check(options: &Options) -> ExitCode {
    let mut broken = 0;
    let mut hold = |story: Story, what: &str, is: f64, at_most: f64| {
        let verdict = if is <= at_most { "ok" } else { "BROKEN" };
        broken += u32::from(is > at_most);
        println!("fleet, {}: {what} {is:.1}, at most {at_most:.1}: {verdict}", story.name());
    };
    for story in BOUND_STORIES {
        let figures = fleet(BOUND_AGENTS, options).live(story);
        let seconds =
            figures.back_ms(100).map_or(f64::INFINITY, |ms| f64::from(u32::try_from(ms).unwrap_or(u32::MAX)) / 1e3);
        hold(story, "seconds until all are back", seconds, f64::from(u32::try_from(BACK_MS_MAX / 1_000).unwrap_or(0)));
        hold(story, "peak of links a second to mean", figures.links().1, PEAK_TO_MEAN_MAX);
        hold(story, "last to median", figures.last_to_median(), LAST_TO_MEDIAN_MAX);
        hold(story, "registrations to limit", figures.registrations_to_limit(), REGISTRATIONS_TO_LIMIT_MAX);
    }
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
