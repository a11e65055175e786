//! What an error of a store says to a person, and whether the same request may go better later.
use std::io;

use std::time::Duration;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use crate::refused::Refused;

pub(crate) struct Failed {
    pub(crate) why: String,
    /// The same request would fail again.
    pub(crate) is_final: bool,
    /// Nobody answers at that address.
    pub(crate) is_unheard: bool,
    /// How long the server asks to be left alone for.
    pub(crate) wait: Duration,
}

pub(crate) const CHANGED: &str = "it was changed while it was read";

impl Failed {
    pub(crate) fn passing(why: &str) -> Self {
        Self { why: why.to_owned(), is_final: false, is_unheard: false, wait: Duration::ZERO }
    }

    pub(crate) fn last(why: String) -> Self {
        Self { is_final: true, ..Self::passing(&why) }
    }

    pub(crate) fn of(error: &Error) -> Self {
        if let Some(refused) = Refused::among(error) {
            let why = refused.to_string();
            return if refused.is_too_long() {
                Self::last(why)
            } else {
                Self { wait: refused.wait, ..Self::passing(&why) }
            };
        }
        match error {
            Error::Precondition { .. } | Error::NotModified { .. } => Self::last(CHANGED.to_owned()),
            Error::NotFound { .. }
            | Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::NotImplemented { .. }
            | Error::NotSupported { .. }
            | Error::InvalidPath { .. } => Self::last(explain(error)),
            _ => Self { is_unheard: is_unheard(error), ..Self::passing(&explain(error)) },
        }
    }
}

fn is_unheard(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<HttpError>() {
            return error.kind() == HttpErrorKind::Connect;
        }
        cause = error.source();
    }
    false
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
