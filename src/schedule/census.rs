//! How many jobs wait, and why: counted when somebody asks, so that a start costs nothing for it.

use std::collections::HashMap;
use std::sync::Arc;

use super::{BatchId, Job, Schedule, Time};

/// What keeps a job from starting.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Why {
    /// So many are in flight already; or it is its turn next.
    Limit,
    /// So many were started lately.
    Rate,
    /// It is to be tried again later, or its host asked to be left alone.
    BackOff,
    /// Its lane is held until what it needs is there.
    Held,
    /// Its batch is held.
    Paused,
}

impl Why {
    const COUNT: usize = 5;
}

/// What a lane has to do yet.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) lane: Arc<str>,
    pub(crate) waiting: usize,
    pub(crate) in_flight: usize,
    /// What keeps the next of them; those in a back-off aside, if there are others.
    pub(crate) why: Why,
}

/// What waits and what is in flight.
#[derive(Debug, Default)]
pub(crate) struct Census {
    pub(crate) in_flight: usize,
    waiting: [usize; Why::COUNT],
    /// The lanes with something waiting that have the most to do, the first of them first.
    pub(crate) longest: Vec<Load>,
}

impl Census {
    pub(crate) fn waiting_for(&self, why: Why) -> usize {
        self.waiting[why as usize]
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.iter().sum()
    }
}

/// So many lanes are named.
const NAMED: usize = 5;

/// A lane's number and its load.
type Counted = (usize, usize, usize, Why);

impl<J: Job> Schedule<J> {
    /// Of one batch. Costs a look at each lane it has.
    pub(crate) fn census_of(&self, batch: BatchId, now: Time) -> Census {
        let mut census = Census::default();
        let Some(of) = self.live(batch) else {
            return census;
        };
        census.in_flight = of.gate.in_flight();
        let mut longest = Vec::new();
        self.count_batch(batch.index, now, &mut census, |load| {
            rank(&mut longest, load);
        });
        census.longest = self.named_loads(longest);
        census
    }

    /// Of all there is. Costs a look at each lane of each batch.
    pub(crate) fn census(&self, now: Time) -> Census {
        let mut census = Census {
            in_flight: self.gate.in_flight(),
            ..Census::default()
        };
        let mut loads: HashMap<usize, Counted> = HashMap::new();
        for (batch, _) in self.batches.iter().filter(|(_, batch)| !batch.removed) {
            self.count_batch(batch, now, &mut census, |load| {
                let sum = loads.entry(load.0).or_insert((load.0, 0, 0, load.3));
                if sum.1 == 0 {
                    sum.3 = load.3;
                }
                sum.1 += load.1;
                sum.2 += load.2;
            });
        }
        let mut longest = Vec::new();
        loads
            .into_values()
            .for_each(|load| rank(&mut longest, load));
        census.longest = self.named_loads(longest);
        census
    }

    fn count_batch(
        &self,
        batch: usize,
        now: Time,
        census: &mut Census,
        mut each: impl FnMut(Counted),
    ) {
        for (&lane, &queue) in &self.batches[batch].queues {
            let queue_of = &self.queues[queue];
            let ready = queue_of.again.len() + queue_of.fresh.len();
            let waiting = ready + queue_of.backing_off;
            let mut why = Why::BackOff;
            census.waiting[why as usize] += queue_of.backing_off;
            if ready > 0 {
                why = self.why(batch, lane, queue, now);
                census.waiting[why as usize] += ready;
            }
            each((lane, waiting, queue_of.gate.in_flight(), why));
        }
    }

    /// What keeps a queue's first, as its host sees it: what is closed for it alone comes before what is for many.
    fn why(&self, batch: usize, lane: usize, queue: usize, now: Time) -> Why {
        let batch = &self.batches[batch];
        if batch.gate.is_held() {
            return Why::Paused;
        }
        [
            &self.lanes[lane].gate,
            &self.queues[queue].gate,
            &batch.gate,
            &self.gate,
        ]
        .into_iter()
        .find_map(|gate| gate.why(now))
        .unwrap_or(Why::Limit)
    }

    fn named_loads(&self, loads: Vec<Counted>) -> Vec<Load> {
        let named = |(lane, waiting, in_flight, why): Counted| Load {
            lane: Arc::clone(&self.lanes[lane].key),
            waiting,
            in_flight,
            why,
        };
        loads.into_iter().map(named).collect()
    }
}

/// Keeps the few with the most to do in their order, of those that have something waiting.
fn rank(longest: &mut Vec<Counted>, load: Counted) {
    if load.1 == 0 {
        return;
    }
    let goes_before = |other: &Counted| (other.1 + other.2, load.0) >= (load.1 + load.2, other.0);
    let place = longest.partition_point(goes_before);
    if place < NAMED {
        longest.truncate(NAMED - 1);
        longest.insert(place, load);
    }
}
