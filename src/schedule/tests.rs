//! Exact tests in virtual time, and random walks that are checked by a brute-force model.

mod adaptive;
mod batch_ends;
mod breakers;
mod budget_fairness;
mod budget_simulation;
mod budget_walks;
mod budgets;
mod contended_rates;
mod control;
mod fairness;
mod final_rounds;
mod gate_meter;
mod model;
mod model_checks;
mod outage_model;
mod priorities;
mod random_walks;
mod rates;
mod retry_budgets;
mod routes;
mod scouts;
mod server_limits;
mod simulated_servers;
mod simulation;
mod tenants;
