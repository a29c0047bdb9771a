//! Exact tests in virtual time, and (in `walk`) random walks against a brute-force model.

mod adaptive;
mod breakers;
mod budgets;
mod checks;
mod ends;
mod fairness;
mod last_rounds;
mod levels;
mod meter;
mod model;
mod outage;
mod quotas;
mod rates;
mod scouts;
mod servers;
mod sim;
mod steered;
mod walk;
