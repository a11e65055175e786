//! What an error of a store says to a person, and whether the same request may go better later.
use std::io;

use object_store::Error;

pub(crate) struct Failed {
    pub(crate) why: String,
    /// The same request would fail again.
    pub(crate) is_final: bool,
}

pub(crate) const CHANGED: &str = "it was changed while it was read";

impl Failed {
    pub(crate) fn passing(why: &str) -> Self {
        Self { why: why.to_owned(), is_final: false }
    }

    pub(crate) fn last(why: String) -> Self {
        Self { why, is_final: true }
    }

    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::Precondition { .. } | Error::NotModified { .. } => Self::last(CHANGED.to_owned()),
            Error::NotFound { .. }
            | Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::NotImplemented { .. }
            | Error::NotSupported { .. }
            | Error::InvalidPath { .. } => Self::last(explain(error)),
            _ => Self { why: explain(error), is_final: false },
        }
    }
}

pub(crate) fn told(error: &Error) -> io::Error {
    io::Error::other(explain(error))
}

/// In one line, with the causes.
pub fn explain(error: &Error) -> String {
    match error {
        Error::NotFound { .. } => "no such object".to_owned(),
        Error::PermissionDenied { .. } => format!("not allowed with these credentials: {}", causes(error)),
        Error::Unauthenticated { .. } => format!("the credentials are missing or refused: {}", causes(error)),
        other => causes(other),
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
