//! `draupnir-sim fleet`: the figures of fleets as a table, plots of them as files, and whether the bounds hold.
//!
//! It measures nothing itself; see [`draupnir_sim::fleet`].

use draupnir_fsm::limits::Policy;
use draupnir_sim::fleet::{Figures, Fleet, HEADINGS, Story, svg};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The fleets of the README.
const SIZES: [usize; 3] = [100, 10_000, 100_000];

/// The fleet that the bounds are about.
const BOUND_AGENTS: usize = 10_000;

/// What a story may come to. Where nothing else is said the bounds lie a little above what is measured.
struct Bounds {
    story: Story,
    /// All must be back by then, in seconds from the beginning of the story.
    back_s: u32,
    /// The last one comes at most so much later than the one in the middle.
    last_to_median: f64,
    /// The most arrivals, and the most links that come up, in a second, against the mean until 99 % are back.
    peak_to_mean: Option<(f64, f64)>,
    /// The most registrations that an address sends in a minute, and in any but its first.
    registrations: (usize, usize),
}

/// A console that goes away, with notice or without: the arrivals are those of the table of waits, which the links, of
/// which the console lets through so many a second, stay below. An agent that remembers its id does not register.
const GOES_AWAY: Bounds = Bounds {
    story: Story::Restart,
    back_s: 90,
    last_to_median: 7.0,
    peak_to_mean: Some((4.0, 3.0)),
    registrations: (0, 0),
};

/// A console that knows no agent: of a hundred behind one address ten get through in a minute, which takes ten minutes
/// and decides everything else. An agent that waits asks once a minute.
const KNOWS_NOBODY: Bounds =
    Bounds { story: Story::Forgets, back_s: 660, last_to_median: 3.0, peak_to_mean: None, registrations: (150, 150) };

const BOUNDS: [Bounds; 4] = [
    GOES_AWAY,
    Bounds { story: Story::Crash, ..GOES_AWAY },
    KNOWS_NOBODY,
    Bounds { story: Story::ColdStart, ..KNOWS_NOBODY },
];

/// The console takes ten registrations in a minute that begins with one: in any other sixty seconds at most twice that.
const ACCEPTED_TO_LIMIT_MAX: f64 = 2.0;

/// An agent registers so often at most, as a mean of all: in each minute one more tenth of them gets through.
const REGISTRATIONS_OF_ONE_MAX: f64 = 6.0;

/// Clients behind one address.
const BEHIND_ONE_ADDRESS: usize = 100;

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
    for bounds in BOUNDS {
        let figures = fleet(BOUND_AGENTS, options).live(bounds.story);
        for (what, is, at_most) in compare(&bounds, &figures) {
            let verdict = if is <= at_most { "ok" } else { "BROKEN" };
            broken += u32::from(is > at_most);
            println!("fleet, {}: {what} {is:.1}, at most {at_most:.1}: {verdict}", bounds.story.name());
        }
    }
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is held against what.
fn compare(bounds: &Bounds, figures: &Figures) -> Vec<(&'static str, f64, f64)> {
    let float = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let back_s = figures.back_ms(100).map_or(f64::INFINITY, |ms| float(usize::try_from(ms).unwrap_or(0)) / 1e3);
    let (any, later) = bounds.registrations;
    let mut list = vec![
        ("seconds until all are back", back_s, f64::from(bounds.back_s)),
        ("last to median", figures.last_to_median().unwrap_or(f64::INFINITY), bounds.last_to_median),
        ("registrations a minute and address", float(figures.registrations_per_minute()), float(any)),
        ("the same after the first minute", float(figures.registrations_per_minute_later()), float(later)),
        ("those accepted, to the limit", figures.accepted_to_limit(), ACCEPTED_TO_LIMIT_MAX),
        ("registrations of one, in all", figures.registrations_of_one(), REGISTRATIONS_OF_ONE_MAX),
    ];
    if let Some((arrivals, links)) = bounds.peak_to_mean {
        list.push(("peak of arrivals a second to mean", figures.arrivals().1, arrivals));
        list.push(("peak of links a second to mean", figures.links().1, links));
    }
    list
}
