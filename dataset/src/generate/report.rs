//! What was made beside what was real: every figure that is known.
use super::catalogue::Product;
use super::facts::{
    BOUGHT_CARTS, BOUGHT_SESSIONS, BRAND_FUNNELS, CARTED_SESSIONS, COPIED_CARTS, DEPARTMENT_FUNNELS, FUNNEL, Facts,
    Funnel, LENGTHS, MEDIAN_PRICES, NOVEMBER, REPEATED_PURCHASES, TOP_PRODUCT, UNCARTED_PURCHASES, UNSEEN_PURCHASES,
    to_f64,
};
use super::fit::{PHONES, department};
use super::judge::{Figures, Report};
use super::model::Model;
use super::shape::shape;
use super::tally::{Events, Tally};

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
