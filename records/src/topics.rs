//! The topics' names, without the prefix.

pub const EVENTS: &str = "events";
pub const FUNNEL_STEPS: &str = "funnel-steps";
pub const SESSIONS: &str = "sessions";
pub const DEAD_LETTERS: &str = "dead-letters";
pub const REPLAY_PROGRESS: &str = "replay-progress";
pub const REPLAY_CONTROL: &str = "replay-control";

/// All of them.
pub const ALL: [&str; 6] = [EVENTS, FUNNEL_STEPS, SESSIONS, DEAD_LETTERS, REPLAY_PROGRESS, REPLAY_CONTROL];

pub const DEFAULT_PREFIX: &str = "clickstream.";
pub const DEFAULT_PARTITIONS: u32 = 4;

/// So many feeds may be unfinished at a time: the sessionizer's commits say of each where it stands, in
/// metadata of bounded size.
pub const UNFINISHED_FEEDS_MAX: usize = 80;

/// The most bytes of a row or record that a dead letter keeps.
pub const DEAD_LETTER_BYTES: usize = 64 << 10;
