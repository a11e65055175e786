//! Figures of shape: how steeply popularity falls from the first to the last, and how many views
//! become carts and purchases.
use std::collections::BTreeMap;

use super::facts::{Facts, to_f64};
use super::fit::{PHONES, department};
use super::judge::{DEVIATIONS, Figure, Figures, Rule, WITHIN};
use super::model::Model;
use super::report::sum;
use super::tally::Tally;

/// Ranks that fewer rows than this should have are left out of an exponent: chance orders them.
const RANKED: f64 = 100.0;
const GROUP: &str = "Zipf exponent";

/// For November.
pub(super) fn shape(figures: &mut Figures, model: &Model, tally: &Tally, facts: &Facts) {
    exponents(figures, model, tally, facts);
    rates(figures, model, tally, facts);
}

/// The slope of log count over log rank, with the variance that counts of such a size bring.
fn zipf(counts: &[f64], clustering: f64) -> (f64, f64) {
    let mut counts = counts.to_vec();
    counts.sort_by(|a, b| b.total_cmp(a));
    let ranks = (1..=counts.len() as u64).map(|rank| to_f64(rank).ln());
    let points: Vec<(f64, f64)> = ranks.zip(&counts).map(|(x, n)| (x, n.max(1.0).ln())).collect();
    let n = to_f64(points.len() as u64);
    let mean = points.iter().map(|(x, _)| x).sum::<f64>() / n;
    let spread: f64 = points.iter().map(|(x, _)| (x - mean).powi(2)).sum();
    let slope = points.iter().map(|(x, y)| (x - mean) * y).sum::<f64>() / spread;
    let variance =
        points.iter().zip(&counts).map(|((x, _), n)| ((x - mean) / spread).powi(2) * clustering / n.max(1.0));
    (-slope, variance.sum())
}

fn exponents(figures: &mut Figures, model: &Model, tally: &Tally, facts: &Facts) {
    let brand = |name: &str| model.catalogue.brands.iter().position(|known| known == name);
    let of_brand = |name: &str, phones: bool| {
        let phone_row = facts.categories.iter().position(|c| c.code == PHONES).unwrap_or_default();
        let is = |category: u16| !phones || usize::from(category) == phone_row;
        brand(name).map(|i| sum(model, tally, |p| usize::from(p.brand) == i && is(p.category)))
    };
    let all = |events: [u64; 3]| events.iter().sum::<u64>();
    // Each with what was made of it: events, or views, or purchases.
    let brands = facts.brands.iter().filter_map(|(name, real)| Some((all(of_brand(name, false)?), *real)));
    let categories = facts.categories.iter().enumerate().skip(1);
    let categories = categories.map(|(i, c)| (all(sum(model, tally, |p| usize::from(p.category) == i)), c.events));
    let phones = facts.phones.iter().filter(|(name, _)| !name.is_empty());
    let phones = phones.filter_map(|(name, real)| Some((of_brand(name, true)?[0], real.views)));
    let bought = facts.bought_brands.iter().filter_map(|(name, real)| Some((of_brand(name, false)?[2], *real)));
    let products = facts.bought_products.iter().map(|(id, real)| (sum(model, tally, |p| p.id == *id)[2], *real));
    let scale = figures.scale;
    let (views, purchases) = (tally.variance(0), tally.variance(2));
    let (brands, categories): (Vec<_>, Vec<_>) = (brands.collect(), categories.collect());
    for (name, counts, clustering) in [
        ("brands, by events", brands.clone(), views),
        ("categories, by events", categories.clone(), views),
        ("brands of smartphones, by views", phones.collect(), views),
        ("the first brands, by purchases", bought.collect(), purchases),
        ("the first products, by purchases", products.collect(), purchases),
    ] {
        let ranked: Vec<(f64, f64)> = counts
            .into_iter()
            .map(|(made, real)| (to_f64(made), real * scale))
            .filter(|(_, real)| *real > RANKED)
            .collect();
        if ranked.len() < 3 {
            continue;
        }
        let column = |of: fn(&(f64, f64)) -> f64| ranked.iter().map(of).collect::<Vec<_>>();
        let ((made, _), (real, variance)) = (zipf(&column(|c| c.0), clustering), zipf(&column(|c| c.1), clustering));
        let (share, chance) = (WITHIN * real, DEVIATIONS * variance.sqrt());
        let (rule, allowed) = match figures.by_share(f64::INFINITY, chance / real) {
            Some(rule) => (rule, share),
            None => (Rule::Chance { variance: clustering, few: false }, chance),
        };
        let allowed = (allowed, allowed);
        figures.figures.push(Figure { group: GROUP, name: name.into(), made, real, allowed, rule });
    }
    published(figures, &brands, &categories, tally);
}

