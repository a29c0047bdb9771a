//! Exact tests in virtual time, and (in `walk`) a random walk against a brute-force model.

mod ends;
mod fairness;
mod rates;
mod sim;
mod walk;
