//! Calls the schedule at random. A model checks each step. A failing walk is reduced to the steps
//! without which it does not fail.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fastrand::Rng;

use super::model::Model;

/// The number of walks, unless the environment variable `FANOUT_WALKS` sets another one.
const WALKS: u64 = 4_000;
const STEPS: usize = 250;

/// A step of a walk: an action, and two random numbers that select the parameters of the action.
#[derive(Copy, Clone, Debug)]
pub(super) struct Step {
    pub(super) action: Action,
    pub(super) selector: usize,
    pub(super) amount: u64,
}

#[derive(Copy, Clone, Debug)]
pub(super) enum Action {
    Push,
    NextStart,
    Settle,
    Requeue,
    PauseLane,
    FinishScoutOrProbe,
    Abandon,
    AddBatch,
    RemoveBatch,
    /// Removes a tenant, whose batches stay, and adds another one.
    ReplaceTenant,
    /// Holds a batch, or releases a held one.
    ToggleHold,
    SetLimits,
    CloseLane,
    CloseBatch,
    /// Advances the clock to the announced instant.
    WakeUp,
    /// Advances the clock by a random time.
    Oversleep,
}

/// The actions, with their relative frequencies.
const FREQUENCIES: [(Action, usize); 16] = [
    (Action::Push, 14),
    (Action::NextStart, 12),
    (Action::Settle, 6),
    (Action::Requeue, 4),
    (Action::PauseLane, 2),
    (Action::FinishScoutOrProbe, 2),
    (Action::Abandon, 1),
    (Action::AddBatch, 2),
    (Action::RemoveBatch, 1),
    (Action::ReplaceTenant, 1),
    (Action::WakeUp, 2),
    (Action::Oversleep, 1),
    (Action::ToggleHold, 1),
    (Action::SetLimits, 1),
    (Action::CloseLane, 1),
    (Action::CloseBatch, 1),
];

fn random_steps(random: &mut Rng) -> Vec<Step> {
    let actions: Vec<Action> = FREQUENCIES
        .iter()
        .flat_map(|&(action, frequency)| std::iter::repeat_n(action, frequency))
        .collect();
    let is_calm = random.bool();
    let step = |random: &mut Rng| {
        // A calm walk rarely ends a batch, so that many jobs are queued.
        let mut action = actions[random.usize(..actions.len())];
        if is_calm
            && matches!(
                action,
                Action::RemoveBatch
                    | Action::CloseBatch
                    | Action::CloseLane
                    | Action::Oversleep
                    | Action::PauseLane
            )
            && random.u8(..10) > 0
        {
            action = Action::Push;
        }
        Step {
            action,
            selector: random.usize(..),
            amount: random.u64(..),
        }
    };
    (0..STEPS).map(|_| step(random)).collect()
}

fn walk(seed: u64, steps: &[Step]) -> Result<(), String> {
    let mut model = Model::new(seed);
    let run = || {
        model.add_batch(1)?;
        steps.iter().try_for_each(|&step| model.step(step))?;
        model.finish()
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("panicked".into()))
}

/// Removes the steps without which a failing walk still fails. Returns the rest and the reason of
/// the failure.
fn shrink(seed: u64, mut steps: Vec<Step>) -> (Vec<Step>, String) {
    let mut chunk = steps.len();
    let mut failure = String::new();
    while chunk > 0 {
        let mut from = 0;
        while from < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(from..steps.len().min(from + chunk));
            match walk(seed, &fewer) {
                Err(reason) => (steps, failure) = (fewer, reason),
                Ok(()) => from += chunk,
            }
        }
        chunk /= 2;
    }
    (steps, failure)
}

#[test]
fn random_walks_agree_with_the_model() {
    let walks = std::env::var("FANOUT_WALKS").map_or(WALKS, |walks| walks.parse().unwrap());
    for seed in 0..walks {
        let steps = random_steps(&mut Rng::with_seed(!seed));
        if walk(seed, &steps).is_err() {
            let (steps, reason) = shrink(seed, steps);
            panic!("seed {seed}: {reason}, after {steps:#?}");
        }
    }
}