/// Exponents as they were published. Over which ranks is not said: brands' and categories' come out of
/// the tables over these.
const BRANDS: (f64, usize) = (1.04, 100);
const CATEGORIES: (f64, usize) = (1.13, 60);
const PRODUCTS: (f64, usize) = (0.9, 10_000);

fn published(figures: &mut Figures, brands: &[(u64, f64)], categories: &[(u64, f64)], tally: &Tally) {
    let products: Vec<f64> = tally.products.iter().map(|events| to_f64(events[0])).collect();
    let made = |counts: &[(u64, f64)]| counts.iter().map(|(made, _)| to_f64(*made)).collect::<Vec<_>>();
    for (name, mut counts, (real, ranks), held) in [
        ("brands, by events, the first 100", made(brands), BRANDS, true),
        ("categories, by events, the first 60", made(categories), CATEGORIES, true),
        ("products, by views, the first 10,000", products, PRODUCTS, false),
    ] {
        counts.sort_by(|a, b| b.total_cmp(a));
        counts.truncate(ranks);
        let (made, variance) = zipf(&counts, tally.variance(0));
        let chance = DEVIATIONS * variance.sqrt();
        let (rule, allowed) = match held {
            false => (Rule::NotHeld("after a first one of 0.90% it gives all products 22% of the views"), 0.0),
            true => match figures.by_share(f64::INFINITY, chance / real) {
                Some(rule) => (rule, WITHIN * real),
                None => (Rule::Chance { variance: tally.variance(0), few: false }, chance),
            },
        };
        let allowed = (allowed, allowed);
        figures.figures.push(Figure { group: GROUP, name: name.into(), made, real, allowed, rule });
    }
}

fn rates(figures: &mut Figures, model: &Model, tally: &Tally, facts: &Facts) {
    /// Events, and those that are no views.
    #[derive(Default)]
    struct Sum {
        made: (u64, u64),
        real: (f64, f64),
    }
    let (carts, purchases) = (tally.variance(1), tally.variance(2));
    let mut departments: BTreeMap<&str, Sum> = BTreeMap::new();
    // Where the views are not known, all events stand for them.
    for (i, category) in facts.categories.iter().enumerate().filter(|(_, c)| c.views < c.events) {
        let [views, carts, purchases] = sum(model, tally, |p| usize::from(p.category) == i);
        let of = departments.entry(department(category.code)).or_default();
        of.made = (of.made.0 + carts + purchases, of.made.1 + views + carts + purchases);
        of.real = (of.real.0 + category.events - category.views, of.real.1 + category.events);
    }
    for (name, of) in &departments {
        let name = if name.is_empty() { "(none)" } else { name };
        let real = of.real.0 / of.real.1 * 100.0;
        figures.rate("% carts and purchases, by department", name, of.made, real, carts);
    }
    let phone_row = facts.categories.iter().position(|c| c.code == PHONES).unwrap_or_default();
    for (brand, real) in facts.phones.iter().filter(|(_, real)| real.views > 0.0 && real.purchases > 0.0) {
        let index = model.catalogue.brands.iter().position(|name| name == brand);
        let [views, _, bought] =
            sum(model, tally, |p| Some(usize::from(p.brand)) == index && usize::from(p.category) == phone_row);
        let name = if brand.is_empty() { "(none)" } else { brand };
        let real = real.purchases / real.views * 100.0;
        figures.rate("% purchases of views, smartphones by brand", name, (bought, views), real, purchases);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponent_of_a_power_law_is_its_power() {
        for power in [0.5, 1.0, 1.7] {
            let counts: Vec<f64> = (1..=200_u32).map(|rank| 1e9 / f64::from(rank).powf(power)).collect();
            let (slope, variance) = zipf(&counts, 1.0);
            assert!((slope - power).abs() < 1e-9 && variance < 1e-4, "{power}: {slope}, {variance}");
        }
        let (few, many) = (zipf(&[40.0, 20.0, 13.3], 1.0).1, zipf(&[4000.0, 2000.0, 1330.0], 1.0).1);
        assert!((few / many - 100.0).abs() < 0.1, "chance counts for more where there are few: {few}, {many}");
    }
}
