//! An exchange that its timeouts or its cancel flag can end early.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::task::unconstrained;
use tokio::time::Sleep;

use super::Engine;
use super::cancel_flag::CancelFlag;
use super::runtimes::no_io_driver_error;
use super::timeouts::ExchangeTimeouts;
use crate::error::{Error, ErrorKind, panic_message};
use crate::hop_clock::HopClock;
use crate::response::Response;
use crate::schedule::Time;

/// Polls an exchange inside its tracing span until the exchange completes, times out or is
/// cancelled.
pub(super) struct GuardedExchange<'a, F> {
    pub(super) engine: &'a Engine,
    pub(super) exchange: Pin<&'a mut Option<F>>,
    pub(super) cancel_flag: &'a CancelFlag,
    pub(super) timeouts: ExchangeTimeouts<'a>,
    pub(super) hop_clock: &'a HopClock,
    pub(super) span: Option<tracing::Span>,
}

impl<F: Future<Output = Result<Response, Error>>> GuardedExchange<'_, F> {
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        timer: &mut ExchangeTimer<'_>,
    ) -> Poll<F::Output> {
        // The flag is also checked before the first poll, because a cancelled exchange must not
        // start.
        if self.cancel_flag.is_set() {
            return Poll::Ready(Err(Error::from_kind(ErrorKind::Cancelled)));
        }
        if let Poll::Ready(outcome) = self.poll_exchange(cx) {
            return Poll::Ready(outcome);
        }
        self.cancel_flag.register_waker(cx.waker());
        if self.cancel_flag.is_set() {
            return Poll::Ready(Err(Error::from_kind(ErrorKind::Cancelled)));
        }
        match self.timeouts.next_timeout(self.hop_clock) {
            Some((expiry, kind)) if timer.poll_expiry(cx, expiry, self.engine).is_ready() => {
                Poll::Ready(Err(self.timeouts.timeout_error(kind)))
            }
            _ => Poll::Pending,
        }
    }

    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _entered = self.span.as_ref().map(tracing::Span::enter);
        let Some(exchange) = self.exchange.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        // After a panic the exchange is not polled again, only dropped.
        catch_panic(|| exchange.poll(cx)).unwrap_or_else(|panicked| Poll::Ready(Err(panicked)))
    }
}

/// The timer that all exchanges of a worker share.
///
/// The timer is not reset when the expiry moves to a later time. Instead, the expiry is checked
/// again when the timer fires. An exchange that completes in time therefore costs no timer
/// operation.
pub(super) struct ExchangeTimer<'a> {
    sleep: Pin<&'a mut Sleep>,
    armed_expiry: Time,
}

impl<'a> ExchangeTimer<'a> {
    pub(super) fn new(sleep: Pin<&'a mut Sleep>) -> Self {
        Self {
            sleep,
            armed_expiry: Time::MAX,
        }
    }

    /// Returns ready once `expiry` has passed. Otherwise, the task is woken at `expiry` or earlier.
    fn poll_expiry(&mut self, cx: &mut Context<'_>, expiry: Time, engine: &Engine) -> Poll<()> {
        // A polled timer holds the task's waker until the timer fires or is rearmed.
        let holds_waker = expiry >= self.armed_expiry && !self.sleep.is_elapsed();
        if expiry < self.armed_expiry {
            self.rearm(expiry, engine);
        }
        // If tokio's cooperative budget is spent, a poll of the timer does not register the task's
        // waker. The timer is therefore polled outside of the budget.
        while !holds_waker && pin!(unconstrained(self.sleep.as_mut())).poll(cx).is_ready() {
            if engine.now() >= expiry {
                return Poll::Ready(());
            }
            self.rearm(expiry, engine);
        }
        Poll::Pending
    }

    fn rearm(&mut self, expiry: Time, engine: &Engine) {
        self.armed_expiry = expiry;
        self.sleep.as_mut().reset(engine.to_instant(expiry));
    }
}

/// Calls `run`, which may call the user's transport, and turns a panic into an error.
pub(super) fn catch_panic<T>(run: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let message = panic_message(&*panic);
        no_io_driver_error(message).unwrap_or_else(|| {
            Error::from_kind(ErrorKind::Panicked).with_detail(message.to_owned())
        })
    })
}
