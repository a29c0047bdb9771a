//! Exact tests in virtual time, and (in `walk`) random walks against a brute-force model.

mod breakers;
mod budgets;
mod checks;
mod ends;
mod fairness;
mod last_rounds;
mod meter;
mod model;
mod outage;
mod rates;
mod scouts;
mod sim;
mod steered;
mod walk;
