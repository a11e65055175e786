//! Which partitions to cut, and why. Pure: the time is an argument.
use std::time::{Duration, Instant};

/// Why a plan was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reason {
    /// A file is as large as it should be.
    Bytes,
    Rows,
    Age,
    /// All open files together hold too much, and this partition most.
    Memory,
    /// One more day would be one too many.
    Days,
    /// The broker asked for it: the log is full.
    Flush,
    /// The input is done.
    Target,
    Revoke,
    Drain,
    /// The plan was made before a restart.
    Replay,
}

impl Reason {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Rows => "rows",
            Self::Age => "age",
            Self::Memory => "memory",
            Self::Days => "days",
            Self::Flush => "flush",
            Self::Target => "target",
            Self::Revoke => "revoke",
            Self::Drain => "drain",
            Self::Replay => "replay",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) file_bytes: usize,
    pub(super) max_rows: u64,
    pub(super) max_age: Duration,
    pub(super) budget_bytes: usize,
}

/// What is open of one partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) rows: u64,
    /// Encoded, of its largest file.
    pub(super) file_bytes: usize,
    /// In memory, all its days together.
    pub(super) memory_bytes: usize,
    /// When its first record came; None if there is nothing to commit.
    pub(super) opened_at: Option<Instant>,
    /// A plan of an earlier run is being done again: it is cut where that plan says.
    pub(super) replaying: bool,
}

/// The partitions (by their place in `held`) that are to be cut now, together.
pub(super) fn due(held: &[Held], limits: &Limits, now: Instant) -> Vec<(usize, Reason)> {
    let mut due = Vec::new();
    let mut kept_bytes = 0;
    let mut kept = Vec::new();
    for (i, held) in held.iter().enumerate() {
        let Some(opened_at) = held.opened_at.filter(|_| !held.replaying) else {
            kept_bytes += held.memory_bytes;
            continue;
        };
        if held.file_bytes >= limits.file_bytes {
            due.push((i, Reason::Bytes));
        } else if held.rows >= limits.max_rows {
            due.push((i, Reason::Rows));
        } else if now.saturating_duration_since(opened_at) >= limits.max_age {
            due.push((i, Reason::Age));
        } else {
            kept_bytes += held.memory_bytes;
            kept.push((held.memory_bytes, i));
        }
    }
    kept.sort_unstable();
    while kept_bytes > limits.budget_bytes
        && let Some((bytes, i)) = kept.pop()
        && bytes > 0
    {
        due.push((i, Reason::Memory));
        kept_bytes -= bytes;
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;
    use Reason::{Age, Bytes, Memory, Rows};

    #[test]
    fn what_is_due() {
        let start = records::clock::now();
        let limits = Limits { file_bytes: 100, max_rows: 50, max_age: Duration::from_secs(60), budget_bytes: 300 };
        let held = |rows, file_bytes, memory_bytes, age: u64| Held {
            rows,
            file_bytes,
            memory_bytes,
            opened_at: Some(start + Duration::from_secs(100 - age)),
            replaying: false,
        };
        let nothing = Held { rows: 0, file_bytes: 0, memory_bytes: 0, opened_at: None, replaying: false };
        let replaying = Held { replaying: true, ..held(99, 999, 200, 99) };
        for (case, input, expected) in [
            ("nothing open", vec![nothing], vec![]),
            ("young and small", vec![held(1, 1, 1, 59)], vec![]),
            ("old", vec![nothing, held(0, 0, 0, 60)], vec![(1, Age)]),
            ("a large file", vec![held(1, 100, 150, 0), held(1, 99, 150, 0)], vec![(0, Bytes)]),
            ("many rows", vec![held(50, 1, 1, 0)], vec![(0, Rows)]),
            ("together at the budget", vec![held(1, 9, 100, 0); 3], vec![]),
            (
                "the largest goes first",
                vec![held(1, 9, 90, 0), held(1, 9, 130, 0), held(1, 9, 100, 0)],
                vec![(1, Memory)],
            ),
            (
                "two largest",
                vec![held(1, 9, 290, 0), held(1, 9, 310, 0), held(1, 9, 20, 0)],
                vec![(1, Memory), (0, Memory)],
            ),
            ("what is cut anyway does not count", vec![held(1, 100, 250, 0), held(1, 9, 100, 0)], vec![(0, Bytes)]),
            ("a plan done again stays", vec![replaying, held(1, 9, 90, 0)], vec![]),
            ("but it takes room", vec![replaying, held(1, 9, 101, 0)], vec![(1, Memory)]),
        ] {
            assert_eq!(due(&input, &limits, start + Duration::from_secs(100)), expected, "{case}");
        }
    }
}
