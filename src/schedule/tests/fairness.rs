//! Tests of the order of starts, and that no slot idles without a reason.

use super::super::{BatchLimits, GateLimits, StartDecision, Time};
use super::simulation::{
    MS, NO_LIMITS, Outcome, RecordedStart, SECOND, Simulation, concurrency, rate,
};

#[test]
fn batches_take_turns_and_so_do_lanes_within_a_batch() {
    let mut sim = Simulation::new(concurrency(1));
    let (one, other) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    for lane in ["a", "b"] {
        sim.push_many(one, lane, 2);
    }
    sim.push_many(other, "a", 3);
    sim.run(|_| Outcome::Done(MS));
    let order: Vec<_> = sim
        .starts
        .iter()
        .map(|start| (start.batch == one, &*start.lane))
        .collect();
    let (one, other) = (true, false);
    assert_eq!(
        order,
        [
            (one, "a"),
            (other, "a"),
            (one, "b"),
            (other, "a"),
            (one, "a"),
            (other, "a"),
            (one, "b")
        ]
    );
}

#[test]
fn short_batch_is_not_starved_by_a_long_one() {
    for (overall_limit, lane_limit) in [(10, usize::MAX), (usize::MAX, 10), (10, 10)] {
        let mut sim = Simulation::new(concurrency(overall_limit));
        sim.set_lane_limits("a", concurrency(lane_limit));
        let (long, short) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
        sim.push_many(long, "a", 100_000);
        let mut before = Vec::new();
        for _ in 0..500 {
            before.push(sim.start_all().0);
            for (slot, _) in before.drain(..).flatten() {
                sim.schedule.settle(slot);
            }
        }
        let pushed = sim.starts.len();
        sim.push_many(short, "a", 10);
        while sim.starts_of(short).count() < 10 {
            for (slot, _) in sim.start_all().0 {
                sim.schedule.settle(slot);
            }
        }
        let since = sim.starts.len() - pushed;
        assert!(since <= 40, "{since} starts until ten of the short batch");
    }
}

/// One batch has jobs for one lane only. The other batch has jobs for that lane and for a hundred
/// more lanes.
#[test]
fn busy_lane_is_shared_with_a_batch_of_many_lanes() {
    let mut sim = Simulation::new(concurrency(4));
    sim.set_lane_limits("hot", concurrency(1));
    let (narrow, wide) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    sim.push_many(narrow, "hot", 2_000);
    sim.push_many(wide, "hot", 20);
    for lane in 0..100 {
        sim.push_many(wide, &lane.to_string(), 100);
    }
    let mut random = fastrand::Rng::with_seed(1);
    sim.run(|_| Outcome::Done(random.u64(5..15) * MS));
    let is_wide_at_hot = |start: &RecordedStart| &*start.lane == "hot" && start.batch == wide;
    let last = sim.starts.iter().rposition(is_wide_at_hot).unwrap();
    let others = sim.starts[..last]
        .iter()
        .filter(|start| start.batch == wide && &*start.lane != "hot")
        .count();
    assert!(
        others <= 20 * 101,
        "{others} other starts until the twenty jobs for the hot lane, which missed their turns"
    );
}

#[test]
fn lane_is_shared_evenly_by_many_batches() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits(
        "a",
        GateLimits {
            concurrency: 3,
            ..rate(1_000, 10)
        },
    );
    let batches: Vec<_> = (0..50).map(|_| sim.add_batch(NO_LIMITS)).collect();
    for &batch in &batches {
        sim.push_many(batch, "a", 40);
    }
    sim.run(|_| Outcome::Done(2 * MS));
    let half = &sim.starts[..1_000];
    for batch in batches {
        let share = half.iter().filter(|start| start.batch == batch).count();
        assert!(
            (18..=22).contains(&share),
            "{share} of 1,000 starts, where 20 are fair"
        );
    }
}

#[test]
fn parked_queues_of_a_lane_are_woken_in_order() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("a", concurrency(1));
    let batches = [0; 4].map(|_| sim.add_batch(NO_LIMITS));
    for batch in batches {
        sim.push_many(batch, "a", 10);
    }
    sim.run(|_| Outcome::Done(MS));
    let order: Vec<_> = sim.starts.iter().map(|start| start.batch).collect();
    assert!(order.chunks(4).all(|round| round == batches), "{order:?}");
}

