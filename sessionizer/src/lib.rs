//! Events → funnel steps and closed sessions.
pub mod core;
mod metadata;
pub use self::core::{Gap, Rules};
pub use metadata::{Metadata, MetadataError};
