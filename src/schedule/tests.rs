//! Exact tests in virtual time, and (in `walk`) random walks against a brute-force model.

mod adaptive;
mod checks;
mod ends;
mod fairness;
mod meter;
mod model;
mod quotas;
mod rates;
mod scouts;
mod servers;
mod sim;
mod walk;
