//! Tests that a rate limit that a host announces is used fully and not exceeded.

use super::super::{GateLimits, RouteHealth, RouteObservation, Slot, StartDecision, Time};
use super::simulated_servers::{OverloadBehavior, RateWindow, Server, ServerSimulation};
use super::simulation::{MS, NO_LIMITS, Outcome, SECOND, Simulation, TestJob, at_ms, concurrency};

/// A server whose only limit is `window`.
fn server(window: RateWindow) -> Server {
    Server::new(10_000, OverloadBehavior::Queues)
        .with_service_time(40)
        .with_noise(30)
        .with_rate_window(window)
}

#[test]
fn announced_limit_is_used_fully_and_not_exceeded() {
    let minute = RateWindow::new(600, 60_000);
    let ten = RateWindow::new(100, 10_000);
    for (window, limit) in [
        (ten, 1),
        (ten, 8),
        (ten, 64),
        (ten.rounded(SECOND, true), 8),
        (minute.rounded(SECOND, true), 64),
        (minute.rounded(SECOND, false), 16),
    ] {
        let mut simulation =
            ServerSimulation::new(vec![server(window)], concurrency(limit), NO_LIMITS);
        simulation.run_until(Time::default().plus_nanos(6 * window.length));
        let Server { done, failed, .. } = simulation.servers[0];
        let allowed = 6 * window.quota as usize;
        let case = format!("{window:?}, concurrency {limit}: {done} done, {failed} refused");
        assert!(done * 10 >= allowed * 9, "{case}");
        // If the time until the reset is rounded down, the recheck of each window comes too early
        // and fails.
        let max_failed = if window.rounds_up { 0 } else { 6 };
        assert!(failed <= max_failed, "{case}");
    }
}

#[test]
fn only_requests_in_flight_before_the_first_response_are_refused() {
    let window = RateWindow::new(100, 10_000);
    let mut simulation = ServerSimulation::new(vec![server(window)], concurrency(150), NO_LIMITS);
    simulation.run_until(at_ms(60_000));
    let Server { done, failed, .. } = simulation.servers[0];
    assert!(done >= 540 && failed <= 50, "{done} done, {failed} refused");
}

/// A simulation with `count` requests in flight and `queued` queued jobs.
fn simulation_in_flight(count: usize, queued: usize) -> (Simulation, Vec<(Slot, TestJob)>) {
    let mut sim = Simulation::new(concurrency(count));
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", count + queued);
    let (started, _) = sim.start_all();
    assert_eq!(started.len(), count);
    (sim, started)
}

/// Settles the slot that started first. Its response announces a limit.
fn announce_limit(
    sim: &mut Simulation,
    started: &mut Vec<(Slot, TestJob)>,
    remaining: u64,
    reset_ms: u64,
) {
    let (slot, _) = started.remove(0);
    sim.schedule
        .apply_rate_limit_announcement(&slot, remaining, reset_ms * MS, sim.now);
    sim.schedule.settle(slot);
}

#[test]
fn queued_jobs_within_the_limit_are_not_delayed() {
    let (mut sim, mut started) = simulation_in_flight(1, 20);
    announce_limit(&mut sim, &mut started, 20, 60_000);
    sim.run(|_| Outcome::Done(MS));
    assert_eq!(sim.now, at_ms(20), "at a concurrency of one");
}

#[test]
fn queued_jobs_beyond_the_limit_are_spread_until_the_reset() {
    let (mut sim, mut started) = simulation_in_flight(1, 30);
    sim.now = at_ms(1000);
    announce_limit(&mut sim, &mut started, 10, 5_500);
    sim.run(|_| Outcome::Done(MS));
    let times: Vec<u64> = sim.start_times()[1..13]
        .iter()
        .map(|at| at.as_nanos() / MS)
        .collect();
    let expected = [1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000, 5500];
    assert_eq!(times[..10], expected);
    assert_eq!(times[10], 6500, "the recheck");
}

#[test]
fn starts_since_the_announced_one_are_subtracted() {
    let (mut sim, mut started) = simulation_in_flight(5, 30);
    announce_limit(&mut sim, &mut started, 4, 5_000);
    let next = sim.next();
    assert!(
        matches!(next, StartDecision::WaitUntil(at) if at == at_ms(5_000)),
        "{next:?}"
    );
    // The second response is to a later start. Three starts after that start are not included in
    // its announcement.
    announce_limit(&mut sim, &mut started, 40, 5_000);
    assert_eq!(
        sim.start_all().0.len(),
        2,
        "as many as the concurrency allows"
    );
}

