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
    /// Half of them, and 99 %, in seconds since the console listens again.
    back_after_listening_s: Option<(u32, u32)>,
    /// The last one comes at most so much later than the one in the middle.
    last_to_median: f64,
    /// The most arrivals, and the most links that come up, in a second, against the mean until 99 % are back.
    peak_to_mean: Option<(f64, f64)>,
    /// The most registrations that an address sends in a minute, and in any but its first.
    registrations: (usize, usize),
}

/// A console that goes away, with notice or without: the probes of its port bring all agents back within seconds, and
/// the wait that follows an open port spreads them. An agent that remembers its id does not register.
const GOES_AWAY: Bounds = Bounds {
    story: Story::Restart,
    back_s: 25,
    back_after_listening_s: Some((8, 15)),
    last_to_median: 3.0,
    peak_to_mean: Some((2.5, 2.5)),
    registrations: (0, 0),
};
const LONG_AWAY: Bounds = Bounds { story: Story::LongRestart, back_s: 80, ..GOES_AWAY };

/// A console that knows no agent: of a hundred behind one address ten get through in a minute, which takes ten minutes
/// and decides everything else. An agent that waits asks once a minute.
const KNOWS_NOBODY: Bounds = Bounds {
    story: Story::Forgets,
    back_s: 660,
    back_after_listening_s: None,
    last_to_median: 3.0,
    peak_to_mean: None,
    registrations: (150, 150),
};

const BOUNDS: [Bounds; 6] = [
    GOES_AWAY,
    Bounds { story: Story::Crash, ..GOES_AWAY },
    LONG_AWAY,
    Bounds { story: Story::LongCrash, ..LONG_AWAY },
    KNOWS_NOBODY,
    Bounds { story: Story::ColdStart, ..KNOWS_NOBODY },
];

/// The console takes ten registrations in a minute that begins with one: in any other sixty seconds at most twice that.
const ACCEPTED_TO_LIMIT_MAX: f64 = 2.0;

/// An agent registers so often at most, as a mean of all: in each minute one more tenth of them gets through.
const REGISTRATIONS_OF_ONE_MAX: f64 = 6.0;

/// A lone agent is back within this, in seconds since the console listens again.
const LONE_AGENT_BACK_S: f64 = 10.0;

/// How many lone agents are looked at, in each story.
const LONE_AGENTS: u64 = 2_000;

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
        // As long as no port is probed.
        "unprobed" => Some(Policy { port_probes_max: 0, ..ours }),
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
        let mut compared = compare(&bounds, &figures);
        if bounds.back_after_listening_s.is_some() {
            compared.push((
                "seconds until a lone agent is back",
                lone_agent_s(bounds.story, options),
                LONE_AGENT_BACK_S,
            ));
        }
        for (what, is, at_most) in compared {
            let verdict = if is <= at_most { "ok" } else { "BROKEN" };
            broken += u32::from(is > at_most);
            println!("fleet, {}: {what} {is:.1}, at most {at_most:.1}: {verdict}", bounds.story.name());
        }
    }
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How long the slowest of many lone agents was away after the console listened again, in seconds.
fn lone_agent_s(story: Story, options: &Options) -> f64 {
    let back_s = |seed| {
        let figures = Fleet { seed, ..fleet(1, options) }.live(story);
        seconds(figures.back_after_listening_ms(100))
    };
    (options.seed..options.seed + LONE_AGENTS).map(back_s).fold(0.0, f64::max)
}

fn seconds(ms: Option<u64>) -> f64 {
    ms.and_then(|ms| u32::try_from(ms).ok()).map_or(f64::INFINITY, |ms| f64::from(ms) / 1e3)
}

/// What is held against what.
fn compare(bounds: &Bounds, figures: &Figures) -> Vec<(&'static str, f64, f64)> {
    let float = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let (any, later) = bounds.registrations;
    let mut list = vec![
        ("seconds until all are back", seconds(figures.back_ms(100)), f64::from(bounds.back_s)),
        ("last to median", figures.last_to_median().unwrap_or(f64::INFINITY), bounds.last_to_median),
        ("registrations a minute and address", float(figures.registrations_per_minute()), float(any)),
        ("the same after the first minute", float(figures.registrations_per_minute_later()), float(later)),
        ("those accepted, to the limit", figures.accepted_to_limit(), ACCEPTED_TO_LIMIT_MAX),
        ("registrations of one, in all", figures.registrations_of_one(), REGISTRATIONS_OF_ONE_MAX),
    ];
    if let Some((half, most)) = bounds.back_after_listening_s {
        let after = |percent| seconds(figures.back_after_listening_ms(percent));
        list.push(("seconds until half are back after it listens", after(50), half.into()));
        list.push(("seconds until 99 % are back after it listens", after(99), most.into()));
    }
    if let Some((arrivals, links)) = bounds.peak_to_mean {
        list.push(("peak of arrivals a second to mean", figures.arrivals().1, arrivals));
        list.push(("peak of links a second to mean", figures.links().1, links));
    }
    list
}
