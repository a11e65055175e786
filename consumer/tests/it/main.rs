//! The sinks on the embedded broker, with faults put in between: the lake on a local folder, the
//! warehouse on a BigQuery in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tests: a panic is how they fail"
)]
mod doubles;
mod exactly_once;
mod faults;
mod fixture;
mod warehouse;
