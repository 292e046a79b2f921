//! Measures the return of a fleet: rates per second, and the times at which a share of the agents was connected again.
//!
//! Seconds count from the start of the story. A mean covers the time from when the console listens again until 99 % of
//! the agents were back. A minute is any period of sixty seconds.

use super::console::REGISTRATIONS_PER_MINUTE;
use std::collections::BTreeMap;

/// The columns of [`Figures::row`].
pub const HEADINGS: [&str; 15] = [
    "50 % back (s)",
    "99 % (s)",
    "100 % (s)",
    "dials",
    "peak dials/s",
    "peak arrivals/s",
    "peak/mean",
    "peak probes of an open port/s",
    "peak links/s",
    "peak/mean",
    "most dials of one",
    "last/median",
    "registrations/min and address",
    "later",
    "accepted",
];

/// The figures of one story.
#[derive(Clone, Debug)]
pub struct Figures {
    agents: usize,
    began_ms: u64,
    trouble_ms: u64,
    /// How long the console did not listen.
    away_ms: u64,
    /// In each second: all dials, dials and probes of the port that reached a listening console, new links, and agents
    /// that came back.
    pub(super) dials: Vec<u32>,
    pub(super) arrivals: Vec<u32>,
    pub(super) probes: Vec<u32>,
    pub(super) links: Vec<u32>,
    pub(super) returns: Vec<u32>,
    back_at_ms: Vec<u64>,
    dials_of: Vec<u32>,
    /// For each address: the time of each registration, and whether the console accepted it.
    registrations: BTreeMap<usize, Vec<(u64, bool)>>,
}

impl Figures {
    pub(super) fn new(agents: usize, began_ms: u64, trouble_ms: u64, away_ms: u64) -> Self {
        Self {
            agents,
            began_ms,
            trouble_ms,
            away_ms,
            dials: Vec::new(),
            arrivals: Vec::new(),
            probes: Vec::new(),
            links: Vec::new(),
            returns: Vec::new(),
            back_at_ms: Vec::new(),
            dials_of: vec![0; agents],
            registrations: BTreeMap::new(),
        }
    }

    pub(super) fn dialled(&mut self, now_ms: u64, member: usize) {
        if let Some(since_ms) = now_ms.checked_sub(self.began_ms) {
            count(&mut self.dials, since_ms);
            if let Some(dials) = self.dials_of.get_mut(member) {
                *dials += 1;
            }
        }
    }

    /// Records a dial that reached a listening console, whether accepted or not.
    pub(super) fn arrived(&mut self, now_ms: u64) {
        if let Some(since_ms) = now_ms.checked_sub(self.began_ms) {
            count(&mut self.arrivals, since_ms);
        }
    }

    /// Records a probe of the port that reached a listening console.
    pub(super) fn probed(&mut self, now_ms: u64) {
        if let Some(since_ms) = now_ms.checked_sub(self.began_ms) {
            count(&mut self.probes, since_ms);
        }
    }

    pub(super) fn opened(&mut self, now_ms: u64) {
        if let Some(since_ms) = now_ms.checked_sub(self.began_ms) {
            count(&mut self.links, since_ms);
        }
    }

    pub(super) fn is_back(&mut self, now_ms: u64) {
        let since_ms = now_ms.saturating_sub(self.began_ms);
        count(&mut self.returns, since_ms);
        self.back_at_ms.push(since_ms);
    }

    pub(super) fn registered(&mut self, now_ms: u64, address: usize, accepted: bool) {
        if now_ms >= self.began_ms {
            self.registrations.entry(address).or_default().push((now_ms, accepted));
        }
    }

    pub(super) fn conclude(&mut self) {
        self.back_at_ms.sort_unstable();
    }

    pub(super) fn agents(&self) -> usize {
        self.agents
    }

    /// How many agents came back. An agent that did so twice counts twice.
    pub fn back(&self) -> usize {
        self.back_at_ms.len()
    }

    /// All dials since the start of the story.
    pub fn dials(&self) -> u32 {
        self.dials.iter().sum()
    }

    /// The time at which this percentage was back, in milliseconds; `None` if it never was.
    pub fn back_ms(&self, percent: usize) -> Option<u64> {
        let place = (self.agents * percent).div_ceil(100).max(1) - 1;
        self.back_at_ms.get(place).copied()
    }

