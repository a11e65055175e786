//! The marts against a naive recomputation, through the whole part.
#![allow(clippy::unwrap_used, reason = "tests")]
mod double;
mod files;
mod oracle;
mod recovery;
mod sample;
mod tables;
