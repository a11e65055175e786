//! The replay as a whole, on the embedded broker: what its topics hold afterwards.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "tests"
)]

mod bad_files;
mod bad_rows;
mod disorder;
mod forms;
mod paced;
mod resume;
mod steered;
mod windows;
mod world;
