//! Who goes first, and that nobody waits for no reason.

use super::super::{BatchLimits, GateLimits, StartDecision, Time};
use super::simulation::{End, MS, NO_LIMITS, SECOND, Sim, at_most, rate};

#[test]
fn batches_take_turns_then_lanes() {
    let mut sim = Sim::new(at_most(1));
    let (one, other) = (sim.batch(NO_LIMITS), sim.batch(NO_LIMITS));
    for lane in ["a", "b"] {
        sim.push_many(one, lane, 2);
    }
    sim.push_many(other, "a", 3);
    sim.run(|_| End::Done(MS));
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
fn a_batch_of_ten_is_not_starved_by_one_of_a_hundred_thousand() {
    for (whole, lane) in [(10, usize::MAX), (usize::MAX, 10), (10, 10)] {
        let mut sim = Sim::new(at_most(whole));
        sim.limit_lane("a", at_most(lane));
        let (long, short) = (sim.batch(NO_LIMITS), sim.batch(NO_LIMITS));
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
        assert!(since <= 40, "{since} starts for ten of them");
    }
}

/// One batch has work for one host only; the other has a thousand more, and always something else to do.
#[test]
fn a_busy_lane_is_shared_by_a_batch_with_many_others() {
    let mut sim = Sim::new(at_most(4));
    sim.limit_lane("hot", at_most(1));
    let (narrow, wide) = (sim.batch(NO_LIMITS), sim.batch(NO_LIMITS));
    sim.push_many(narrow, "hot", 2_000);
    sim.push_many(wide, "hot", 20);
    for lane in 0..100 {
        sim.push_many(wide, &lane.to_string(), 100);
    }
    let mut random = fastrand::Rng::with_seed(1);
    sim.run(|_| End::Done(random.u64(5..15) * MS));
    let turn = |start: &super::simulation::Start| &*start.lane == "hot" && start.batch == wide;
    let last = sim.starts.iter().rposition(turn).unwrap();
    let others = sim.starts[..last]
        .iter()
        .filter(|start| start.batch == wide && &*start.lane != "hot")
        .count();
    assert!(
        others <= 20 * 101,
        "the twenty jobs at the hot lane came after {others} others, not in their turns"
    );
}

#[test]
fn a_lane_is_shared_evenly_by_many_batches() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane(
        "a",
        GateLimits {
            concurrency: 3,
            ..rate(1_000, 10)
        },
    );
    let batches: Vec<_> = (0..50).map(|_| sim.batch(NO_LIMITS)).collect();
    for &batch in &batches {
        sim.push_many(batch, "a", 40);
    }
    sim.run(|_| End::Done(2 * MS));
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
fn the_line_before_a_lane_is_served_in_its_order() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane("a", at_most(1));
    let batches = [0; 4].map(|_| sim.batch(NO_LIMITS));
    for batch in batches {
        sim.push_many(batch, "a", 10);
    }
    sim.run(|_| End::Done(MS));
    let served: Vec<_> = sim.starts.iter().map(|start| start.batch).collect();
    assert!(served.chunks(4).all(|round| round == batches), "{served:?}");
}

/// The slot that opens goes to a batch that is itself full, and must be passed on.
#[test]
fn a_lane_is_not_left_idle_by_a_batch_that_cannot_use_it() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane("a", at_most(1));
    let narrow = sim.batch(BatchLimits {
        overall: at_most(1),
        ..NO_LIMITS
    });
    let (holder, last) = (sim.batch(NO_LIMITS), sim.batch(NO_LIMITS));
    sim.push(holder, "a");
    let (held, _) = sim.start();
    sim.push(narrow, "a");
    sim.push(last, "a");
    assert!(matches!(sim.next(), StartDecision::Idle));
    sim.push_many(narrow, "b", 2);
    let (_busy, job) = sim.start();
    assert_eq!(&*job.lane, "b");
    sim.schedule.settle(held);
    let (slot, job) = sim.start();
    assert_eq!((slot.batch(), &*job.lane), (last, "a"));
}

