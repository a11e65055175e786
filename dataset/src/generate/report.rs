//! What was made beside what was real: every figure that is known, with its distance and whether
//! that is within what is allowed. A count over 10,000 may differ by 5%; a smaller one, and what
//! fewer rows leave of it, by three standard deviations.
use std::fmt;

use super::catalogue::Product;
use super::facts::{
    BOUGHT_CARTS, CARTED_SESSIONS, Facts, LENGTHS, MEDIAN_PRICES, NOVEMBER, TOP_PRODUCT, UNSEEN_PURCHASES, to_f64,
};
use super::fit::PHONES;
use super::model::Model;
use super::shape::shape;
use super::tally::{Events, Tally, quantile};

const MANY: f64 = 10_000.0;
pub(super) const WITHIN: f64 = 0.05;
pub(super) const DEVIATIONS: f64 = 3.0;

/// One figure.
#[derive(Clone, Debug)]
pub struct Figure {
    pub group: &'static str,
    pub name: String,
    pub made: f64,
    /// In as many rows as were made.
    pub real: f64,
    /// How far apart they may be.
    pub allowed: f64,
}

impl Figure {
    pub fn is_within(&self) -> bool {
        (self.made - self.real).abs() <= self.allowed
    }
}

/// All figures of a month.
pub struct Report {
    pub rows: u64,
    pub figures: Vec<Figure>,
}

impl Report {
    pub fn outside(&self) -> impl Iterator<Item = &Figure> {
        self.figures.iter().filter(|figure| !figure.is_within())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut group = "";
        for figure in &self.figures {
            if figure.group != group {
                group = figure.group;
                writeln!(f, "\n{group:<44} {:>14} {:>14} {:>9} {:>9}", "made", "real", "distance", "allowed")?;
            }
            let percent = |n: f64| if figure.real == 0.0 { 0.0 } else { n / figure.real * 100.0 };
            let digits = if figure.real.abs() < 1000.0 && figure.real.fract() != 0.0 { 2 } else { 0 };
            let verdict = if figure.is_within() { "" } else { "  outside" };
            writeln!(
                f,
                "  {:<42} {:>14.digits$} {:>14.digits$} {:>8.2}% {:>8.2}%{verdict}",
                figure.name,
                figure.made,
                figure.real,
                percent(figure.made - figure.real),
                percent(figure.allowed),
            )?;
        }
        let outside = self.outside().count();
        writeln!(
            f,
            "\n{} rows: {} of {} figures are within",
            self.rows,
            self.figures.len() - outside,
            self.figures.len()
        )
    }
}

