//! Rates that change: when the n-th row is due where events a second are held, raised or stepped. Pure.
//!
//! A plan is a list of segments; in each the rate goes in a straight line from one value to another.
//! How many rows are due by a time is the area under it, and when a row is due is that, solved.
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The greatest rate that can be asked for, in events a second.
pub const MAX_RATE: f64 = 1e9;

/// Events a second, from one value to another over a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    pub from: f64,
    pub to: f64,
    /// None for the last one that goes on.
    pub over: Option<Duration>,
}

/// One segment after another; after the last, its last rate goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    segments: Vec<Segment>,
}

impl Rates {
    pub fn constant(per_second: f64) -> Self {
        Self { segments: vec![Segment { from: per_second, to: per_second, over: None }] }
    }

    pub fn new(segments: Vec<Segment>) -> Result<Self, String> {
        let plan = Self { segments };
        let within = |rate: f64| rate.is_finite() && (0.0..=MAX_RATE).contains(&rate);
        if !plan.segments.iter().all(|segment| within(segment.from) && within(segment.to)) {
            return Err(format!("a rate is 0/s to {MAX_RATE}/s"));
        }
        if plan.last() <= 0.0 {
            return Err("the last rate goes on to the end of the input: it must be above 0/s".into());
        }
        if plan.segments.iter().rev().skip(1).any(|segment| segment.over.is_none()) {
            return Err("only the last step may go on: the others say for how long, as in 1000/s for 30s".into());
        }
        Ok(plan)
    }

    /// Steps, one a line: `1000/s for 30s`, `1000/s..5000/s over 1m`; the last may go on: `5000/s`.
    /// Blank lines and what follows a # are left out.
    pub fn parse_steps(text: &str) -> Result<Self, String> {
        let mut segments = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                segments.push(line.parse::<Segment>().map_err(|why| format!("line {number}: {why}"))?);
            }
        }
        if segments.is_empty() {
            return Err("it holds no step; one is 1000/s for 30s".into());
        }
        Self::new(segments)
    }

    /// The rate, where it is one for ever.
    pub(crate) fn held(&self) -> Option<f64> {
        if let [Segment { to, over: None, .. }] = self.segments[..] { Some(to) } else { None }
    }

    fn last(&self) -> f64 {
        self.segments.last().map_or(0.0, |segment| segment.to)
    }

    /// When the row after so many is due, in microseconds from the plan's beginning: after a pause that
    /// lies between them.
    pub(crate) fn at_us(&self, rows: f64) -> f64 {
        self.time_us(rows, |rows, end| rows < end)
    }

    /// When so many rows are through: before such a pause.
    pub(crate) fn through_us(&self, rows: f64) -> f64 {
        self.time_us(rows, |rows, end| rows <= end)
    }

    /// `within` says whether a segment with so many rows at its end is the one.
    fn time_us(&self, rows: f64, within: impl Fn(f64, f64) -> bool) -> f64 {
        if rows < 0.0 {
            // Behind its beginning, as fast as it begins.
            let rate = self.rate_at(0.0);
            return if rate > 0.0 { rows / rate * 1e6 } else { 0.0 };
        }
        let (mut begun_us, mut before) = (0.0, 0.0);
        for segment in &self.segments {
            let Some(over) = segment.over else { break };
            let (over_us, in_it) = (over.as_secs_f64() * 1e6, segment.rows(over.as_secs_f64()));
            if within(rows, before + in_it) {
                return begun_us + segment.seconds(rows - before) * 1e6;
            }
            (begun_us, before) = (begun_us + over_us, before + in_it);
        }
        begun_us + (rows - before) / self.last() * 1e6
    }

    /// How many rows are through so long after the beginning.
    pub(crate) fn rows_at(&self, us: f64) -> f64 {
        let (mut left, mut rows) = (us / 1e6, 0.0);
        for segment in &self.segments {
            let Some(over) = segment.over else { break };
            if left < over.as_secs_f64() {
                return rows + segment.rows(left);
            }
            left -= over.as_secs_f64();
            rows += segment.rows(over.as_secs_f64());
        }
        rows + left * self.last()
    }

    /// Events a second at that time.
    pub(crate) fn rate_at(&self, us: f64) -> f64 {
        let mut left = us / 1e6;
        for segment in &self.segments {
            let Some(over) = segment.over.map(|over| over.as_secs_f64()) else { break };
            if left < over {
                return segment.from + (segment.to - segment.from) * left.max(0.0) / over;
            }
            left -= over;
        }
        self.last()
    }
}

impl Segment {
    /// How many rows the first so many seconds of it hold.
    fn rows(&self, seconds: f64) -> f64 {
        let over = self.over.map_or(f64::INFINITY, |over| over.as_secs_f64());
        self.from * seconds + (self.to - self.from) / (2.0 * over) * seconds * seconds
    }

    /// The other way round, in the form that does not cancel out.
    fn seconds(&self, rows: f64) -> f64 {
        let over = self.over.map_or(f64::INFINITY, |over| over.as_secs_f64());
        let slope = (self.to - self.from) / (2.0 * over);
        let root = (self.from * self.from + 4.0 * slope * rows).max(0.0).sqrt();
        if rows <= 0.0 { 0.0 } else { 2.0 * rows / (self.from + root) }
    }
}

