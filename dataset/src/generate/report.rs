//! What was made beside what was real: every figure that is known, with its distance, what is allowed
//! and by what rule. A count over 10,000 may differ by 5%; a smaller one by three standard deviations,
//! and so may what fewer rows than the month's leave of a count. Where few are expected chance is not
//! even about them, and its own bounds are taken.
use std::fmt;

use super::catalogue::Product;
use super::facts::{
    BOUGHT_CARTS, BOUGHT_SESSIONS, BRAND_FUNNELS, CARTED_SESSIONS, COPIED_CARTS, DEPARTMENT_FUNNELS, FUNNEL, Facts,
    Funnel, LENGTHS, MEDIAN_PRICES, NOVEMBER, REPEATED_PURCHASES, TOP_PRODUCT, UNCARTED_PURCHASES, UNSEEN_PURCHASES,
    to_f64,
};
use super::fit::{PHONES, department};
use super::model::Model;
use super::shape::shape;
use super::tally::{Events, Tally, quantile};

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

/// A month's model, and what was made of it.
#[derive(Clone, Copy)]
pub(super) struct Made<'a> {
    pub(super) model: &'a Model,
    pub(super) tally: &'a Tally,
}

/// `other` is the month of October and November that is not reported on: some figures are known of
/// the two together only.
pub(super) fn report(made: Made<'_>, other: Option<Made<'_>>, facts: &Facts) -> Report {
    let Made { model, tally } = made;
    let mut figures = Figures {
        figures: Vec::new(),
        scale: to_f64(tally.rows) / to_f64(model.totals.rows),
        whole: tally.rows == model.totals.rows,
    };
    if let Some(other) = other {
        totals(&mut figures, model, tally);
        prices(&mut figures, model, tally, facts);
        funnels(&mut figures, [made, other]);
    }
    days(&mut figures, model, tally, facts);
    if model.month.is(2019, 10) {
        by_kind(&mut figures, model, tally, facts);
    }
    if model.month.is(2019, 11) {
        hours(&mut figures, tally, facts);
        sessions(&mut figures, tally);
        by_category(&mut figures, model, tally, facts);
        by_brand(&mut figures, model, tally, facts);
        shape(&mut figures, model, tally, facts);
    }
    Report { rows: tally.rows, figures: figures.figures }
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
    fn count(&mut self, group: &'static str, name: impl Into<String>, made: u64, real: f64, variance: f64) {
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
    fn quantile(
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
    fn value(&mut self, group: &'static str, name: impl Into<String>, made: f64, real: f64, n: u64, variance: f64) {
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

fn totals(figures: &mut Figures, model: &Model, tally: &Tally) {
    const GROUP: &str = "totals";
    let t = &model.totals;
    let products = &model.catalogue.products;
    let of_kind = |kind: usize| tally.products.iter().map(|events| events[kind]).sum::<u64>();
    let of = |is: &dyn Fn(&Product) -> bool| -> u64 {
        products.iter().zip(&tally.products).filter(|(p, _)| is(p)).map(|(_, e)| e.iter().sum::<u64>()).sum()
    };
    let variance = |squares: &[f64], of: u16, events: u64| tally.clustering(squares, usize::from(of), events);
    figures.count(GROUP, "rows", tally.rows, to_f64(t.rows), 1.0);
    for (kind, name, real) in [(0, "views", t.views), (1, "carts", t.carts), (2, "purchases", t.purchases)] {
        figures.count(GROUP, name, of_kind(kind), to_f64(real), tally.variance(kind));
    }
    figures.count(GROUP, "sessions", tally.sessions, to_f64(t.sessions), tally.length_variance());
    figures.count(GROUP, "users", tally.users(), to_f64(t.users), 1.0);
    let uncoded = of(&|p| p.category == 0);
    let of_none = variance(&tally.category_squares, 0, uncoded);
    figures.count(GROUP, "rows without category_code", uncoded, t.empty_code * to_f64(t.rows), of_none);
    let unbranded = of(&|p| p.brand == 0);
    let of_none = variance(&tally.brand_squares, 0, unbranded);
    figures.count(GROUP, "rows without brand", unbranded, t.empty_brand * to_f64(t.rows), of_none);
    figures.count(GROUP, "rows without user_session", tally.without_session, to_f64(t.empty_sessions), 1.0);
    // They are looked at as other products without a brand are.
    figures.count(GROUP, "rows with a price of 0", of(&|p| p.cents == 0), to_f64(t.zero_prices), of_none);
    let of_copies = if tally.copies == 0 { 1.0 } else { tally.copy_squares / to_f64(tally.copies) };
    figures.count(GROUP, "exact copies", tally.copies, to_f64(t.copies), of_copies);
    let of_carts = (tally.copied_carts, tally.copies);
    figures.rate(GROUP, "% of exact copies that are carts", of_carts, COPIED_CARTS * 100.0, of_copies);
    figures.count(
        GROUP,
        "sessions of several users",
        tally.shared_sessions,
        super::facts::SHARED_SESSIONS * to_f64(t.sessions),
        1.0,
    );
    if figures.whole {
        let sold = || products.iter().zip(&tally.products).filter(|(_, events)| events.iter().any(|n| *n > 0));
        let distinct = |of: fn(&Product) -> u16| sold().map(|(p, _)| of(p)).collect::<std::collections::HashSet<_>>();
        figures.count(GROUP, "products", sold().count() as u64, to_f64(t.products), 1.0);
        figures.count(GROUP, "brands", (distinct(|p| p.brand).len() - 1) as u64, to_f64(t.brands), 1.0);
        figures.count(GROUP, "category ids", distinct(|p| p.category_id).len() as u64, to_f64(t.category_ids), 1.0);
    }
}

/// What is known of October and November together: the funnel over session × product.
fn funnels(figures: &mut Figures, months: [Made<'_>; 2]) {
    const CARTED: &str = "% carted of viewed, session x product, Oct + Nov";
    const BOUGHT: &str = "% bought of carted, session x product, Oct + Nov";
    let pairs = |is: &dyn Fn(&Model, &Product) -> bool| -> Events {
        let mut sum = [0; 3];
        for Made { model, tally } in months {
            let all = model.catalogue.products.iter().zip(&tally.pairs);
            for (_, pairs) in all.filter(|(product, _)| is(model, product)) {
                sum.iter_mut().zip(pairs).for_each(|(sum, n)| *sum += n);
            }
        }
        sum
    };
    let all = [(FUNNEL, pairs(&|_, _| true))];
    let of_department = |funnel: Funnel| (funnel, pairs(&|model, p| department(model.code(p)) == funnel.name));
    let of_brand =
        |funnel: Funnel| (funnel, pairs(&|model, p| model.catalogue.brands[usize::from(p.brand)] == funnel.name));
    let funnels = all.into_iter().chain(DEPARTMENT_FUNNELS.map(of_department)).chain(BRAND_FUNNELS.map(of_brand));
    let funnels: Vec<(Funnel, Events)> = funnels.collect();
    for (funnel, [viewed, carted, _]) in &funnels {
        figures.rate(CARTED, funnel.name, (*carted, *viewed), funnel.carted, 1.0);
    }
    for (funnel, [_, carted, bought]) in &funnels {
        figures.rate(BOUGHT, funnel.name, (*bought, *carted), funnel.bought, 1.0);
    }
    const PURCHASES: &str = "% of purchases, Oct + Nov";
    let sum = |of: &dyn Fn(&Tally) -> u64| months.iter().map(|made| of(made.tally)).sum::<u64>();
    let (purchases, variance) = (sum(&Tally::purchases), months[0].tally.variance(2));
    figures.rate(PURCHASES, "without a cart", (sum(&|t| t.uncarted), purchases), UNCARTED_PURCHASES, variance);
    let again = purchases - sum(&|t| t.bought_pairs);
    figures.rate(PURCHASES, "again of their session's product", (again, purchases), REPEATED_PURCHASES, variance);
}

/// October by sub-category.
fn by_kind(figures: &mut Figures, model: &Model, tally: &Tally, facts: &Facts) {
    let sums: Vec<Events> =
        (0..facts.october.len()).map(|i| sum(model, tally, |p| usize::from(p.kind) == i && p.cents > 0)).collect();
    for (i, group) in
        ["views by sub-category", "carts by sub-category", "purchases by sub-category"].into_iter().enumerate()
    {
        for (of, (kind, made)) in facts.october.iter().zip(&sums).enumerate().take(tally.kind_squares.len()) {
            let real = [kind.views, kind.carts, kind.purchases][i];
            let events = made.iter().sum();
            let variance = if i == 0 { tally.clustering(&tally.kind_squares, of, events) } else { tally.variance(i) };
            let name = if kind.name.is_empty() { "(none)" } else { kind.name };
            figures.count(group, name, made[i], real, variance);
        }
    }
}

fn days(figures: &mut Figures, model: &Model, tally: &Tally, facts: &Facts) {
    // Of other months than those two the days are all that is known.
    let all: u64 = model.month.days().filter_map(|day| facts.events_by_day.get(&day)).sum();
    let scale = std::mem::replace(&mut figures.scale, to_f64(tally.rows) / to_f64(all.max(1)));
    for (day, made) in model.month.days().zip(&tally.days) {
        let name = || records::EventTime::from_days(day).day_text();
        if let Some(real) = facts.events_by_day.get(&day) {
            figures.count("events by day", name(), made.iter().sum(), to_f64(*real), tally.variance(0));
        }
    }
    figures.scale = scale;
    let known = model.month.days().any(|day| facts.purchases_by_day.contains_key(&day));
    for (day, made) in model.month.days().zip(&tally.days).filter(|_| known) {
        let real = facts.purchases_by_day.get(&day).copied().unwrap_or_default();
        let name = records::EventTime::from_days(day).day_text();
        figures.count("purchases by day", name, made[2], to_f64(real), tally.variance(2));
    }
}

fn hours(figures: &mut Figures, tally: &Tally, facts: &Facts) {
    for (hour, (real, made)) in facts.hours.iter().zip(tally.starts).enumerate() {
        figures.count("sessions begun by hour (UTC)", format!("{hour:02}"), made, real.starts, 1.0);
    }
    // The share is of the hour's events, with two digits: all together they are brought to the month's.
    let at_share = |(real, made): (&super::facts::Hour, &Events)| to_f64(made.iter().sum()) * real.purchases / 100.0;
    let all: f64 = facts.hours.iter().zip(&tally.hours).map(at_share).sum();
    for (hour, (real, made)) in facts.hours.iter().zip(&tally.hours).enumerate() {
        let expected = at_share((real, made)) / all * to_f64(NOVEMBER.purchases);
        figures.count(
            "purchases by hour, at the real share",
            format!("{hour:02}"),
            made[2],
            expected,
            tally.variance(2),
        );
    }
}

fn sessions(figures: &mut Figures, tally: &Tally) {
    const GROUP: &str = "sessions by number of events";
    let all = to_f64(tally.sessions) / figures.scale;
    for (from, to, share) in LENGTHS {
        let to_index = usize::try_from(to).unwrap_or(usize::MAX).min(tally.lengths.len() - 1);
        let made = tally.lengths[from as usize..=to_index].iter().sum();
        let name = if to == u32::MAX { format!("{from} and more") } else { format!("{from} to {to}") };
        figures.count(GROUP, name, made, share * all, 1.0);
    }
    const SHAPE: &str = "sessions";
    let mean = to_f64(tally.rows) / to_f64(tally.sessions);
    figures.value(SHAPE, "events, mean", mean, 4.90, tally.sessions, tally.length_variance());
    for (share, real) in [(0.5, 2.0), (0.9, 11.0), (0.99, 36.0)] {
        figures.quantile(SHAPE, format!("events, p{:.0}", share * 100.0), &tally.lengths, (share, real), 1.0);
    }
    figures.quantile(SHAPE, "seconds, median", &tally.durations, (0.5, 42.0), 1.0);
    // A crawler's session has thousands, each as short as the next.
    let together = tally.variance(0);
    for (share, real) in [(0.5, 33.0), (0.9, 115.0), (0.99, 377.0)] {
        figures.quantile(SHAPE, format!("pause, p{:.0}", share * 100.0), &tally.pauses, (share, real), together);
    }
    // View to purchase is what the two steps give: who bought had viewed and carted.
    let [viewed, carted, bought] = tally.funnel;
    const FUNNEL: &str = "% by session";
    figures.rate(FUNNEL, "carted of viewed", (carted, viewed), CARTED_SESSIONS * 100.0, 1.0);
    figures.rate(FUNNEL, "bought of carted", (bought, carted), BOUGHT_CARTS * 100.0, 1.0);
    figures.rate(FUNNEL, "bought of viewed", (bought, viewed), BOUGHT_SESSIONS * 100.0, 1.0);
    let unseen = (tally.bought_unseen, tally.bought);
    figures.rate(FUNNEL, "not viewed of bought", unseen, UNSEEN_PURCHASES * 100.0, 1.0);
}

/// Sums over the products of one kind.
pub(super) fn sum(model: &Model, tally: &Tally, is: impl Fn(&Product) -> bool) -> Events {
    let mut sum = [0; 3];
    for (_, events) in model.catalogue.products.iter().zip(&tally.products).filter(|(p, _)| is(p)) {
        for (sum, n) in sum.iter_mut().zip(events) {
            *sum += n;
        }
    }
    sum
}

fn by_category(figures: &mut Figures, model: &Model, tally: &Tally, facts: &Facts) {
    let sums: Vec<Events> =
        (0..facts.categories.len()).map(|i| sum(model, tally, |p| usize::from(p.category) == i)).collect();
    let name = |code: &str| if code.is_empty() { "(none)".to_owned() } else { code.to_owned() };
    let clustering = |i: usize| tally.clustering(&tally.category_squares, i, sums[i].iter().sum());
    for (i, category) in facts.categories.iter().enumerate().take(tally.category_squares.len()) {
        let events = sums[i].iter().sum();
        figures.count("events by category", name(category.code), events, category.events, clustering(i));
    }
    for (i, category) in facts.categories.iter().enumerate().take(tally.category_squares.len()) {
        figures.count("views by category", name(category.code), sums[i][0], category.views, clustering(i));
    }
}

fn by_brand(figures: &mut Figures, model: &Model, tally: &Tally, facts: &Facts) {
    let index = |brand: &str| model.catalogue.brands.iter().position(|name| name == brand);
    let of = |brand: &str| index(brand).map(|i| (i, sum(model, tally, |p| usize::from(p.brand) == i)));
    for (brand, real) in &facts.brands {
        if let Some((i, made)) = of(brand) {
            let events = made.iter().sum();
            let variance = tally.clustering(&tally.brand_squares, i, events);
            figures.count("events by brand", *brand, events, *real, variance);
        }
    }
    for (brand, real) in &facts.bought_brands {
        if let Some((_, made)) = of(brand) {
            figures.count("purchases by brand", *brand, made[2], *real, tally.variance(2));
        }
    }
    let phones = facts.categories.iter().position(|c| c.code == PHONES).unwrap_or_default();
    for (purchases, group) in [(false, "views of smartphones by brand"), (true, "purchases of smartphones by brand")] {
        for (brand, real) in &facts.phones {
            let i = index(brand);
            let made = sum(model, tally, |p| Some(usize::from(p.brand)) == i && usize::from(p.category) == phones);
            let (made, real) = if purchases { (made[2], real.purchases) } else { (made[0], real.views) };
            let variance = i.map_or(1.0, |i| {
                let events = sum(model, tally, |p| usize::from(p.brand) == i).iter().sum();
                tally.clustering(&tally.brand_squares, i, events)
            });
            let name = if brand.is_empty() { "(none)" } else { brand };
            figures.count(group, name, made, real, if purchases { tally.variance(2) } else { variance });
        }
    }
    for (id, real) in &facts.bought_products {
        let made = sum(model, tally, |p| p.id == *id);
        figures.count("purchases by product", id.to_string(), made[2], *real, tally.variance(2));
    }
    let most = tally.products.iter().map(|events| events[0]).max().unwrap_or_default();
    figures.count(
        "views of the first product",
        "of all",
        most,
        TOP_PRODUCT * to_f64(model.totals.views),
        tally.product_variance(),
    );
}

fn prices(figures: &mut Figures, model: &Model, tally: &Tally, facts: &Facts) {
    let mut cents: Vec<(u32, u64, u16)> = model
        .catalogue
        .products
        .iter()
        .zip(&tally.products)
        .map(|(p, events)| (p.cents, events.iter().sum(), p.category))
        .collect();
    cents.sort_unstable();
    let n: f64 = cents.iter().map(|(_, n, _)| to_f64(*n)).sum();
    let power = |power: i32| -> f64 {
        cents.iter().map(|(cents, n, _)| to_f64(*n) * (f64::from(*cents) / 100.0).powi(power)).sum::<f64>() / n
    };
    let mean = power(1);
    let (rows, variance) = (tally.rows, tally.variance(0));
    let median = |of: &dyn Fn(u16) -> bool| {
        let mut left = cents.iter().filter(|(.., c)| of(*c)).map(|(_, n, _)| to_f64(*n)).sum::<f64>() / 2.0;
        for (cents, n, _) in cents.iter().filter(|(.., c)| of(*c)) {
            left -= to_f64(*n);
            if left <= 0.0 {
                return f64::from(*cents) / 100.0;
            }
        }
        0.0
    };
    figures.value("price", "mean", mean, model.totals.price_mean, rows, variance);
    figures.value("price", "median", median(&|_| true), model.totals.price_median, rows, variance);
    figures.value(
        "price",
        "standard deviation",
        (power(2) - mean * mean).sqrt(),
        model.totals.price_deviation,
        rows,
        variance,
    );
    if !model.month.is(2019, 11) {
        return;
    }
    for (code, real) in MEDIAN_PRICES {
        let Some(i) = facts.categories.iter().position(|c| c.code == code) else { continue };
        let name = if code.is_empty() { "(none)" } else { code };
        let rows: u64 = cents.iter().filter(|(.., c)| usize::from(*c) == i).map(|(_, n, _)| n).sum();
        let variance = tally.clustering(&tally.category_squares, i, rows);
        figures.value("median price by category", name, median(&|c| usize::from(c) == i), real, rows, variance);
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

    /// The tests of the command make a million rows of each month.
    #[test]
    fn a_few_rows_are_near_the_real_ones() {
        let generated = super::super::Generated::new("2019-Oct?rows=100k".parse().unwrap());
        let report = generated.report(&mut |_, _| true).unwrap();
        let groups = |name: &str| report.figures.iter().filter(|f| f.group.contains(name)).count();
        assert!(
            report.holds() && groups("views by sub-category") == 64 && groups("session x product") == 20,
            "{report}"
        );
    }
}
