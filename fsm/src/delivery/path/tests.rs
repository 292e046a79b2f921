//! Every window for every way: all bandwidths around the powers of two, all round trips of a second, and those around
//! the powers of two up to an outage of years.

use super::*;
use alloc::vec::Vec;

const ROUND_TRIP_MS_MAX: u64 = 1 << 40;

/// In rising order.
fn around_powers() -> Vec<u64> {
    let powers = (2..u64::BITS).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]);
    (0..3).chain(powers).chain([u64::MAX]).collect()
}

fn way(bandwidth: u64, round_trip_ms: u64, phase: Phase) -> PathModel {
    let samples = [bandwidth; ROUNDS_KEPT];
    PathModel { round_trip_ms_min: Some(round_trip_ms), samples, phase, ..PathModel::default() }
}

/// The phases whose window follows from bandwidth and round trip, the smallest window first.
fn phases() -> [Phase; 3] {
    [Phase::Dip { ping: None, shorter: false }, Phase::cruise(true), Phase::Startup { flat: 0, best: 0 }]
}

#[test]
fn every_window_is_within_its_bounds_and_grows_with_the_way() {
    let long = around_powers().into_iter().filter(|ms| (1_001..ROUND_TRIP_MS_MAX).contains(ms));
    let round_trips = (0..=1_000).chain(long);
    let mut windows = 0_u64;
    for round_trip_ms in round_trips {
        let mut smaller = [0; 3];
        for bandwidth in around_powers() {
            let of_phases = phases().map(|phase| way(bandwidth, round_trip_ms, phase).window());
            let bounds = LINK_WINDOW_BYTES_MIN..=LINK_WINDOW_BYTES_MAX;
            assert!(
                of_phases.iter().all(|window| bounds.contains(window)),
                "{bandwidth} {round_trip_ms} {of_phases:?}"
            );
            assert!(of_phases.is_sorted(), "{bandwidth} {round_trip_ms} {of_phases:?}");
            assert!(smaller.iter().zip(&of_phases).all(|(less, more)| less <= more), "{bandwidth} {round_trip_ms}");
            // What is under way beside a queue of the target is never more than the way holds.
            let holds = u128::from(bandwidth) * u128::from(round_trip_ms + QUEUE_TARGET_MS) / 1_000;
            let [dip, cruise, _] = of_phases.map(u128::from);
            assert!(cruise <= holds.max(LINK_WINDOW_BYTES_MIN.into()), "{bandwidth} {round_trip_ms} {cruise}");
            assert!(dip <= (holds / 10 * 9 + 9).max(LINK_WINDOW_BYTES_MIN.into()), "{bandwidth} {round_trip_ms} {dip}");
            (smaller, windows) = (of_phases, windows + 3);
        }
    }
    assert!(windows > 600_000, "{windows}");
}

#[test]
fn every_search_ends_and_never_goes_below_its_least() {
    for in_flight in around_powers() {
        for round_trip_ms in (0..=200).chain(around_powers()).filter(|ms| *ms < ROUND_TRIP_MS_MAX) {
            let mut model = way(1 << 20, 100, Phase::cruise(true));
            model.search(Time::START, in_flight.min(u64::MAX / 2), None);
            // A round trip that falls by an eighth and more each time, as long as it can.
            let (mut steps, mut now, mut shown_ms) = (0, Time::START, round_trip_ms);
            while let Phase::Search { window, .. } = model.phase {
                assert!((SEARCH_BYTES_MIN..=LINK_WINDOW_BYTES_MAX).contains(&window), "{in_flight} {window}");
                now = now.after_ms(1);
                model.search_on(now, shown_ms, 0);
                (steps, shown_ms) = (steps + 1, shown_ms / 2);
                assert!(steps <= 8, "{in_flight} {round_trip_ms}");
            }
        }
    }
}
