//! Exit codes, and what a panic does.
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    /// Failed or refused.
    Failed,
    Usage,
    /// Drained by a signal before the input was done and every output had caught up.
    Drained,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Drained => 3,
        })
    }
}

/// Wrong usage that shows only after the line was parsed.
#[derive(Debug)]
pub(crate) struct Wrong(pub(crate) String);

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

impl Exit {
    /// Of a command that ended in an error.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        if error.is::<Wrong>() { Self::Usage } else { Self::Failed }
    }
}

/// An error in one line, with its causes; what an error says of its own cause is not said again.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// A panic in any thread ends the process: nothing limps on. What was committed stays, what was
/// not is done again by the next start.
pub(crate) fn die_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        #[cfg(feature = "failpoints")]
        kill_nine();
        report(panic);
        std::process::abort();
    }));
}

/// What the tests ask for: no handler, no destructor, no flush.
#[cfg(feature = "failpoints")]
fn kill_nine() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let metrics = sessionizer::Error::Metrics(prometheus::Error::Msg("twice".into()));
        for (error, expected) in [
            (anyhow!("inner").context("outer"), "outer: inner"),
            (anyhow!("inner").context("outer: inner"), "outer: inner"),
            (anyhow::Error::new(metrics), "sessionizer: its metrics: Error: twice"),
        ] {
            assert_eq!(explain(&error), expected);
        }
        assert_eq!(Exit::of(&Wrong("so".into()).into()), Exit::Usage);
        assert_eq!(Exit::of(&anyhow!("so")), Exit::Failed);
    }
}
