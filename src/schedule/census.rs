//! How many jobs wait, and why: counted when somebody asks, so that a start costs nothing for it.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use super::queue::IndexHasher;
use super::{Batch, BatchId, Job, Place, Queue, Schedule, Time};

/// What keeps a job from starting.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Why {
    /// So many are in flight already; or it is its turn next.
    Limit,
    /// So many were started lately.
    Rate,
    /// It is to be tried again later or at the end of its batch, or its host asked to be left alone.
    BackOff,
    /// Its host cannot be reached.
    Breaker,
    /// Its lane is held until what it needs is there.
    Held,
    /// Its batch is held.
    Paused,
}

impl Why {
    const COUNT: usize = 6;
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
        let mut count = |queue| rank(&mut longest, self.count_queue(of, queue, now, &mut census));
        if of.queues.len() > self.queues.len() / 4 {
            // In the order in which they lie, which is several times faster.
            let queues = self.queues.iter().map(|(_, queue)| queue);
            queues
                .filter(|queue| queue.batch == batch.index)
                .for_each(count);
        } else {
            let queues = of.queues.values();
            queues.for_each(|&queue| count(&self.queues[queue]));
        }
        census.longest = self.named_loads(longest);
        census
    }

    /// Of all there is. Costs a look at each lane of each batch.
    pub(crate) fn census(&self, now: Time) -> Census {
        let mut census = Census {
            in_flight: self.gate.in_flight(),
            ..Census::default()
        };
        let mut loads: HashMap<usize, Counted, BuildHasherDefault<IndexHasher>> =
            HashMap::default();
        for (_, queue) in &self.queues {
            let batch = &self.batches[queue.batch];
            if batch.removed {
                continue;
            }
            let load = self.count_queue(batch, queue, now, &mut census);
            let sum = loads.entry(load.0).or_insert((load.0, 0, 0, load.3));
            if sum.1 == 0 {
                sum.3 = load.3;
            }
            sum.1 += load.1;
            sum.2 += load.2;
        }
        let mut longest = Vec::new();
        loads
            .into_values()
            .for_each(|load| rank(&mut longest, load));
        census.longest = self.named_loads(longest);
        census
    }

    fn count_queue(
        &self,
        batch: &Batch,
        queue: &Queue<J>,
        now: Time,
        census: &mut Census,
    ) -> Counted {
        let ready = queue.ready.len();
        let mut why = Why::BackOff;
        census.waiting[why as usize] += queue.backing_off;
        if ready > 0 {
            why = self.why(batch, queue, now);
            census.waiting[why as usize] += ready;
        }
        let waiting = ready + queue.backing_off;
        (queue.lane, waiting, queue.gate.in_flight(), why)
    }

    /// What keeps a queue from starting: the gate it is parked on, or what it has not come past yet.
    fn why(&self, batch: &Batch, queue: &Queue<J>, now: Time) -> Why {
        if batch.gate.is_held() {
            return Why::Paused;
        }
        let why = match queue.place {
            Place::ParkedOnLane => {
                let lane = &self.lanes[queue.lane];
                let is_shut = lane.breaker.is_shut(now);
                is_shut
                    .then_some(Why::Breaker)
                    .or_else(|| lane.gate.why(now))
            }
            Place::Parked => queue.gate.why(now),
            Place::Ring | Place::Out => batch.gate.why(now).or_else(|| self.gate.why(now)),
        };
        why.unwrap_or(Why::Limit)
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