#[test]
fn announcement_to_an_earlier_start_is_ignored() {
    let (mut sim, mut started) = simulation_in_flight(2, 30);
    let (newer, _) = started.remove(1);
    sim.schedule
        .apply_rate_limit_announcement(&newer, 0, 5_000 * MS, sim.now);
    sim.schedule.settle(newer);
    announce_limit(&mut sim, &mut started, 50, 5_000);
    assert_eq!(sim.start_all().0.len(), 0);
}

#[test]
fn one_request_rechecks_after_the_reset_and_the_others_wait() {
    let (mut sim, mut started) = simulation_in_flight(3, 30);
    announce_limit(&mut sim, &mut started, 0, 5_000);
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(5_000)));
    sim.now = at_ms(5_000);
    for (slot, _) in started {
        sim.schedule.settle(slot);
    }
    let (mut recheck, next) = sim.start_all();
    assert_eq!(recheck.len(), 1);
    assert!(matches!(next, StartDecision::WaitUntil(at) if at == at_ms(7_000)));
    sim.now = at_ms(5_100);
    announce_limit(&mut sim, &mut recheck, 1000, 5_000);
    assert_eq!(
        sim.start_all().0.len(),
        3,
        "as many as the concurrency allows"
    );
}

#[test]
fn others_wait_for_a_recheck_no_longer_than_its_timeout() {
    let (mut sim, mut started) = simulation_in_flight(3, 30);
    announce_limit(&mut sim, &mut started, 0, 1_000);
    sim.now = at_ms(1_000);
    assert_eq!(sim.start_all().0.len(), 1);
    for (slot, _) in started {
        sim.schedule.settle(slot);
    }
    sim.now = at_ms(3_000);
    assert_eq!(sim.start_all().0.len(), 2);
}

#[test]
fn recheck_without_an_announcement_removes_the_limit() {
    let (mut sim, mut started) = simulation_in_flight(3, 30);
    announce_limit(&mut sim, &mut started, 0, 1_000);
    sim.now = at_ms(1_000);
    let (mut recheck, _) = sim.start_all();
    let observation = RouteObservation {
        health: RouteHealth::Healthy,
        response_head_latency_nanos: None,
    };
    let (slot, _) = recheck.remove(0);
    sim.schedule
        .record_exchange_outcome(&slot, observation, sim.now);
    sim.schedule.settle(slot);
    for (slot, _) in started {
        sim.schedule.settle(slot);
    }
    assert_eq!(sim.start_all().0.len(), 3);
}

#[test]
fn later_announcement_can_raise_the_limit() {
    let (mut sim, mut started) = simulation_in_flight(2, 30);
    announce_limit(&mut sim, &mut started, 1, 60_000);
    assert_eq!(sim.start_all().0.len(), 0, "one start was not counted yet");
    sim.now = at_ms(10);
    announce_limit(&mut sim, &mut started, 500, 60_000);
    assert_eq!(sim.start_all().0.len(), 2);
}

#[test]
fn absurd_announcement_delays_five_minutes_at_most() {
    for (remaining, reset_after) in [(0, u64::MAX), (1, u64::MAX), (0, 0), (u64::MAX, u64::MAX)] {
        let (mut sim, mut started) = simulation_in_flight(1, 30);
        let (slot, _) = started.remove(0);
        sim.schedule
            .apply_rate_limit_announcement(&slot, remaining, reset_after, sim.now);
        sim.schedule.settle(slot);
        while sim.starts.len() < 3 {
            match sim.next() {
                StartDecision::Start(slot, _) => {
                    sim.schedule.apply_rate_limit_announcement(
                        &slot,
                        remaining,
                        reset_after,
                        sim.now,
                    );
                    sim.schedule.settle(slot);
                }
                StartDecision::WaitUntil(at) => sim.now = at,
                StartDecision::WaitForChange => panic!("nothing will ever start"),
            }
        }
        assert!(
            sim.now <= at_ms(600_000),
            "{:?} with {remaining} and {reset_after}",
            sim.now
        );
    }
}

#[test]
fn server_limit_does_not_delay_other_lanes() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 10);
    let (slot, _) = sim.start();
    sim.schedule
        .apply_rate_limit_announcement(&slot, 0, 60_000 * MS, sim.now);
    sim.schedule.settle(slot);
    sim.push_many(batch, "b", 10);
    let (started, _) = sim.start_all();
    assert_eq!(started.len(), 10);
    assert!(started.iter().all(|(_, job)| &*job.lane == "b"));
}
