//! marts
