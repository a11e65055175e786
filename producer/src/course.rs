//! When the next row is due by what is asked for now: a speed, rates, or nothing at all; paused or not.
//! Pure: times are microseconds since the replay began, by a clock that only goes forward.
//!
//! A course is a straight line through its anchor: a position of the schedule and the time at which it
//! was there. Every change puts the anchor where the course is at that time, so nothing jumps, and
//! where nothing changes nothing drifts.
use crate::rates::Rates;

/// What was due this long before a change, and is not sent yet, is still due as it was: the replay
/// wakes late now and then. What is later than that follows the change.
const OVERDUE_US: i64 = 250_000;

/// The row that is to be sent next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Upcoming {
    /// Its place in the schedule of event times.
    pub(crate) schedule_us: i64,
    /// Its number among the source's rows.
    pub(crate) number: u64,
}

/// The instant of a change, and when it was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct When {
    pub(crate) from_us: i64,
    pub(crate) heard_us: i64,
}

impl When {
    /// Heard of in time.
    pub(crate) fn at(us: i64) -> Self {
        Self { from_us: us, heard_us: us }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// As fast as they are taken.
    FlatOut,
    /// Schedule time per real time.
    Speed(f64),
    /// Row n at the plan's time of `n - first`.
    Rates { plan: Rates, first: f64 },
}

#[derive(Clone, Debug)]
pub(crate) struct Course {
    kind: Kind,
    paused: bool,
    /// A time, and the position then. None before the first row.
    anchor: Option<(i64, f64)>,
    /// The course up to the last change, for rows that were due before it.
    before: Option<Box<(i64, Course)>>,
}

#[allow(clippy::cast_precision_loss, reason = "microseconds of decades fit an f64")]
fn float(us: i64) -> f64 {
    us as f64
}

#[allow(clippy::cast_possible_truncation, reason = "a cast of an f64 saturates")]
fn whole(us: f64) -> i64 {
    us.round() as i64
}

impl Course {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, paused: false, anchor: None, before: None }
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(crate) fn is_anchored(&self) -> bool {
        self.anchor.is_some()
    }

    /// At `at_us` the schedule stands at `position_us`, or where `next` does: of rates, before a pause that
    /// they have there.
    #[allow(clippy::cast_precision_loss, reason = "row numbers below 2^53")]
    pub(crate) fn anchor(&mut self, at_us: i64, position_us: Option<i64>, next: Upcoming) {
        let position = match (&self.kind, position_us) {
            (Kind::Speed(_), Some(us)) => float(us),
            (Kind::Rates { plan, first }, _) => plan.through_us(next.number as f64 - first),
            _ => self.position_of(next),
        };
        self.anchor = Some((at_us, position));
    }

    /// Where the row stands on this course.
    #[allow(clippy::cast_precision_loss, reason = "row numbers below 2^53")]
    fn position_of(&self, row: Upcoming) -> f64 {
        match &self.kind {
            Kind::FlatOut => 0.0,
            Kind::Speed(_) => float(row.schedule_us),
            Kind::Rates { plan, first } => plan.at_us(row.number as f64 - first),
        }
    }

    fn speed(&self) -> f64 {
        if let Kind::Speed(speed) = self.kind { speed } else { 1.0 }
    }

    /// Where the course is at a time.
    pub(crate) fn position_at(&self, at_us: i64) -> f64 {
        let Some((from_us, position)) = self.anchor else { return 0.0 };
        if self.paused { position } else { position + float(at_us.saturating_sub(from_us)) * self.speed() }
    }

    /// When the row is due; None while the course is paused. Flat out it is due at any time.
    pub(crate) fn due_us(&mut self, row: Upcoming) -> Option<i64> {
        if let Some((changed_us, before)) = self.before.as_deref_mut() {
            match before.due_us(row) {
                Some(due_us) if due_us < *changed_us => return Some(due_us),
                _ => self.before = None,
            }
        }
        let (at_us, position) = self.anchor?;
        match self.kind {
            _ if self.paused => None,
            Kind::FlatOut => Some(i64::MIN),
            _ => Some(at_us.saturating_add(whole((self.position_of(row) - position) / self.speed()))),
        }
    }

    /// Events a second that the course asks for at a time; None where it names none.
    pub(crate) fn rate_at(&self, at_us: i64) -> Option<f64> {
        match &self.kind {
            Kind::Rates { plan, .. } => Some(plan.rate_at(self.position_at(at_us))),
            _ => None,
        }
    }

