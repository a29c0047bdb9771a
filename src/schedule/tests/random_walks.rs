//! Random walks, each step of them checked by the model. A walk that fails is cut down to the steps that it fails by.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fastrand::Rng;

use super::model::Model;

const WALKS: u64 = 4_000;
const STEPS: usize = 250;

/// What to do, and two numbers to choose of what there is.
#[derive(Copy, Clone, Debug)]
pub(super) struct Step {
    pub(super) action: Action,
    pub(super) which: usize,
    pub(super) amount: u64,
}

#[derive(Copy, Clone, Debug)]
pub(super) enum Action {
    Push,
    Next,
    Settle,
    Retry,
    Pause,
    Report,
    Abandon,
    AddBatch,
    RemoveBatch,
    /// Or lets it go.
    Hold,
    SetLimits,
    CloseLane,
    Close,
    /// To the instant that was told, and no later.
    WakeUp,
    Oversleep,
}

/// In proportion to how often each is taken.
const ACTIONS: [Action; 51] = {
    use Action::{
        Abandon, AddBatch, Close, CloseLane, Hold, Next, Oversleep, Pause, Push, RemoveBatch,
        Report, Retry, SetLimits, Settle, WakeUp,
    };
    [
        Push,
        Push,
        Push,
        Push,
        Push,
        Push,
        Push,
        Push,
        Push,
        Push,
        Push,
        Push,
        Push,
        Push,
        Next,
        Next,
        Next,
        Next,
        Next,
        Next,
        Next,
        Next,
        Next,
        Next,
        Next,
        Next,
        Settle,
        Settle,
        Settle,
        Settle,
        Settle,
        Settle,
        Retry,
        Retry,
        Retry,
        Retry,
        Pause,
        Pause,
        Report,
        Report,
        Abandon,
        AddBatch,
        AddBatch,
        RemoveBatch,
        WakeUp,
        WakeUp,
        Oversleep,
        Hold,
        SetLimits,
        CloseLane,
        Close,
    ]
};

fn steps(random: &mut Rng) -> Vec<Step> {
    let calm = random.bool();
    let step = |random: &mut Rng| {
        // A calm walk rarely ends a batch, so that work piles up.
        let mut action = ACTIONS[random.usize(..ACTIONS.len())];
        if calm
            && matches!(
                action,
                Action::RemoveBatch
                    | Action::Close
                    | Action::CloseLane
                    | Action::Oversleep
                    | Action::Pause
            )
            && random.u8(..10) > 0
        {
            action = Action::Push;
        }
        Step {
            action,
            which: random.usize(..),
            amount: random.u64(..),
        }
    };
    (0..STEPS).map(|_| step(random)).collect()
}

fn walk(seed: u64, steps: &[Step]) -> Result<(), String> {
    let mut model = Model::new(seed);
    let go = || {
        model.add_batch(1)?;
        steps.iter().try_for_each(|&step| model.step(step))?;
        model.finish()
    };
    catch_unwind(AssertUnwindSafe(go)).unwrap_or_else(|_| Err("panicked".into()))
}

/// Leaves out whatever is not needed for the walk to fail.
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
fn no_walk_breaks_a_promise() {
    for seed in 0..WALKS {
        let steps = steps(&mut Rng::with_seed(!seed));
        if walk(seed, &steps).is_err() {
            let (steps, reason) = shrink(seed, steps);
            panic!("seed {seed}: {reason}, after {steps:#?}");
        }
    }
}