pub(super) fn report(model: &Model, tally: &Tally, facts: &Facts) -> Report {
    let november = model.month.is(2019, 11);
    let mut figures = Figures {
        figures: Vec::new(),
        scale: to_f64(tally.rows) / to_f64(model.totals.rows),
        whole: tally.rows == model.totals.rows,
    };
    let october = model.month.is(2019, 10);
    if october || november {
        totals(&mut figures, model, tally);
        prices(&mut figures, model, tally, facts);
    }
    days(&mut figures, model, tally, facts);
    if november {
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
    whole: bool,
}

impl Figures {
    /// A count; `clustering` is its variance over that of as many independent events.
    fn count(&mut self, group: &'static str, name: impl Into<String>, made: u64, real: f64, clustering: f64) {
        let real = real * self.scale;
        let deviation = (real.max(1.0) * clustering.max(1.0)).sqrt();
        let allowed = if real > MANY { WITHIN * real } else { DEVIATIONS * deviation };
        // Fewer rows than the month's: 5% is less than chance, then.
        let allowed = if self.whole { allowed } else { allowed.max(DEVIATIONS * deviation) };
        self.figures.push(Figure { group, name: name.into(), made: to_f64(made), real, allowed });
    }

    fn value(&mut self, group: &'static str, name: impl Into<String>, made: f64, real: f64) {
        self.figures.push(Figure { group, name: name.into(), made, real, allowed: real * WITHIN });
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
    figures.count(GROUP, "rows", tally.rows, to_f64(t.rows), 1.0);
    for (kind, name, real) in [(0, "views", t.views), (1, "carts", t.carts), (2, "purchases", t.purchases)] {
        figures.count(GROUP, name, of_kind(kind), to_f64(real), 4.0);
    }
    figures.count(GROUP, "sessions", tally.sessions, to_f64(t.sessions), 4.0);
    figures.count(GROUP, "users", tally.users(), to_f64(t.users), 4.0);
    figures.count(GROUP, "rows without category_code", of(&|p| p.category == 0), t.empty_code * to_f64(t.rows), 20.0);
    figures.count(GROUP, "rows without brand", of(&|p| p.brand == 0), t.empty_brand * to_f64(t.rows), 20.0);
    figures.count(GROUP, "rows without user_session", tally.without_session, to_f64(t.empty_sessions), 1.0);
    figures.count(GROUP, "rows with a price of 0", of(&|p| p.cents == 0), to_f64(t.zero_prices), 10.0);
    figures.count(GROUP, "exact copies", tally.copies, to_f64(t.copies), 2.0);
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

fn days(figures: &mut Figures, model: &Model, tally: &Tally, facts: &Facts) {
    // Of other months than those two the days are all that is known.
    let all: u64 = model.month.days().filter_map(|day| facts.events_by_day.get(&day)).sum();
    let scale = std::mem::replace(&mut figures.scale, to_f64(tally.rows) / to_f64(all.max(1)));
    for (day, made) in model.month.days().zip(&tally.days) {
        let name = || records::EventTime::from_days(day).day_text();
        if let Some(real) = facts.events_by_day.get(&day) {
            figures.count("events by day", name(), made.iter().sum(), to_f64(*real), 8.0);
        }
    }
    figures.scale = scale;
    let known = model.month.days().any(|day| facts.purchases_by_day.contains_key(&day));
    for (day, made) in model.month.days().zip(&tally.days).filter(|_| known) {
        let real = facts.purchases_by_day.get(&day).copied().unwrap_or_default();
        let name = records::EventTime::from_days(day).day_text();
        figures.count("purchases by day", name, made[2], to_f64(real), 1.5);
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
        figures.count("purchases by hour, at the real share", format!("{hour:02}"), made[2], expected, 1.5);
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
    figures.value(SHAPE, "events, mean", to_f64(tally.rows) / to_f64(tally.sessions), 4.90);
    for (share, real) in [(0.5, 2.0), (0.9, 11.0), (0.99, 36.0)] {
        figures.value(SHAPE, format!("events, p{:.0}", share * 100.0), quantile(&tally.lengths, share), real);
    }
    figures.value(SHAPE, "seconds, median", quantile(&tally.durations, 0.5), 42.0);
    for (share, real) in [(0.5, 33.0), (0.9, 115.0), (0.99, 377.0)] {
        figures.value(SHAPE, format!("pause, p{:.0}", share * 100.0), quantile(&tally.pauses, share), real);
    }
    figures.count("funnel by session", "with a cart", tally.carted, CARTED_SESSIONS * all, 1.0);
    figures.count(
        "funnel by session",
        "with a cart and a purchase",
        tally.carted_bought,
        CARTED_SESSIONS * BOUGHT_CARTS * all,
        1.0,
    );
    let bought = to_f64(tally.bought) / figures.scale;
    figures.count("funnel by session", "purchases without a view", tally.bought_unseen, UNSEEN_PURCHASES * bought, 1.0);
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

/// The variance of a count over that of as many independent events.
fn clustering(squares: f64, events: u64) -> f64 {
    if events == 0 { 1.0 } else { squares / to_f64(events) }
}

fn by_category(figures: &mut Figures, model: &Model, tally: &Tally, facts: &Facts) {
    let sums: Vec<Events> =
        (0..facts.categories.len()).map(|i| sum(model, tally, |p| usize::from(p.category) == i)).collect();
    let name = |code: &str| if code.is_empty() { "(none)".to_owned() } else { code.to_owned() };
    for ((category, made), squares) in facts.categories.iter().zip(&sums).zip(&tally.category_squares) {
        let events = made.iter().sum();
        figures.count("events by category", name(category.code), events, category.events, clustering(*squares, events));
    }
    for ((category, made), squares) in facts.categories.iter().zip(&sums).zip(&tally.category_squares) {
        let clustering = clustering(*squares, made.iter().sum());
        figures.count("views by category", name(category.code), made[0], category.views, clustering);
    }
}

fn by_brand(figures: &mut Figures, model: &Model, tally: &Tally, facts: &Facts) {
    let index = |brand: &str| model.catalogue.brands.iter().position(|name| name == brand);
    let of = |brand: &str| index(brand).map(|i| (i, sum(model, tally, |p| usize::from(p.brand) == i)));
    for (brand, real) in &facts.brands {
        if let Some((i, made)) = of(brand) {
            let events = made.iter().sum();
            figures.count("events by brand", *brand, events, *real, clustering(tally.brand_squares[i], events));
        }
    }
    for (brand, real) in &facts.bought_brands {
        if let Some((_, made)) = of(brand) {
            figures.count("purchases by brand", *brand, made[2], *real, 1.5);
        }
    }
    let phones = facts.categories.iter().position(|c| c.code == PHONES).unwrap_or_default();
    for (purchases, group) in [(false, "views of smartphones by brand"), (true, "purchases of smartphones by brand")] {
        for (brand, real) in &facts.phones {
            let i = index(brand);
            let made = sum(model, tally, |p| Some(usize::from(p.brand)) == i && usize::from(p.category) == phones);
            let (made, real) = if purchases { (made[2], real.purchases) } else { (made[0], real.views) };
            let squares = i.map_or(1.0, |i| {
                clustering(tally.brand_squares[i], sum(model, tally, |p| usize::from(p.brand) == i).iter().sum())
            });
            let name = if brand.is_empty() { "(none)" } else { brand };
            figures.count(group, name, made, real, if purchases { 1.5 } else { squares });
        }
    }
    for (id, real) in &facts.bought_products {
        let made = sum(model, tally, |p| p.id == *id);
        figures.count("purchases by product", id.to_string(), made[2], *real, 1.5);
    }
    let most = tally.products.iter().map(|events| events[0]).max().unwrap_or_default();
    figures.count("views of the first product", "of all", most, TOP_PRODUCT * to_f64(model.totals.views), 4.0);
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
    figures.value("price", "mean", mean, model.totals.price_mean);
    figures.value("price", "median", median(&|_| true), model.totals.price_median);
    figures.value("price", "standard deviation", (power(2) - mean * mean).sqrt(), model.totals.price_deviation);
    if !model.month.is(2019, 11) {
        return;
    }
    for (code, real) in MEDIAN_PRICES {
        let Some(i) = facts.categories.iter().position(|c| c.code == code) else { continue };
        let name = if code.is_empty() { "(none)" } else { code };
        figures.value("median price by category", name, median(&|c| usize::from(c) == i), real);
    }
}
