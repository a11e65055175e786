//! A figure beside the real one: its distance, what is allowed and by what rule, and when a report holds.
//! A count over 10,000 may differ by 5%; a smaller one by three standard deviations, and so may what fewer
//! rows than the month's leave of a count. Where few are expected chance is not even about them, and its
//! own bounds are taken. Pure.
use std::fmt;

use super::facts::to_f64;
use super::tally::quantile;

const MANY: f64 = 10_000.0;
pub(super) const WITHIN: f64 = 0.05;
pub(super) const DEVIATIONS: f64 = 3.0;
/// Of so many a count's deviation is as good as normal.
const FEW: f64 = 100.0;
/// How few events say how they come together, all of their kind beside them: as so many more would.
pub(super) const LEAN: f64 = 20.0;
/// Of all draws from a normal distribution, those further than three standard deviations out.
const BEYOND: f64 = 0.0027;
/// Figures go astray together: events and views of a category, counts and rates of a brand.
const TOGETHER: f64 = 2.0;

/// What decides how far a figure may be from the real one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// 5%. In fewer rows than the month's, chance may add so much (a share as well).
    Share { chance: f64 },
    /// Three standard deviations. What is counted comes several in a session, not each for itself:
    /// the variance is so many times that of independent events. Of few, what is as rare on either side.
    Chance { variance: f64, few: bool },
    /// What lies about a quantile: those whose share is three standard deviations of a binomial count away,
    /// of things that come several in a session.
    Quantile { variance: f64 },
    /// Nothing: another figure contradicts it, and is held.
    NotHeld(&'static str),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share { .. } => write!(f, "5%"),
            Self::Chance { variance, few } => {
                write!(f, "{}{}", if *few { "Poisson" } else { "3 sd" }, Together(*variance))
            }
            Self::Quantile { variance } => write!(f, "3 sd of its share{}", Together(*variance)),
            Self::NotHeld(why) => write!(f, "not held: {why}"),
        }
    }
}

/// How many times a variance is that of independent events.
struct Together(f64);

impl fmt::Display for Together {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1.05 { Ok(()) } else { write!(f, ", variance x{:.1}", self.0) }
    }
}

/// One figure.
#[derive(Clone, Debug)]
pub struct Figure {
    pub group: &'static str,
    pub name: String,
    pub made: f64,
    /// In as many rows as were made.
    pub real: f64,
    /// How far below and above it may be.
    pub allowed: (f64, f64),
    pub rule: Rule,
}

impl Figure {
    pub fn is_within(&self) -> bool {
        (self.made - self.real).abs() <= self.allowed()
    }

    /// On the side where it is.
    fn allowed(&self) -> f64 {
        if self.made < self.real { self.allowed.0 } else { self.allowed.1 }
    }

    /// Outside, and not by chance alone.
    fn is_far_off(&self) -> bool {
        let Rule::Share { chance } = self.rule else { return false };
        (self.made - self.real).abs() > self.allowed() + chance * self.real
    }

    fn is_held(&self) -> bool {
        !matches!(self.rule, Rule::NotHeld(_))
    }
}

/// All figures of a month.
pub struct Report {
    pub rows: u64,
    pub figures: Vec<Figure>,
}

impl Report {
    fn held(&self) -> impl Iterator<Item = &Figure> {
        self.figures.iter().filter(|figure| figure.is_held())
    }

    pub fn outside(&self) -> impl Iterator<Item = &Figure> {
        self.held().filter(|figure| !figure.is_within())
    }

    /// Of so many figures within three standard deviations each, no more than this are outside by
    /// chance, itself with three standard deviations.
    fn outside_by_chance(&self) -> f64 {
        let by_chance = |figure: &&Figure| !matches!(figure.rule, Rule::Share { .. });
        let judged = to_f64(self.held().filter(by_chance).count() as u64);
        (judged * BEYOND + DEVIATIONS * (judged * BEYOND * TOGETHER).sqrt()).floor()
    }