/// The lane wakes the queue of a batch whose own limit is reached, so another queue must be woken
/// instead.
#[test]
fn full_batch_forwards_the_wakeup_of_a_lane() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("a", concurrency(1));
    let narrow = sim.add_batch(BatchLimits {
        overall_limits: concurrency(1),
        ..NO_LIMITS
    });
    let (holder, last) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    sim.push(holder, "a");
    let (slot_in_a, _) = sim.start();
    sim.push(narrow, "a");
    sim.push(last, "a");
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    sim.push_many(narrow, "b", 2);
    let (_busy, job) = sim.start();
    assert_eq!(&*job.lane, "b");
    sim.schedule.settle(slot_in_a);
    let (slot, job) = sim.start();
    assert_eq!((slot.batch_id(), &*job.lane), (last, "a"));
}

#[test]
fn two_batches_share_the_overall_limit_and_a_lane() {
    let mut sim = Simulation::new(concurrency(10));
    sim.set_lane_limits("a", concurrency(4));
    let (one, other) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    for batch in [one, other] {
        sim.push_many(batch, "a", 400);
        sim.push_many(batch, "b", 600);
    }
    sim.run(|_| Outcome::Done(10 * MS));
    assert_eq!(sim.max_in_flight, 10);
    assert_eq!(sim.now, Time::default().plus_nanos(2_000 / 10 * 10 * MS));
    let ends = [one, other].map(|batch| sim.starts_of(batch).last().unwrap().at.as_nanos());
    assert!(ends[0].abs_diff(ends[1]) <= 20 * MS, "{ends:?}");
}

/// Jobs that wait for the first lane hold no slots.
#[test]
fn rate_limited_lane_does_not_delay_another() {
    let mut sim = Simulation::new(concurrency(10));
    for host in ["a", "b"] {
        sim.set_lane_limits(host, rate(20, 1));
    }
    let batch = sim.add_batch(NO_LIMITS);
    for host in ["a", "b"] {
        sim.push_many(batch, host, 100);
    }
    sim.run(|_| Outcome::Done(100 * MS));
    assert!(
        sim.now.as_nanos() <= 5 * SECOND * 105 / 100,
        "{:?} where 5 s is ideal",
        sim.now
    );
}

#[test]
fn forty_requests_to_twenty_hosts_run_in_two_rounds() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let batch = sim.add_batch(BatchLimits {
        per_lane_limits: concurrency(1),
        ..NO_LIMITS
    });
    for request in 0..40 {
        sim.push(batch, &format!("host-{}", request % 20));
    }
    sim.run(|_| Outcome::Done(100 * MS));
    assert_eq!(sim.now, Time::default().plus_nanos(200 * MS));
    assert_eq!(sim.max_in_flight, 20);
}

#[test]
fn batch_is_host_limited_only_while_a_slot_idles_for_lack_of_a_host() {
    let mut sim = Simulation::new(concurrency(3));
    let batch = sim.add_batch(BatchLimits {
        overall_limits: concurrency(2),
        per_lane_limits: concurrency(1),
        deadline: None,
    });
    assert!(
        !sim.schedule.is_batch_blocked_only_by_hosts(batch, sim.now),
        "nothing is queued"
    );
    sim.push_many(batch, "a", 3);
    let (slot, _) = sim.start();
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    assert!(sim.schedule.is_batch_blocked_only_by_hosts(batch, sim.now));
    sim.push(batch, "b");
    assert!(
        !sim.schedule.is_batch_blocked_only_by_hosts(batch, sim.now),
        "the new host may start"
    );
    let _other = sim.start();
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    assert!(
        !sim.schedule.is_batch_blocked_only_by_hosts(batch, sim.now),
        "no slot is idle"
    );
    assert_eq!(sim.schedule.in_flight(batch), 2);
    sim.schedule.settle(slot);
    assert_eq!(sim.schedule.in_flight(batch), 1);
}

#[test]
fn lanes_get_turns_in_proportion_to_their_jobs_and_none_is_left_out() {
    let mut sim = Simulation::new(concurrency(1));
    let batch = sim.add_batch(NO_LIMITS);
    for (lane, count) in [("a", 60), ("b", 20), ("c", 18), ("d", 2)] {
        sim.push_many(batch, lane, count);
    }
    sim.run(|_| Outcome::Done(MS));
    let starts_of = |lane: &str, among: usize| {
        let starts = sim.starts[..among].iter();
        starts.filter(|start| &*start.lane == lane).count()
    };
    assert_eq!(starts_of("d", 12), 2, "within two rounds");
    let of_a = starts_of("a", 40);
    assert!(
        of_a >= 14,
        "{of_a} starts, where equal turns give ten to twelve"
    );
}