    /// The time at which this percentage was back, in milliseconds since the console listens again.
    pub fn back_after_listening_ms(&self, percent: usize) -> Option<u64> {
        Some(self.back_ms(percent)?.saturating_sub(self.away_ms))
    }

    /// The most dials in one second, whether or not the console listened.
    pub fn peak_dials(&self) -> u32 {
        self.dials.iter().copied().max().unwrap_or(0)
    }

    /// The most dials in one second that reached a listening console, and the ratio of this peak to the mean.
    pub fn arrivals(&self) -> (u32, f64) {
        self.peak(&self.arrivals)
    }

    /// The most new links in one second, and the ratio of this peak to the mean.
    pub fn links(&self) -> (u32, f64) {
        self.peak(&self.links)
    }

    /// A peak, and its ratio to the mean from when the console listens again until 99 % were back.
    fn peak(&self, counts: &[u32]) -> (u32, f64) {
        let place = |ms: u64| usize::try_from(ms / 1_000).unwrap_or(usize::MAX);
        let seconds = self.back_after_listening_ms(99).unwrap_or(0).div_ceil(1_000).max(1);
        let total: u32 = counts.iter().skip(place(self.away_ms)).take(place(seconds * 1_000)).sum();
        let peak = counts.iter().copied().max().unwrap_or(0);
        let seconds = f64::from(u32::try_from(seconds).unwrap_or(u32::MAX));
        (peak, f64::from(peak) * seconds / f64::from(total.max(1)))
    }

    /// How long after the end of the outage the last agent came back, divided by the same time of the median agent: 1
    /// is fair. `None` if half of the agents were back before the end.
    pub fn last_to_median(&self) -> Option<f64> {
        let after = |percent| self.back_ms(percent)?.checked_sub(self.trouble_ms).and_then(|ms| u32::try_from(ms).ok());
        let (last, median) = (after(100)?, after(50)?);
        Some(f64::from(last) / f64::from(median.max(1)))
    }

    /// The most dials that one agent needed.
    pub fn most_dials(&self) -> u32 {
        self.dials_of.iter().copied().max().unwrap_or(0)
    }

    /// The most registrations that one address sent in any minute.
    pub fn registrations_per_minute(&self) -> usize {
        self.busiest_minute_of(|_, _, _| true)
    }

    /// The same without the first minute of each address. All of these registrations follow a `Retry-After`.
    pub fn registrations_per_minute_later(&self) -> usize {
        self.busiest_minute_of(|first_ms, at_ms, _| at_ms >= first_ms + 60_000)
    }

    /// The most registrations that the console accepted from one address in any minute.
    pub fn accepted_per_minute(&self) -> usize {
        self.busiest_minute_of(|_, _, accepted| accepted)
    }

    /// The ratio of that to the console's limit for an address. The console's minutes start with a request, so a minute
    /// here may cover the end of one and the beginning of the next.
    pub fn accepted_to_limit(&self) -> f64 {
        let most = u32::try_from(self.accepted_per_minute()).unwrap_or(u32::MAX);
        f64::from(most) / f64::from(REGISTRATIONS_PER_MINUTE)
    }

    /// How many registrations an agent sent, on average.
    pub fn registrations_of_one(&self) -> f64 {
        let sent: usize = self.registrations.values().map(Vec::len).sum();
        let float = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        float(sent) / float(self.agents.max(1))
    }

    /// How many registrations an address sent in each minute since its first one, on average.
    pub fn registrations_by_minute(&self) -> Vec<f64> {
        let mut minutes = Vec::new();
        for times in self.registrations.values() {
            let first_ms = times.first().map_or(0, |(at_ms, _)| *at_ms);
            // `count` expects seconds, so a minute counts as one second here.
            times.iter().for_each(|(at_ms, _)| count(&mut minutes, (at_ms - first_ms) / 60));
        }
        let addresses = f64::from(u32::try_from(self.registrations.len().max(1)).unwrap_or(u32::MAX));
        minutes.into_iter().map(|sent| f64::from(sent) / addresses).collect()
    }