    /// From an instant on, another kind, another pause or both; `next` is the next row. Of the same kind
    /// the course goes on from where it was at that instant, however late that was heard; of another it
    /// begins with that row, and so not before it was heard.
    pub(crate) fn change(&mut self, when: When, kind: Option<Kind>, paused: bool, next: Upcoming) {
        // Nothing holds from before what was said before it.
        let at_us = self.anchor.map_or(when.from_us, |(last_us, _)| when.from_us.max(last_us));
        let position = self.position_at(at_us);
        let anchored = self.anchor.is_some();
        let overdue_us = self.due_us(next).filter(|due_us| (at_us - OVERDUE_US..at_us).contains(due_us));
        let before = overdue_us.map(|_| Box::new((at_us, self.clone())));
        self.paused = paused;
        let mut anchor = (at_us, position);
        self.before = before;
        match (&mut self.kind, kind) {
            (_, None) => {}
            (Kind::Speed(speed), Some(Kind::Speed(other))) => *speed = other,
            (Kind::Rates { plan, first }, Some(Kind::Rates { plan: other, .. })) if anchored => {
                // The fraction of a row that is through already stays through.
                *first += plan.rows_at(position);
                *plan = other;
                anchor.1 = 0.0;
            }
            (old, Some(new)) => {
                // It begins with a row, and so when that row is due.
                *old = new;
                anchor = (overdue_us.unwrap_or(at_us.max(when.heard_us)), self.position_of(next));
                self.before = None;
            }
        }
        self.anchor = anchored.then_some(anchor);
    }

