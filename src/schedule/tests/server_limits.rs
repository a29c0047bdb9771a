//! A host that says what it allows is asked for no more than that, and for no less.

use super::super::{GateLimits, Slot, StartDecision, Time};
use super::simulated_servers::{Over, Server, Window, World};
use super::simulation::{MS, NO_LIMITS, SECOND, Sim, TestJob, at_most, at_ms};

/// A server that allows so much, and never has too much to do.
fn allowing(window: Window) -> Server {
    Server::new(10_000, Over::Queues)
        .taking(40)
        .noisy(30)
        .allowing(window)
}

#[test]
fn all_that_is_allowed_is_used_and_no_more() {
    let minute = Window::new(600, 60_000);
    let ten = Window::new(100, 10_000);
    for (window, at_once) in [
        (ten, 1),
        (ten, 8),
        (ten, 64),
        (ten.rounded(SECOND, true), 8),
        (minute.rounded(SECOND, true), 64),
        (minute.rounded(SECOND, false), 16),
    ] {
        let mut world = World::new(vec![allowing(window)], at_most(at_once), NO_LIMITS);
        world.run_until(Time::default().plus_nanos(6 * window.length));
        let Server { done, failed, .. } = world.servers[0];
        let allowed = 6 * window.quota as usize;
        let case = format!("{window:?}, {at_once} at once: {done} done, {failed} refused");
        assert!(done * 10 >= allowed * 9, "{case}");
        // Rounded down, the window's end comes too soon, and one finds out.
        let most = if window.up { 0 } else { 6 };
        assert!(failed <= most, "{case}");
    }
}

#[test]
fn what_is_in_flight_before_the_first_answer_is_all_that_is_refused() {
    let window = Window::new(100, 10_000);
    let mut world = World::new(vec![allowing(window)], at_most(150), NO_LIMITS);
    world.run_until(at_ms(60_000));
    let Server { done, failed, .. } = world.servers[0];
    assert!(done >= 540 && failed <= 50, "{done} done, {failed} refused");
}

fn in_flight(count: usize, queued: usize) -> (Sim, Vec<(Slot, TestJob)>) {
    let mut sim = Sim::new(at_most(count));
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", count + queued);
    let (started, _) = sim.start_all();
    assert_eq!(started.len(), count);
    (sim, started)
}

/// The oldest ends, and the host allows so many more for so long.
fn allow(sim: &mut Sim, started: &mut Vec<(Slot, TestJob)>, left: u64, ms: u64) {
    let (slot, _) = started.remove(0);
    sim.schedule
        .observe_server_limit(&slot, left, ms * MS, sim.now);
    sim.schedule.settle(slot);
}

#[test]
fn what_fits_into_what_is_left_is_not_slowed() {
    let (mut sim, mut started) = in_flight(1, 20);
    allow(&mut sim, &mut started, 20, 60_000);
    sim.run(|_| super::simulation::End::Done(MS));
    assert_eq!(sim.now, at_ms(20), "one after the other, as its limit says");
}

#[test]
fn what_does_not_fit_is_spread_over_the_time_to_the_reset() {
    let (mut sim, mut started) = in_flight(1, 30);
    sim.now = at_ms(1000);
    allow(&mut sim, &mut started, 10, 5_500);
    sim.run(|_| super::simulation::End::Done(MS));
    let times: Vec<u64> = sim.times()[1..13]
        .iter()
        .map(|at| at.as_nanos() / MS)
        .collect();
    let expected = [1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000, 5500];
    assert_eq!(times[..10], expected);
    assert_eq!(times[10], 6500, "one asks");
}

#[test]
fn what_started_since_is_taken_off_what_is_left() {
    let (mut sim, mut started) = in_flight(5, 30);
    allow(&mut sim, &mut started, 4, 5_000);
    let next = sim.next();
    assert!(
        matches!(next, StartDecision::WaitUntil(at) if at == at_ms(5_000)),
        "{next:?}"
    );
    // The second answer is to a later start: it leaves three that were not counted.
    allow(&mut sim, &mut started, 40, 5_000);
    assert_eq!(sim.start_all().0.len(), 2, "as many as the limit says");
}