    /// The most registrations in a minute for which `counts` is true. Its arguments: the time of the address's first
    /// registration, the time of this one, and whether it was accepted.
    fn busiest_minute_of(&self, counts: impl Fn(u64, u64, bool) -> bool) -> usize {
        let of_address = |times: &Vec<(u64, bool)>| {
            let first_ms = times.first().map_or(0, |(at_ms, _)| *at_ms);
            let counted = times.iter().filter(|(at_ms, accepted)| counts(first_ms, *at_ms, *accepted));
            busiest_minute(&counted.map(|(at_ms, _)| *at_ms).collect::<Vec<_>>())
        };
        self.registrations.values().map(of_address).max().unwrap_or(0)
    }

    /// One row of the table, under [`HEADINGS`].
    pub fn row(&self) -> Vec<String> {
        let seconds = |percent| match self.back_ms(percent) {
            Some(ms) => format!("{}.{}", ms / 1_000, ms % 1_000 / 100),
            None => "never".to_owned(),
        };
        let ((arrivals, arrivals_to_mean), (links, links_to_mean)) = (self.arrivals(), self.links());
        vec![
            seconds(50),
            seconds(99),
            seconds(100),
            self.dials().to_string(),
            self.peak_dials().to_string(),
            arrivals.to_string(),
            format!("{arrivals_to_mean:.1}"),
            self.probes.iter().max().copied().unwrap_or(0).to_string(),
            links.to_string(),
            format!("{links_to_mean:.1}"),
            self.most_dials().to_string(),
            self.last_to_median().map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.1}")),
            self.registrations_per_minute().to_string(),
            self.registrations_per_minute_later().to_string(),
            self.accepted_per_minute().to_string(),
        ]
    }
}

fn count(seconds: &mut Vec<u32>, since_ms: u64) {
    let second = usize::try_from(since_ms / 1_000).unwrap_or(0);
    if seconds.len() <= second {
        seconds.resize(second + 1, 0);
    }
    if let Some(count) = seconds.get_mut(second) {
        *count += 1;
    }
}

/// The most entries of a sorted list within one minute.
fn busiest_minute(times: &[u64]) -> usize {
    let in_minute_from =
        |(place, from): (usize, &u64)| times.iter().skip(place).take_while(|time| **time < from + 60_000).count();
    times.iter().enumerate().map(in_minute_from).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_covers_the_time_until_nearly_all_are_back() {
        let mut figures = Figures::new(4, 10_000, 0, 0);
        for (at_ms, member) in [(10_100, 0), (10_200, 1), (10_300, 2), (13_000, 3)] {
            figures.dialled(at_ms, member);
            figures.arrived(at_ms);
            figures.is_back(at_ms + 50);
        }
        figures.conclude();
        assert_eq!(figures.back_ms(50), Some(250));
        assert_eq!(figures.back_ms(99), Some(3_050));
        let (peak, to_mean) = figures.arrivals();
        assert_eq!(peak, 3);
        assert!((to_mean - 3.0).abs() < 1e-9, "{figures:?}");
        assert_eq!(figures.last_to_median(), Some(3_050.0 / 250.0));
        figures.trouble_ms = 260;
        assert_eq!(figures.last_to_median(), None);
        // The first two seconds do not count.
        figures.away_ms = 2_000;
        assert_eq!(figures.back_after_listening_ms(99), Some(1_050));
        let (_, to_mean) = figures.arrivals();
        assert!((to_mean - 6.0).abs() < 1e-9, "{figures:?}");
    }

    #[test]
    fn registrations_are_counted_by_address_and_outcome() {
        let mut figures = Figures::new(4, 10_000, 0, 0);
        figures.registered(9_000, 1, true);
        for (at_ms, accepted) in [(10_000, true), (11_000, false), (12_000, false), (71_000, true), (72_000, false)] {
            figures.registered(at_ms, 1, accepted);
        }
        figures.registered(50_000, 2, true);
        assert_eq!(figures.registrations_per_minute(), 3);
        assert_eq!(figures.registrations_per_minute_later(), 2);
        assert_eq!(figures.accepted_per_minute(), 1);
        assert_eq!(figures.registrations_by_minute(), [2.0, 1.0]);
        assert!((figures.registrations_of_one() - 1.5).abs() < 1e-9, "{figures:?}");
    }

    #[test]
    fn minute_may_begin_anywhere() {
        assert_eq!(busiest_minute(&[0, 50_000, 59_000, 61_000, 109_000]), 4);
        assert_eq!(busiest_minute(&[]), 0);
    }
}