/// `1000/s`, `1000/s for 30s`, `1000/s..5000/s over 1m`.
impl FromStr for Segment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "it takes 1000/s for 30s, or 1000/s..5000/s over 1m".to_owned();
        let rate = |text: &str| parse_rate(text).ok_or_else(wrong);
        let time = |text: &str| parse_duration(text.trim()).filter(|time| !time.is_zero()).ok_or_else(wrong);
        if let Some((from, rest)) = text.split_once("..") {
            let (to, over) = rest.split_once(" over ").ok_or_else(wrong)?;
            return Ok(Self { from: rate(from)?, to: rate(to)?, over: Some(time(over)?) });
        }
        let (at, over) = match text.split_once(" for ") {
            Some((at, over)) => (rate(at)?, Some(time(over)?)),
            None => (rate(text)?, None),
        };
        Ok(Self { from: at, to: at, over })
    }
}

/// `1000/s..50000/s over 5m`: a ramp, after which its last rate goes on.
impl FromStr for Rates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(segment @ Segment { over: Some(_), .. }) if text.contains("..") => Self::new(vec![segment]),
            _ => Err("a ramp is a rate, another and the time between, as in 1000/s..50000/s over 5m".into()),
        }
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |segment: &Segment| match segment.over {
            Some(over) if segment.from == segment.to => format!("{}/s for {over:?}", segment.from),
            Some(over) => format!("{}/s..{}/s over {over:?}", segment.from, segment.to),
            None => format!("{}/s", segment.to),
        };
        f.write_str(&self.segments.iter().map(shown).collect::<Vec<_>>().join(", "))
    }
}

fn parse_rate(text: &str) -> Option<f64> {
    let text = text.trim();
    text.strip_suffix("/s").unwrap_or(text).trim().parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 0.0)
}

fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-6 * a.abs().max(b.abs()).max(1.0)
    }

    #[test]
    fn when_rows_are_due() {
        let steps =
            Rates::parse_steps("# warm up\n100/s for 10s\n0/s for 5s\n100/s..300/s over 10s # up\n\n300/s").unwrap();
        let ramp: Rates = "1000/s..50000/s over 5m".parse().unwrap();
        for (plan, rows, us) in [
            (Rates::constant(10.0), 25.0, 2_500_000.0),
            (Rates::constant(500_000.0), 500_000.0 * 86_400.0, 86_400e6),
            (steps.clone(), 999.0, 9_990_000.0),
            // The pause lies between the thousandth row and the one after.
            (steps.clone(), 1000.0, 15e6),
            (steps.clone(), 2000.0, 15e6 + 6_180_339.887),
            (steps.clone(), 3000.0, 25e6),
            (steps.clone(), 3300.0, 26e6),
            (ramp.clone(), 0.0, 0.0),
            (ramp.clone(), 25_500.0 * 300.0, 300e6),
            (ramp, 25_500.0 * 300.0 + 50_000.0, 301e6),
            ("0/s..100/s over 10s".parse().unwrap(), 500.0, 10e6),
            ("0/s..100/s over 10s".parse().unwrap(), 125.0, 5e6),
        ] {
            assert!(close(plan.at_us(rows), us), "{plan}, {rows} rows: {}, not {us}", plan.at_us(rows));
        }
        let begins_with_one = Rates::parse_steps("0/s for 5s\n100/s").unwrap();
        for (plan, rows, through, at) in [
            (&begins_with_one, 0.0, 0.0, 5e6),
            (&begins_with_one, 100.0, 6e6, 6e6),
            (&steps, 0.0, 0.0, 0.0),
            (&steps, 1000.0, 10e6, 15e6),
            (&steps, 3000.0, 25e6, 25e6),
        ] {
            assert!(close(plan.through_us(rows), through) && close(plan.at_us(rows), at), "{plan}, {rows} rows");
        }
    }

    #[test]
    fn wrong_plans_say_what_is_right() {
        for (text, why) in [
            ("", "it holds no step"),
            ("fast", "line 1: it takes"),
            ("10/s for 5s\n10/s for never", "line 2: it takes"),
            ("10/s\n20/s", "only the last step may go on"),
            ("10/s for 5s\n0/s", "it must be above 0/s"),
            ("1e10/s", "a rate is 0/s to"),
            ("-5/s", "it takes"),
        ] {
            let got = Rates::parse_steps(text).unwrap_err();
            assert!(got.contains(why), "{text:?}: {got}");
        }
        for text in ["1000/s", "1000/s over 5m", "1000/s..50000/s", "1000/s for 5m", "5/s..0/s over 1m"] {
            assert!(text.parse::<Rates>().is_err(), "{text}");
        }
    }

    proptest! {
        /// Rows to time and back, and never a step back.
        #[test]
        fn a_plan_can_be_turned_round(
            parts in proptest::collection::vec((1.0..1e6_f64, 1.0..1e6_f64, 1_u64..1000), 1..6),
            rows in proptest::collection::vec(0.0..1e9_f64, 2..20),
        ) {
            let segments = parts.iter().map(|(from, to, over)| Segment { from: *from, to: *to, over: Some(Duration::from_secs(*over)) });
            let plan = Rates::new(segments.collect()).unwrap();
            let mut rows = rows;
            rows.sort_by(f64::total_cmp);
            let times: Vec<f64> = rows.iter().map(|n| plan.at_us(*n)).collect();
            prop_assert!(times.is_sorted());
            for (n, us) in rows.iter().zip(&times) {
                prop_assert!(close(plan.rows_at(*us), *n), "{} is not {n}", plan.rows_at(*us));
                let rate = plan.rate_at(*us);
                prop_assert!((1.0..=1e6).contains(&rate), "{rate}");
            }
        }
    }
}
