//! sessionizer
