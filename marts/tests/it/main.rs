//! The marts against a naive recomputation, through the whole part.
mod double;
mod files;
mod oracle;
mod recovery;
mod sample;
mod tables;
