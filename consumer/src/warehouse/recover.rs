//! What an answer to an append means, and what is done about it. Pure.
//!
//! A stream takes whole requests in order, each only at its end. So of the plans that are
//! outstanding, the first few are in the stream and the others are not, and the number of its rows
//! says how many.
use super::backend::Answer;
use super::plan::Plan;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is in the stream.
    Done,
    /// Send it again, after a pause, and all that comes after it, in order, on a new connection.
    Again {
        why: String,
        throttled: bool,
    },
    /// Settle what is in the stream, leave these rows out, and go on in a new stream: none of the
    /// requests sent to the old one can then come late and be taken at another place.
    Shrink(Vec<(usize, String)>),
    /// Settle what is in the stream, and go on in a new one.
    Replace(String),
    Stop(String),
}

/// `settled`: all plans before this one are known to be in the stream. `asked_before`: it may have
/// been sent to this stream once already, by this process or the one before.
pub(super) fn decide(answer: Answer, settled: bool, asked_before: bool) -> Decision {
    match answer {
        Answer::Appended => Decision::Done,
        // The rows at that place are those of this plan: it was committed before anything was sent
        // there, and nobody else knows the stream.
        Answer::AlreadyExists if asked_before => Decision::Done,
        // The client may have sent it twice. Or the stream has rows that nobody accounts for, and
        // all that follows would be taken for stored: the number of its rows tells.
        Answer::AlreadyExists => Decision::Replace("rows are there already that were sent only now".into()),
        Answer::OutOfRange if settled => Decision::Stop(
            "the stream has fewer rows than were acknowledged. Compare the table with the log before anything else is \
             sent"
                .into(),
        ),
        Answer::OutOfRange => Decision::Again { why: "an append before it is not settled".into(), throttled: false },
        Answer::RowErrors(rows) if rows.is_empty() => Decision::Stop("rows were refused, but not said which".into()),
        Answer::RowErrors(rows) => Decision::Shrink(rows),
        Answer::StreamGone(why) => Decision::Replace(why),
        Answer::Throttled(why) => Decision::Again { why, throttled: true },
        Answer::Unknown(why) => Decision::Again { why, throttled: false },
        Answer::Refused(why) => Decision::Stop(why),
    }
}

/// How many of the outstanding plans are in a stream that had `before` rows before them and was
/// finalized with `rows`.
pub(super) fn settle(before: i64, plans: &[Plan], rows: i64) -> Result<usize, String> {
    let mut end = before;
    if rows == end {
        // Plans without rows do not show; none is ever made.
        return Ok(0);
    }
    for (i, plan) in plans.iter().enumerate() {
        end += plan.rows;
        if rows == end {
            return Ok(i + 1);
        }
    }
    Err(format!(
        "the stream was finalized with {rows} rows, where {before} were there before the {} outstanding appends of {} \
         rows: somebody else has written to it, or it lost rows. Compare the table with the log",
        plans.len(),
        end - before
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(why: &str, throttled: bool) -> Decision {
        Decision::Again { why: why.into(), throttled }
    }

    #[test]
    fn decisions() {
        let text = || "why".to_owned();
        for settled in [true, false] {
            assert_eq!(decide(Answer::AlreadyExists, settled, true), Decision::Done);
            assert!(matches!(decide(Answer::AlreadyExists, settled, false), Decision::Replace(_)));
        }
        for (answer, settled, expected) in [
            (Answer::Appended, true, Decision::Done),
            (Answer::OutOfRange, false, again("an append before it is not settled", false)),
            (Answer::RowErrors(vec![(3, text())]), true, Decision::Shrink(vec![(3, text())])),
            (Answer::StreamGone(text()), true, Decision::Replace(text())),
            (Answer::Throttled(text()), true, again("why", true)),
            (Answer::Unknown(text()), false, again("why", false)),
            (Answer::Refused(text()), true, Decision::Stop(text())),
        ] {
            for asked_before in [true, false] {
                assert_eq!(decide(answer.clone(), settled, asked_before), expected, "{answer:?}, settled: {settled}");
            }
        }
        for answer in [Answer::OutOfRange, Answer::RowErrors(vec![])] {
            assert!(matches!(decide(answer, true, false), Decision::Stop(_)));
        }
    }

    #[test]
    fn settling() {
        let plan = |rows| Plan { last: 0, rows, omitted: vec![] };
        let plans = [plan(5), plan(1), plan(4)];
        for (rows, expected) in [(100, Ok(0)), (105, Ok(1)), (106, Ok(2)), (110, Ok(3))] {
            assert_eq!(settle(100, &plans, rows), expected, "{rows}");
        }
        for rows in [0, 99, 101, 107, 111] {
            assert!(settle(100, &plans, rows).is_err(), "{rows}");
        }
        assert_eq!(settle(7, &[], 7), Ok(0));
        assert!(settle(7, &[], 8).is_err());
    }
}