    /// None is further off than 5% where that is what is allowed, and no more are outside than chance
    /// would have it.
    pub fn holds(&self) -> bool {
        let outside = self.outside().count() as u64;
        to_f64(outside) <= self.outside_by_chance() && !self.outside().any(Figure::is_far_off)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut group = "";
        for figure in &self.figures {
            if figure.group != group {
                group = figure.group;
                writeln!(f, "\n{group:<56} {:>12} {:>12} {:>9} {:>9}  rule", "made", "real", "distance", "allowed")?;
            }
            let percent = |n: f64| if figure.real == 0.0 { 0.0 } else { n / figure.real * 100.0 };
            let whole = figure.real.fract() == 0.0 && figure.made.fract() == 0.0;
            let digits = if figure.real.abs() < 1000.0 && !whole { 2 } else { 0 };
            let allowed = match figure.is_held() {
                true => format!("{:.2}%", percent(figure.allowed())),
                false => "-".to_owned(),
            };
            let verdict = if figure.is_within() || !figure.is_held() { "" } else { "  outside" };
            writeln!(
                f,
                "  {:<54} {:>12.digits$} {:>12.digits$} {:>8.2}% {allowed:>9}  {}{verdict}",
                figure.name,
                figure.made,
                figure.real,
                percent(figure.made - figure.real),
                figure.rule,
            )?;
        }
        let (held, outside) = (self.held().count(), self.outside().count());
        writeln!(
            f,
            "\nvariance xN: a session's events are counted together, so a count varies as N times fewer would; N is the sum of \
             the squares of a session's events over their sum, in these rows and as {LEAN} more that are as all of their kind. \
             Below {FEW} an expected count is too few for the normal rule of three standard deviations (sd): there the \
             bounds are those of a Poisson count that chance passes as seldom, {:.3}% on either side. Of figures under \
             all these, chance may put {} outside.",
            BEYOND * 50.0,
            self.outside_by_chance()
        )?;
        writeln!(
            f,
            "{} rows: {} of {held} figures are within; {} are not held",
            self.rows,
            held - outside,
            self.figures.len() - held
        )
    }
}

pub(super) struct Figures {
    pub(super) figures: Vec<Figure>,
    /// Rows made of the month's.
    pub(super) scale: f64,
    /// As many as the month's: what does not grow with the rows can be compared.
    pub(super) whole: bool,
}

impl Figures {
    /// By what rule a count is judged, and how far below and above it may be, as a share of it.
    fn rule(&self, count: f64, variance: f64) -> (Rule, (f64, f64)) {
        let variance = variance.max(1.0);
        let chance = DEVIATIONS * (variance / count.max(1.0)).sqrt();
        let expected = count.max(1.0) / variance;
        match self.by_share(count, chance) {
            Some(rule) => (rule, (WITHIN, WITHIN)),
            None if expected < FEW => {
                let (least, most) = poisson(expected);
                let share = |n: f64| (n - expected).abs() / expected;
                (Rule::Chance { variance, few: true }, (share(least), share(most).max(chance)))
            }
            None => (Rule::Chance { variance, few: false }, (chance, chance)),
        }
    }

    /// The rule for a figure of that many things, which chance may change by that share. In fewer rows than
    /// the month's 5% may be less than that.
    pub(super) fn by_share(&self, count: f64, chance: f64) -> Option<Rule> {
        let chance_adds = if self.whole { 0.0 } else { chance };
        (count > MANY && chance_adds <= WITHIN).then_some(Rule::Share { chance: chance_adds })
    }

    /// A count; `variance` is that of it over that of as many independent events.
    pub(super) fn count(&mut self, group: &'static str, name: impl Into<String>, made: u64, real: f64, variance: f64) {
        let real = real * self.scale;
        let (rule, share) = self.rule(real, variance);
        let allowed = (share.0 * real.max(1.0), share.1 * real.max(1.0));
        self.figures.push(Figure { group, name: name.into(), made: to_f64(made), real, allowed, rule });
    }

    /// A share in percent, of a part in a whole that were made.
    pub(super) fn rate(
        &mut self,
        group: &'static str,
        name: impl Into<String>,
        made: (u64, u64),
        real: f64,
        variance: f64,
    ) {
        let (part, whole) = (real / 100.0 * to_f64(made.1), to_f64(made.1));
        // Of so few a share says nothing.
        if part < 1.0 {
            return;
        }
        let (rule, share) = self.rule(part, variance);
        let made = to_f64(made.0) / whole * 100.0;
        let allowed = (share.0 * real, share.1 * real);
        self.figures.push(Figure { group, name: name.into(), made, real, allowed, rule });
    }

    /// A quantile of a histogram; `variance` as in [`Figures::count`].
    pub(super) fn quantile(
        &mut self,
        group: &'static str,
        name: impl Into<String>,
        counts: &[u64],
        (share, real): (f64, f64),
        variance: f64,
    ) {
        let (n, variance) = (to_f64(counts.iter().sum()), variance.max(1.0));
        let away = DEVIATIONS * (variance * share * (1.0 - share) / n.max(1.0)).sqrt();
        let at = |share: f64| quantile(counts, share.clamp(0.0, 1.0));
        let made = at(share);
        // Had it been so much lower, it might have come out as what lies so much higher.
        let chance = (at(share + away) - made, made - at(share - away));
        let (rule, allowed) = match self.by_share(n, chance.0.max(chance.1) / real) {
            Some(rule) => (rule, (WITHIN * real, WITHIN * real)),
            None => (Rule::Quantile { variance }, chance),
        };
        self.figures.push(Figure { group, name: name.into(), made, real, allowed, rule });
    }