#[test]
fn an_answer_to_an_older_start_changes_nothing() {
    let (mut sim, mut started) = in_flight(2, 30);
    let (newer, _) = started.remove(1);
    sim.schedule
        .observe_server_limit(&newer, 0, 5_000 * MS, sim.now);
    sim.schedule.settle(newer);
    allow(&mut sim, &mut started, 50, 5_000);
    assert_eq!(sim.start_all().0.len(), 0);
}

#[test]
fn when_nothing_is_left_one_asks_after_the_reset_and_the_others_wait_for_it() {
    let (mut sim, mut started) = in_flight(3, 30);
    allow(&mut sim, &mut started, 0, 5_000);
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(5_000)));
    sim.now = at_ms(5_000);
    for (slot, _) in started {
        sim.schedule.settle(slot);
    }
    let (mut asking, next) = sim.start_all();
    assert_eq!(asking.len(), 1);
    assert!(matches!(next, StartDecision::WaitUntil(at) if at == at_ms(7_000)));
    sim.now = at_ms(5_100);
    allow(&mut sim, &mut asking, 1000, 5_000);
    assert_eq!(sim.start_all().0.len(), 3, "as many as the limit says");
}

#[test]
fn one_that_asks_and_gets_no_answer_is_waited_for_so_long_and_no_longer() {
    let (mut sim, mut started) = in_flight(3, 30);
    allow(&mut sim, &mut started, 0, 1_000);
    sim.now = at_ms(1_000);
    assert_eq!(sim.start_all().0.len(), 1);
    for (slot, _) in started {
        sim.schedule.settle(slot);
    }
    sim.now = at_ms(3_000);
    assert_eq!(sim.start_all().0.len(), 2);
}

#[test]
fn an_answer_without_a_limit_ends_it() {
    let (mut sim, mut started) = in_flight(3, 30);
    allow(&mut sim, &mut started, 0, 1_000);
    sim.now = at_ms(1_000);
    let (mut asking, _) = sim.start_all();
    let evidence = super::super::HostObservation {
        health: super::super::Health::Healthy,
        latency: None,
    };
    let (slot, _) = asking.remove(0);
    sim.schedule.record_observation(&slot, evidence, sim.now);
    sim.schedule.settle(slot);
    for (slot, _) in started {
        sim.schedule.settle(slot);
    }
    assert_eq!(sim.start_all().0.len(), 3);
}

#[test]
fn a_host_that_allows_more_is_followed_up() {
    let (mut sim, mut started) = in_flight(2, 30);
    allow(&mut sim, &mut started, 1, 60_000);
    assert_eq!(sim.start_all().0.len(), 0, "one was not counted yet");
    sim.now = at_ms(10);
    allow(&mut sim, &mut started, 500, 60_000);
    assert_eq!(sim.start_all().0.len(), 2);
}

#[test]
fn absurd_announcements_cost_five_minutes_at_most() {
    for (left, reset) in [(0, u64::MAX), (1, u64::MAX), (0, 0), (u64::MAX, u64::MAX)] {
        let (mut sim, mut started) = in_flight(1, 30);
        let (slot, _) = started.remove(0);
        sim.schedule
            .observe_server_limit(&slot, left, reset, sim.now);
        sim.schedule.settle(slot);
        while sim.starts.len() < 3 {
            match sim.next() {
                StartDecision::Start(slot, _) => {
                    sim.schedule
                        .observe_server_limit(&slot, left, reset, sim.now);
                    sim.schedule.settle(slot);
                }
                StartDecision::WaitUntil(at) => sim.now = at,
                StartDecision::Idle => panic!("it waits for nothing"),
            }
        }
        assert!(sim.now <= at_ms(600_000), "{:?} by {left} {reset}", sim.now);
    }
}

#[test]
fn a_host_in_need_of_patience_holds_up_no_other() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 10);
    let (slot, _) = sim.start();
    sim.schedule
        .observe_server_limit(&slot, 0, 60_000 * MS, sim.now);
    sim.schedule.settle(slot);
    sim.push_many(batch, "b", 10);
    let (started, _) = sim.start_all();
    assert_eq!(started.len(), 10);
    assert!(started.iter().all(|(_, job)| &*job.lane == "b"));
}
