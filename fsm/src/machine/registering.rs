//! What a registration leads to: the two paths, the two names of the provider, and the waits (CONSOLE.md,
//! "Registration").

use super::Context;
use super::chart::State;
use super::connection::Connection;
use crate::fact::RegistrationOutcome;
use crate::order::{ConsoleEvent, Order, Problem, ProviderName, RegisterPath};
use crate::timer::Timer;
use statig::prelude::{Outcome, Transition};

impl Connection {
    /// Back at the start, where the path in use and the other one are both open again.
    pub(super) fn begin_unregistered(&mut self, wait_ms: u64, context: &mut Context<'_>) {
        self.registration.path_changed = false;
        context.arm_in(Timer::Begin, wait_ms);
    }

    pub(super) fn request(&mut self, context: &mut Context<'_>) {
        self.registration.attempt = self.registration.attempt.next();
        context.order(Order::Register {
            attempt: self.registration.attempt,
            path: self.registration.path,
            provider: self.registration.provider,
        });
        context.arm_in(Timer::RegistrationDeadline, context.policy.registration_ms);
    }

    pub(super) fn back_off(&mut self, wait_ms: u64, context: &mut Context<'_>) {
        self.registration.path_changed = false;
        context.arm_in(Timer::Retry, wait_ms);
    }

    pub(super) fn registration_answered(
        &mut self,
        status: u16,
        retry_after_ms: Option<u64>,
        context: &mut Context<'_>,
    ) -> Outcome<State> {
        match RegistrationOutcome::of(status) {
            RegistrationOutcome::Registered => self.registration_accepted(context),
            RegistrationOutcome::KeyRefused => self.key_refused_registering(context),
            // The other path is asked at once.
            RegistrationOutcome::WrongPath if !self.registration.path_changed => {
                self.registration.path_changed = true;
                (self.registration.path, self.registration.provider) = other(self.registration.path);
                Transition(State::Requesting)
            }
            // It knows fewer providers, by other names.
            RegistrationOutcome::PayloadRefused if self.registration.provider == ProviderName::Configured => {
                self.registration.provider = ProviderName::Alias;
                Transition(State::Requesting)
            }
            RegistrationOutcome::WrongPath | RegistrationOutcome::PayloadRefused | RegistrationOutcome::Rejected => {
                self.registration_rejected(context)
            }
            RegistrationOutcome::Redirected => {
                context.order(Order::Report { problem: Problem::Redirected });
                self.register_later(retry_after_ms, context)
            }
            RegistrationOutcome::Unavailable => self.register_later(retry_after_ms, context),
        }
    }

    pub(super) fn registration_failed(&mut self, context: &mut Context<'_>) -> Outcome<State> {
        self.register_later(None, context)
    }

    pub(super) fn registration_overdue(&mut self, context: &mut Context<'_>) -> Outcome<State> {
        context.order(Order::AbandonRegistration { attempt: self.registration.attempt });
        self.register_later(None, context)
    }

    fn registration_accepted(&mut self, context: &mut Context<'_>) -> Outcome<State> {
        self.registration.done = true;
        if !self.registration.deployed {
            self.registration.deployed = true;
            context.order(Order::Emit { event: ConsoleEvent::Deploy });
        }
        Transition(State::Waiting { wait_ms: 0 })
    }

    fn key_refused_registering(&mut self, context: &mut Context<'_>) -> Outcome<State> {
        context.order(Order::Report { problem: Problem::KeyRefused });
        let wait_ms = self.backoff.after_refusal_ms(context.policy, context.random);
        Transition(State::BackingOff { wait_ms })
    }

    /// The console will not have it, but may know us all the same: on with the configured id.
    fn registration_rejected(&mut self, context: &mut Context<'_>) -> Outcome<State> {
        context.order(Order::Report { problem: Problem::RegistrationRejected });
        Transition(State::Waiting { wait_ms: 0 })
    }

    fn register_later(&mut self, retry_after_ms: Option<u64>, context: &mut Context<'_>) -> Outcome<State> {
        let wait_ms = self.retry_wait_ms(retry_after_ms, context);
        Transition(State::BackingOff { wait_ms })
    }

    /// The wait after a failure: what the console asks for, or the ordinary row.
    pub(super) fn retry_wait_ms(&mut self, retry_after_ms: Option<u64>, context: &mut Context<'_>) -> u64 {
        match retry_after_ms {
            Some(asked_ms) => self.backoff.after_request_ms(asked_ms, context.policy, context.random),
            None => self.backoff.after_failure_ms(context.policy, context.random),
        }
    }
}

/// The other path, and how the console that serves it names providers: the production console would answer 422 to the
/// configured name, and counts each attempt against its limit.
fn other(path: RegisterPath) -> (RegisterPath, ProviderName) {
    match path {
        RegisterPath::Designed => (RegisterPath::Observed, ProviderName::Alias),
        RegisterPath::Observed => (RegisterPath::Designed, ProviderName::Configured),
    }
}