    /// A mean or a quantile of `n` things, which spread about as far as they are great.
    pub(super) fn value(
        &mut self,
        group: &'static str,
        name: impl Into<String>,
        made: f64,
        real: f64,
        n: u64,
        variance: f64,
    ) {
        let (rule, share) = self.rule(to_f64(n), variance);
        let allowed = (share.0 * real, share.1 * real);
        self.figures.push(Figure { group, name: name.into(), made, real, allowed, rule });
    }
}

/// The least and the most that are not rarer than what is three standard deviations out on either side.
fn poisson(expected: f64) -> (f64, f64) {
    let (mut n, mut chance, mut so_far, mut least) = (0.0, (-expected).exp(), 0.0, None);
    loop {
        so_far += chance;
        if so_far > BEYOND / 2.0 && least.is_none() {
            least = Some(n);
        }
        if 1.0 - so_far <= BEYOND / 2.0 {
            return (least.unwrap_or(n), n);
        }
        n += 1.0;
        chance *= expected / n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(whole: bool) -> Figures {
        Figures { figures: Vec::new(), scale: 1.0, whole }
    }

    #[test]
    fn what_is_allowed() {
        let chance = |variance| Rule::Chance { variance, few: false };
        let few = |variance| Rule::Chance { variance, few: true };
        let share = |chance| Rule::Share { chance };
        for (whole, made, real, variance, rule, within) in [
            (true, 10_600, 10_001.0, 1.0, share(0.0), false),
            (true, 10_400, 10_001.0, 1.0, share(0.0), true),
            // However it is spread, a count of the whole month's above 10,000 may differ by 5%.
            (true, 10_600, 10_001.0, 50.0, share(0.0), false),
            (false, 10_600, 10_001.0, 50.0, chance(50.0), true),
            (false, 10_600, 10_000.5, 2.0, share(3.0 * (2.0_f64 / 10_000.5).sqrt()), false),
            (true, 129, 100.0, 1.0, chance(1.0), true),
            (true, 131, 100.0, 1.0, chance(1.0), false),
            (true, 140, 100.0, 4.0, few(4.0), true),
            (true, 300, 400.0, 4.0, chance(4.0), true),
            // Of few, by a Poisson count's own bounds, which are wider above than below.
            // Of less than one as of one.
            (true, 4, 0.0, 0.5, few(1.0), true),
            (true, 5, 0.0, 0.5, few(1.0), false),
            (true, 5, 1.0, 1.0, few(1.0), true),
            (true, 6, 1.0, 1.0, few(1.0), false),
            (true, 2, 9.0, 1.0, few(1.0), true),
            (true, 1, 9.0, 1.0, few(1.0), false),
            (true, 0, 9.0, 3.0, few(3.0), true),
            (true, 28, 50.0, 1.0, few(1.0), false),
            (true, 72, 50.0, 1.0, few(1.0), true),
        ] {
            let mut figures = figures(whole);
            figures.count("group", "name", made, real, variance);
            let figure = &figures.figures[0];
            assert_eq!((figure.rule, figure.is_within()), (rule, within), "{made} for {real}, variance {variance}");
        }
    }

    #[test]
    fn a_report_holds_with_what_chance_puts_outside_and_no_more() {
        let figure =
            |made, rule| Figure { group: "group", name: "name".into(), made, real: 1.0, allowed: (0.5, 0.5), rule };
        let chance = Rule::Chance { variance: 1.0, few: false };
        let holds = |off_by_share: usize, off_by_share_and_chance: usize, off_by_chance: usize, not_held: usize| {
            let mut figures = vec![figure(1.0, chance); 1_000];
            figures.extend(vec![figure(9.0, Rule::Share { chance: 0.04 }); off_by_share]);
            // 4% beyond what is allowed.
            figures.extend(vec![figure(1.54, Rule::Share { chance: 0.05 }); off_by_share_and_chance]);
            figures.extend(vec![figure(9.0, chance); off_by_chance]);
            figures.extend(vec![figure(9.0, Rule::NotHeld("why")); not_held]);
            Report { rows: 0, figures }.holds()
        };
        assert!(holds(0, 0, 0, 0) && holds(0, 0, 9, 0) && holds(0, 4, 5, 0) && holds(0, 0, 0, 50));
        assert!(!holds(1, 0, 0, 0) && !holds(0, 0, 10, 0) && !holds(0, 5, 5, 0));
    }
}