    /// What is behind by so much stays behind.
    pub(crate) fn slide(&mut self, late_us: i64) {
        if let Some((at_us, _)) = &mut self.anchor {
            *at_us = at_us.saturating_add(late_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(number: u64) -> Upcoming {
        // One row a second of the schedule.
        Upcoming { schedule_us: 1_000_000 * i64::try_from(number).unwrap(), number }
    }

    fn rate(per_second: f64, first: f64) -> Kind {
        Kind::Rates { plan: Rates::constant(per_second), first }
    }

    fn course(kind: Kind) -> Course {
        let mut course = Course::new(kind);
        course.anchor(0, None, row(0));
        course
    }

    #[test]
    fn changes_are_obeyed_at_their_instant_and_nothing_jumps() {
        // At 2x rows are half a second apart.
        let mut c = course(Kind::Speed(2.0));
        assert_eq!(c.due_us(row(3)), Some(1_500_000));
        // A quarter of the way from row 2 to row 3 it is slowed to 1x: three quarters of a second are left.
        c.change(When::at(1_125_000), Some(Kind::Speed(1.0)), false, row(3));
        assert_eq!(c.due_us(row(3)), Some(1_875_000));
        c.change(When::at(1_500_000), None, true, row(3));
        assert_eq!(c.due_us(row(3)), None);
        assert!((c.position_at(900_000_000) - 2_625_000.0).abs() < 1e-6);
        // Another speed while paused holds from the resume on.
        c.change(When::at(2_000_000), Some(Kind::Speed(0.5)), true, row(3));
        c.change(When::at(10_000_000), None, false, row(3));
        assert_eq!(c.due_us(row(3)), Some(10_750_000));
        // To a rate: the next row at once, then evenly.
        c.change(When::at(10_500_000), Some(rate(4.0, 3.0)), false, row(3));
        assert_eq!((c.due_us(row(3)), c.due_us(row(4))), (Some(10_500_000), Some(10_750_000)));
        // Half of the way to row 5, which comes half as fast from there.
        c.change(When::at(10_875_000), Some(rate(2.0, 0.0)), false, row(5));
        assert_eq!((c.due_us(row(5)), c.due_us(row(6))), (Some(11_125_000), Some(11_625_000)));
        // And back to event time: the next row at once.
        c.change(When::at(11_200_000), Some(Kind::Speed(10.0)), false, row(6));
        assert_eq!((c.due_us(row(6)), c.due_us(row(7))), (Some(11_200_000), Some(11_300_000)));
        c.slide(50_000);
        assert_eq!(c.due_us(row(7)), Some(11_350_000));
        c.change(When::at(12_000_000), Some(Kind::FlatOut), false, row(9));
        assert_eq!(c.due_us(row(9)), Some(i64::MIN));
    }

    /// A day at 10 rows a second, asked about one row at a time by a clock that wakes late each time.
    #[test]
    fn a_day_has_no_drift() {
        for (kind, rows, last_us) in [
            (Kind::Speed(1.0), 86_400, 86_399_000_000),
            (Kind::Speed(3.0), 3 * 86_400, 86_399_666_667),
            (rate(10.0, 0.0), 864_000, 86_399_900_000),
        ] {
            let mut c = course(kind.clone());
            let mut clock_us = 0;
            let mut due = 0;
            for number in 0..rows {
                due = c.due_us(row(number)).unwrap();
                clock_us = clock_us.max(due) + 37;
                assert!(clock_us - due <= 37, "what was late stays late");
            }
            assert_eq!(due, last_us, "{kind:?}");
        }
    }

    /// The replay may wake late: what was due before a change is due as it was, a pause included.
    #[test]
    fn what_was_due_before_a_change_stays_due() {
        let mut c = course(Kind::Speed(1.0));
        // Rows 3 and 4 are overdue when a pause is obeyed that holds from 4.1 s on.
        c.change(When::at(4_100_000), None, true, row(4));
        assert_eq!((c.due_us(row(4)), c.due_us(row(5))), (Some(4_000_000), None));
        c.change(When::at(10_000_000), None, false, row(5));
        assert_eq!(c.due_us(row(5)), Some(10_900_000));
        // Far behind it is obeyed at once.
        c.change(When::at(20_000_000), None, true, row(5));
        assert_eq!(c.due_us(row(5)), None);
        // To another kind: from the row that is overdue on.
        let mut c = course(rate(10.0, 0.0));
        c.change(When::at(1_050_000), Some(rate(100.0, 0.0)), false, row(9));
        assert_eq!((c.due_us(row(9)), c.due_us(row(10))), (Some(900_000), Some(1_000_000)));
        assert_eq!((c.due_us(row(11)), c.due_us(row(12))), (Some(1_055_000), Some(1_065_000)));
        c.change(When::at(1_100_000), Some(Kind::Speed(10.0)), false, row(13));
        assert_eq!((c.due_us(row(13)), c.due_us(row(14))), (Some(1_075_000), Some(1_175_000)));
    }

    /// Of the same kind it does not matter how late a change is heard: shards stay together.
    #[test]
    fn heard_late_it_holds_from_its_instant() {
        for (kind, other, paused) in [
            (Kind::Speed(2.0), Some(Kind::Speed(0.5)), false),
            (Kind::Speed(2.0), None, true),
            (rate(10.0, 0.0), Some(rate(35.0, 0.0)), false),
            (rate(10.0, 0.0), Some(rate(3.0, 0.0)), false),
            (rate(10.0, 0.0), None, true),
        ] {
            let next_at = |c: &mut Course, us: i64| (0..).map(row).find(|row| c.due_us(*row) > Some(us)).unwrap();
            let (mut in_time, mut late) = (course(kind.clone()), course(kind.clone()));
            let next = next_at(&mut in_time, 4_130_000);
            in_time.change(When::at(4_130_000), other.clone(), paused, next);
            let next = next_at(&mut late, 4_930_000);
            late.change(When { from_us: 4_130_000, heard_us: 4_930_000 }, other, paused, next);
            if paused {
                in_time.change(When::at(7_000_000), None, false, next);
                late.change(When::at(7_000_000), None, false, next);
            }
            for number in next.number..next.number + 50 {
                assert_eq!(in_time.due_us(row(number)), late.due_us(row(number)), "{kind:?}, row {number}");
            }
        }
        // Another kind begins with the next row, which is not before.
        let mut c = course(rate(10.0, 0.0));
        c.change(When { from_us: 1_050_000, heard_us: 1_550_000 }, Some(Kind::Speed(1.0)), false, row(16));
        assert_eq!((c.due_us(row(16)), c.due_us(row(17))), (Some(1_550_000), Some(2_550_000)));
    }

    /// Wherever a plan's rows begin, a pause before them is waited for: at its start, after a kill in it,
    /// in a later pass.
    #[test]
    fn a_pause_of_a_plan_is_waited_for() {
        let plan = Rates::parse_steps("0/s for 5s\n10/s for 2s\n0/s for 3s\n10/s").unwrap();
        for (first, number, due, next_due) in [
            (0.0, 0, 5_000_000, 5_100_000),
            (0.0, 19, 0, 3_100_000),
            (0.0, 20, 3_000_000, 3_100_000),
            (-20.0, 0, 3_000_000, 3_100_000),
            (0.0, 25, 0, 100_000),
        ] {
            let mut c = Course::new(Kind::Rates { plan: plan.clone(), first });
            c.anchor(0, None, row(number));
            assert_eq!((c.due_us(row(number)), c.due_us(row(number + 1))), (Some(due), Some(next_due)), "row {number}");
        }
    }

    /// What is set before the first row holds from it on.
    #[test]
    fn changed_before_it_begins() {
        let mut c = Course::new(Kind::Speed(1.0));
        c.change(When::at(5), Some(rate(10.0, 7.0)), true, row(7));
        assert_eq!((c.due_us(row(7)), c.is_anchored()), (None, false));
        c.anchor(100, None, row(7));
        c.change(When::at(1_000_000), None, false, row(7));
        assert_eq!((c.due_us(row(7)), c.due_us(row(8))), (Some(1_000_000), Some(1_100_000)));
        // A resumed replay stands where it stopped, not at its next row.
        let mut c = Course::new(Kind::Speed(2.0));
        c.anchor(0, Some(1_000_000), row(3));
        assert_eq!(c.due_us(row(3)), Some(1_000_000));
    }

    proptest! {
        /// However it is steered, the position never jumps at a change of speed or a pause, and dues keep the rows' order.
        #[test]
        fn steered_at_random(changes in proptest::collection::vec((1_i64..10_000_000, 1_u32..5000, any::<bool>()), 1..20)) {
            let mut c = course(Kind::Speed(1.0));
            let mut at = 0;
            for (step, speed, paused) in changes {
                at += step;
                let before = c.position_at(at);
                c.change(When::at(at), Some(Kind::Speed(f64::from(speed) / 10.0)), paused, row(1 << 40));
                prop_assert!((c.position_at(at) - before).abs() < 1e-3);
                prop_assert!(paused || c.due_us(row(1)) <= c.due_us(row(2)));
                prop_assert!(c.position_at(at + 1000) >= before);
            }
        }
    }
}
