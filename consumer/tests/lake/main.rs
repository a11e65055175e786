//! The lake on the embedded broker and a local folder, with faults put in between.
mod doubles;
mod exactly_once;
mod faults;
mod fixture;
