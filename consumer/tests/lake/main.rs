//! The lake on the embedded broker and a local folder, with faults put in between.
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