#[test]
fn two_batches_share_the_whole_limit_and_a_lane() {
    let mut sim = Sim::new(at_most(10));
    sim.limit_lane("a", at_most(4));
    let (one, other) = (sim.batch(NO_LIMITS), sim.batch(NO_LIMITS));
    for batch in [one, other] {
        sim.push_many(batch, "a", 400);
        sim.push_many(batch, "b", 600);
    }
    sim.run(|_| End::Done(10 * MS));
    assert_eq!(sim.most_in_flight, 10);
    assert_eq!(sim.now, Time::default().plus_nanos(2_000 / 10 * 10 * MS));
    let ends = [one, other].map(|batch| sim.starts_of(batch).last().unwrap().at.as_nanos());
    assert!(ends[0].abs_diff(ends[1]) <= 20 * MS, "{ends:?}");
}

/// The first host's queue holds neither slots nor the second host.
#[test]
fn a_slow_host_at_the_head_of_the_line_holds_up_no_other() {
    let mut sim = Sim::new(at_most(10));
    for host in ["a", "b"] {
        sim.limit_lane(host, rate(20, 1));
    }
    let batch = sim.batch(NO_LIMITS);
    for host in ["a", "b"] {
        sim.push_many(batch, host, 100);
    }
    sim.run(|_| End::Done(100 * MS));
    assert!(
        sim.now.as_nanos() <= 5 * SECOND * 105 / 100,
        "{:?} where 5 s is ideal",
        sim.now
    );
}

#[test]
fn forty_requests_two_to_a_host_run_two_rounds() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let batch = sim.batch(BatchLimits {
        per_lane: at_most(1),
        ..NO_LIMITS
    });
    for request in 0..40 {
        sim.push(batch, &format!("host-{}", request % 20));
    }
    sim.run(|_| End::Done(100 * MS));
    assert_eq!(sim.now, Time::default().plus_nanos(200 * MS));
    assert_eq!(sim.most_in_flight, 20);
}

#[test]
fn a_batch_wants_other_hosts_only_while_a_slot_is_idle_for_want_of_one() {
    let mut sim = Sim::new(at_most(3));
    let batch = sim.batch(BatchLimits {
        overall: at_most(2),
        per_lane: at_most(1),
        deadline: None,
    });
    assert!(
        !sim.schedule.is_host_limited(batch, sim.now),
        "nothing is queued"
    );
    sim.push_many(batch, "a", 3);
    let (slot, _) = sim.start();
    assert!(matches!(sim.next(), StartDecision::Idle));
    assert!(sim.schedule.is_host_limited(batch, sim.now));
    sim.push(batch, "b");
    assert!(
        !sim.schedule.is_host_limited(batch, sim.now),
        "the new host may start"
    );
    let _other = sim.start();
    assert!(matches!(sim.next(), StartDecision::Idle));
    assert!(
        !sim.schedule.is_host_limited(batch, sim.now),
        "no slot is idle"
    );
    assert_eq!(sim.schedule.in_flight(batch), 2);
    sim.schedule.settle(slot);
    assert_eq!(sim.schedule.in_flight(batch), 1);
}

#[test]
fn hosts_have_turns_in_proportion_to_what_waits_and_none_is_left_out() {
    let mut sim = Sim::new(at_most(1));
    let batch = sim.batch(NO_LIMITS);
    for (lane, count) in [("a", 60), ("b", 20), ("c", 18), ("d", 2)] {
        sim.push_many(batch, lane, count);
    }
    sim.run(|_| End::Done(MS));
    let starts_of = |lane: &str, among: usize| {
        let starts = sim.starts[..among].iter();
        starts.filter(|start| &*start.lane == lane).count()
    };
    assert_eq!(starts_of("d", 12), 2, "within two rounds");
    let of_a = starts_of("a", 40);
    assert!(
        of_a >= 14,
        "{of_a}, where equal turns give it ten to twelve"
    );
}
