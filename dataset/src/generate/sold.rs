//! What October and November sold: each product's views, carts and purchases of the month, and in how
//! many sessions it was carted, and bought after that. Pure.
//!
//! Events and sessions differ by what a session repeats, and by what it buys without a cart. The tables
//! fix the events; that difference is free, and is fitted to the funnels over session × product, which
//! are known of the two months together.
use std::collections::{HashMap, HashSet};

use super::catalogue::{Catalogue, Product};
use super::facts::{
    BOUGHT_CARTS, BRAND_FUNNELS, CARTED_SESSIONS, DEPARTMENT_FUNNELS, FUNNEL, Facts, Funnel, Kind, NOVEMBER, OCTOBER,
    REPEATED_PURCHASES, Totals, UNCARTED_PURCHASES, to_f64,
};
use super::fit::department;

/// Enough for sums within a thousandth.
const ROUNDS: usize = 40;
/// Views of a product in a session that views it, as sessions come out (`session`).
const VIEWS_A_PAIR: f64 = 1.541;
/// At least so many carts in a session that carts something, and purchases for those of it that are carted.
const LEAST_CARTS: f64 = 1.02;
/// At most this share of the carted is bought.
const MOST_BOUGHT: f64 = 0.95;

/// Of a product in a month. The last two are sessions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sold {
    pub(super) views: f64,
    pub(super) carts: f64,
    pub(super) purchases: f64,
    pub(super) carted: f64,
    pub(super) bought: f64,
}

impl Sold {
    /// In so many sessions it is bought without a cart.
    pub(super) fn direct(&self) -> f64 {
        (self.purchases / purchases_a_buyer() - self.bought).max(0.0)
    }
}

/// Purchases of a product in a session that buys it.
pub(super) fn purchases_a_buyer() -> f64 {
    1.0 / (1.0 - REPEATED_PURCHASES / 100.0)
}

/// October's and November's, product by product.
pub(super) fn sold(catalogue: &Catalogue, facts: &Facts) -> [Vec<Sold>; 2] {
    let groups = Groups::of(catalogue);
    let mut november = groups.november.clone();
    to_totals(&mut november, &NOVEMBER);
    let mut months = [october(&groups, facts), november];
    pairs(&mut months, &groups, catalogue, facts);
    let [october, november] = months;
    [groups.share(catalogue, &october, true), groups.share(catalogue, &november, false)]
}

/// Products of which no table tells one from another: all is fitted to these, and shared among theirs.
struct Groups {
    groups: Vec<Group>,
    /// Of each product.
    group: Vec<usize>,
    /// The sums of their products.
    november: Vec<Sold>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Group {
    category: u16,
    brand: u16,
    kind: u16,
    sells_in_october: bool,
    unpriced_in_october: bool,
}

impl Groups {
    fn of(catalogue: &Catalogue) -> Self {
        let mut made = Self { groups: Vec::new(), group: Vec::new(), november: Vec::new() };
        let mut places = HashMap::new();
        let (sells, unpriced) = (sells_in_october(&catalogue.products), catalogue.unpriced(&OCTOBER));
        for ((p, sells_in_october), unpriced_in_october) in catalogue.products.iter().zip(sells).zip(unpriced) {
            let group =
                Group { category: p.category, brand: p.brand, kind: p.kind, sells_in_october, unpriced_in_october };
            let place = *places.entry(group).or_insert_with(|| {
                made.groups.push(group);
                made.november.push(Sold::default());
                made.groups.len() - 1
            });
            made.group.push(place);
            let sum = &mut made.november[place];
            sum.views += p.views;
            sum.carts += p.carts;
            sum.purchases += p.purchases;
        }
        made
    }

    /// Each product its part of what its group sold.
    fn share(&self, catalogue: &Catalogue, sold: &[Sold], october: bool) -> Vec<Sold> {
        let part = |n: f64, of: f64| if of > 0.0 { n / of } else { 0.0 };
        let of = |(p, group): (&Product, &usize)| {
            let (all, sums) = (&sold[*group], &self.november[*group]);
            if october && !self.groups[*group].sells_in_october {
                return Sold::default();
            }
            let (views, bought) = (part(p.views, sums.views), part(p.purchases, sums.purchases));
            Sold {
                views: all.views * views,
                // Of products that are told apart by nothing, carts are as purchases are.
                carts: all.carts * bought,
                purchases: all.purchases * bought,
                carted: all.carted * bought,
                bought: all.bought * bought,
            }
        };
        catalogue.products.iter().zip(&self.group).map(of).collect()
    }
}

fn to_totals(month: &mut [Sold], totals: &Totals) {
    let scale = |n: u64, of: fn(&Sold) -> f64| to_f64(n) / month.iter().map(of).sum::<f64>();
    let views = scale(totals.views, |p| p.views);
    let carts = scale(totals.carts, |p| p.carts);
    let purchases = scale(totals.purchases, |p| p.purchases);
    for product in month {
        product.views *= views;
        product.carts *= carts;
        product.purchases *= purchases;
    }
}

/// November's without what was new then, in the numbers of October's sub-categories.
fn october(all: &Groups, facts: &Facts) -> Vec<Sold> {
    let groups = &all.groups;
    // The table leaves out what has no price: that is a kind of its own, as what is in no sub-category is.
    let unpriced = facts.october.len() + 1;
    let kind = |i: usize| if groups[i].unpriced_in_october { unpriced } else { usize::from(groups[i].kind) };
    let margin = |of: fn(&Kind) -> f64, total: u64| {
        let listed = facts.october.iter().map(of);
        let rest = to_f64(total) - listed.clone().sum::<f64>();
        Margin::new(groups.len(), kind, listed.chain([0.0, rest]).collect())
    };
    let none = |is: fn(&Group) -> bool, share: f64| {
        let views = to_f64(OCTOBER.views);
        Margin::new(groups.len(), |i| usize::from(is(&groups[i])), vec![(1.0 - share) * views, share * views])
    };
    let column = |of: fn(&Sold) -> f64| -> Vec<f64> {
        let sold = |(group, sold): (&Group, &Sold)| if group.sells_in_october { of(sold) } else { 0.0 };
        groups.iter().zip(&all.november).map(sold).collect()
    };
    let (mut views, mut carts, mut purchases) = (column(|p| p.views), column(|p| p.carts), column(|p| p.purchases));
    let uncoded = none(|group| group.category == 0, OCTOBER.empty_code);
    let unbranded = none(|group| group.brand == 0, OCTOBER.empty_brand);
    rake(&mut views, &[uncoded, unbranded, margin(|k| k.views, OCTOBER.views)], Most::Nothing);
    rake(&mut carts, &[margin(|k| k.carts, OCTOBER.carts)], Most::Nothing);
    rake(&mut purchases, &[margin(|k| k.purchases, OCTOBER.purchases)], Most::Nothing);
    let sold = |((views, carts), purchases)| Sold { views, carts, purchases, ..Sold::default() };
    views.into_iter().zip(carts).zip(purchases).map(sold).collect()
}

/// As many products, brands and category ids as October had: those that November has least of came later.
fn sells_in_october(products: &[Product]) -> Vec<bool> {
    let mut sells = vec![true; products.len()];
    for (of, count) in [
        // What has no brand is one more.
        ((|p| p.brand) as fn(&Product) -> u16, OCTOBER.brands + 1),
        (|p| p.category_id, OCTOBER.category_ids),
    ] {
        let mut views = vec![0.0; products.iter().map(|p| usize::from(of(p)) + 1).max().unwrap_or_default()];
        for product in products {
            views[usize::from(of(product))] += product.views;
        }
        let mut order: Vec<usize> = (0..views.len()).collect();
        order.sort_by(|a, b| views[*b].total_cmp(&views[*a]));
        let kept: HashSet<usize> = order.into_iter().take(usize::try_from(count).unwrap_or(usize::MAX)).collect();
        for (sells, product) in sells.iter_mut().zip(products) {
            *sells &= kept.contains(&usize::from(of(product)));
        }
    }
    let mut order: Vec<usize> = (0..products.len()).filter(|i| sells[*i]).collect();
    order.sort_by(|a, b| products[*b].views.total_cmp(&products[*a].views));
    // The first of each brand, category id and sub-category stay.
    let (mut brands, mut ids, mut kinds) = (HashSet::new(), HashSet::new(), HashSet::new());
    let first = |i: &usize| {
        let p = &products[*i];
        let (brand, id, kind) = (brands.insert(p.brand), ids.insert(p.category_id), kinds.insert((p.category, p.kind)));
        brand || id || kind
    };
    let (firsts, others): (Vec<usize>, Vec<usize>) = order.into_iter().partition(first);
    for i in firsts.into_iter().chain(others).skip(usize::try_from(OCTOBER.products).unwrap_or(usize::MAX)) {
        sells[i] = false;
    }
    sells
}

/// In how many sessions each is carted, and bought after that: such that the funnels are as they were.
fn pairs(months: &mut [Vec<Sold>; 2], Groups { groups, .. }: &Groups, catalogue: &Catalogue, facts: &Facts) {
    // October's groups, then November's.
    let n = groups.len();
    let code = |i: usize| department(facts.categories[usize::from(groups[i % n].category)].code);
    let brand = |i: usize| catalogue.brands[usize::from(groups[i % n].brand)].as_str();
    let both = |of: fn(&Sold) -> f64| -> Vec<f64> { months.iter().flatten().map(of).collect() };
    let (carts, buyers) = (both(|p| p.carts), both(|p| p.purchases / purchases_a_buyer()));

    // November's sessions are known; October's follow from the purchases without a cart, and the whole.
    let november = CARTED_SESSIONS * to_f64(NOVEMBER.sessions);
    let november = [november, november * BOUGHT_CARTS];
    let bought = buyers.iter().sum::<f64>() * (1.0 - UNCARTED_PURCHASES / 100.0);
    let carted = bought / (FUNNEL.bought / 100.0);
    let by_month = |of: f64, november: f64| Margin::new(2 * n, |i| i / n, vec![of - november, november]);

    let viewed: Vec<f64> = both(|p| p.views / VIEWS_A_PAIR);
    let margins = |of: &[f64], rate: fn(&Funnel) -> f64, month: Margin| {
        let all: f64 = month.wanted.iter().sum();
        vec![
            Margin::of_funnels(of, &BRAND_FUNNELS, brand, rate, all),
            month,
            Margin::of_funnels(of, &DEPARTMENT_FUNNELS, code, rate, all),
        ]
    };
    // Carts are known by sub-category in October, by category in November.
    let kinds = facts.october.len() + 1;
    let units = kinds + facts.categories.len();
    let unit = |i: usize| match i.checked_sub(n) {
        None => usize::from(groups[i].kind),
        Some(i) => kinds + usize::from(groups[i].category),
    };
    let mut most = vec![0.0; units];
    for (i, carts) in carts.iter().enumerate() {
        most[unit(i)] += carts / LEAST_CARTS;
    }
    let mut of_carts: Vec<f64> = carts.clone();
    let wanted = margins(&viewed, |f| f.carted, by_month(carted, november[0]));
    let most = Margin::new(2 * n, unit, most);
    rake(&mut of_carts, &wanted, Most::OfClass(&most));
    let mut of_buys = of_carts.clone();
    let wanted = margins(&of_carts, |f| f.bought, by_month(bought, november[1]));
    let most: Vec<f64> =
        of_carts.iter().zip(&buyers).map(|(carted, buyers)| (carted * MOST_BOUGHT).min(*buyers)).collect();
    rake(&mut of_buys, &wanted, Most::OfEach(&most));
    // A unit's carts are those that its sessions repeat, whatever the product.
    let mut sums = vec![(0.0, 0.0); units];
    for (i, (carts, carted)) in carts.iter().zip(&of_carts).enumerate() {
        let sum = &mut sums[unit(i)];
        *sum = (sum.0 + carts, sum.1 + carted);
    }
    for (i, sold) in months.iter_mut().flatten().enumerate() {
        let (carts, carted) = sums[unit(i)];
        sold.carted = of_carts[i];
        sold.bought = of_buys[i];
        sold.carts = if carted > 0.0 { of_carts[i] * carts / carted } else { 0.0 };
    }
}

/// Sums that weights are to have, by class.
struct Margin {
    class: Vec<u16>,
    wanted: Vec<f64>,
}

impl Margin {
    fn new(weights: usize, class: impl Fn(usize) -> usize, wanted: Vec<f64>) -> Self {
        let class = (0..weights).map(|i| u16::try_from(class(i)).unwrap_or(u16::MAX)).collect();
        Self { class, wanted }
    }

    /// A funnel's share of each class, and what the classes leave of all.
    fn of_funnels<'a>(
        of: &[f64],
        funnels: &[Funnel],
        class: impl Fn(usize) -> &'a str,
        rate: fn(&Funnel) -> f64,
        all: f64,
    ) -> Self {
        let place = |i| funnels.iter().position(|f| f.name == class(i)).unwrap_or(funnels.len());
        let mut made = Self::new(of.len(), place, vec![0.0; funnels.len() + 1]);
        let sums = made.sums(of);
        for ((wanted, sum), funnel) in made.wanted.iter_mut().zip(sums).zip(funnels) {
            *wanted = sum * rate(funnel) / 100.0;
        }
        made.wanted[funnels.len()] = all - made.wanted.iter().sum::<f64>();
        made
    }

    fn sums(&self, weights: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.wanted.len()];
        for (class, weight) in self.class.iter().zip(weights) {
            sums[usize::from(*class)] += weight;
        }
        sums
    }

    /// Brings each class's sum to what is wanted, or where it is `most` below that.
    fn scale(&self, weights: &mut [f64], most: bool) {
        let factor = |(sum, wanted): (f64, &f64)| match sum > 0.0 {
            true if most => (wanted / sum).min(1.0),
            true => wanted / sum,
            false => 0.0,
        };
        let factors: Vec<f64> = self.sums(weights).into_iter().zip(&self.wanted).map(factor).collect();
        for (class, weight) in self.class.iter().zip(weights) {
            *weight *= factors[usize::from(*class)];
        }
    }
}

/// What weights may not exceed.
#[derive(Clone, Copy)]
enum Most<'a> {
    Nothing,
    OfClass(&'a Margin),
    OfEach(&'a [f64]),
}

/// Scales weights by class, margin after margin, until all sums are as wanted.
fn rake(weights: &mut [f64], margins: &[Margin], most: Most<'_>) {
    for _ in 0..ROUNDS {
        for margin in margins {
            margin.scale(weights, false);
        }
        match most {
            Most::Nothing => {}
            Most::OfClass(margin) => margin.scale(weights, true),
            Most::OfEach(most) => weights.iter_mut().zip(most).for_each(|(weight, most)| *weight = weight.min(*most)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(what: &str, got: f64, wanted: f64, within: f64) {
        assert!((got - wanted).abs() <= within * wanted, "{what}: {got} for {wanted}");
    }

    #[test]
    fn what_was_sold_is_what_the_tables_and_the_funnels_say() {
        let facts = Facts::load();
        let catalogue = Catalogue::build(&facts);
        let months = sold(&catalogue, &facts);
        tables(&facts, &catalogue, &months);
        funnels(&facts, &catalogue, &months);
    }

    fn tables(facts: &Facts, catalogue: &Catalogue, months: &[Vec<Sold>; 2]) {
        let sum = |month: usize, of: fn(&Sold) -> f64, is: &dyn Fn(&Product) -> bool| -> f64 {
            catalogue.products.iter().zip(&months[month]).filter(|(p, _)| is(p)).map(|(_, sold)| of(sold)).sum()
        };
        for (month, totals) in [OCTOBER, NOVEMBER].iter().enumerate() {
            near("views", sum(month, |s| s.views, &|_| true), to_f64(totals.views), 0.001);
            near("carts", sum(month, |s| s.carts, &|_| true), to_f64(totals.carts), 0.001);
            near("purchases", sum(month, |s| s.purchases, &|_| true), to_f64(totals.purchases), 0.001);
        }
        let unpriced = catalogue.unpriced(&OCTOBER);
        for (i, kind) in facts.october.iter().enumerate() {
            let of = |of: fn(&Sold) -> f64| -> f64 {
                let products = catalogue.products.iter().zip(&unpriced).zip(&months[0]);
                products.filter(|((p, unpriced), _)| usize::from(p.kind) == i && !**unpriced).map(|(_, s)| of(s)).sum()
            };
            near(kind.name, of(|s| s.views), kind.views, 0.01);
            near(kind.name, of(|s| s.carts), kind.carts, 0.01);
            near(kind.name, of(|s| s.purchases), kind.purchases, 0.01);
        }
        let uncoded = sum(0, |s| s.views, &|p| p.category == 0);
        near("without a code", uncoded, OCTOBER.empty_code * to_f64(OCTOBER.views), 0.03);
        // A brand of gloves alone is none of October's.
        let sells = |of: fn(&Product) -> u64| -> f64 {
            let sold = catalogue.products.iter().zip(&months[0]).filter(|(_, sold)| sold.views > 0.0);
            to_f64(sold.map(|(p, _)| of(p)).collect::<HashSet<_>>().len() as u64)
        };
        near("brands", sells(|p| u64::from(p.brand)), to_f64(OCTOBER.brands + 1), 0.005);
        near("category ids", sells(|p| u64::from(p.category_id)), to_f64(OCTOBER.category_ids), 0.005);
        near("products", sells(|p| p.id), to_f64(OCTOBER.products), 0.005);
    }

    fn funnels(facts: &Facts, catalogue: &Catalogue, months: &[Vec<Sold>; 2]) {
        for sold in months.iter().flatten() {
            let whole = sold.bought <= sold.carted && sold.carted <= sold.carts + 1e-9 && sold.bought >= 0.0;
            assert!(whole && sold.bought <= sold.purchases / purchases_a_buyer() + 1e-9, "{sold:?}");
        }
        let all = |of: fn(&Sold) -> f64, is: &dyn Fn(&Product) -> bool| -> f64 {
            let products = months.iter().flat_map(|month| catalogue.products.iter().zip(month));
            products.filter(|(p, _)| is(p)).map(|(_, sold)| of(sold)).sum()
        };
        let check = |funnel: &Funnel, is: &dyn Fn(&Product) -> bool| {
            let [viewed, carted, bought] =
                [all(|s| s.views / VIEWS_A_PAIR, is), all(|s| s.carted, is), all(|s| s.bought, is)];
            near(funnel.name, carted / viewed * 100.0, funnel.carted, 0.03);
            near(funnel.name, bought / carted * 100.0, funnel.bought, 0.02);
        };
        check(&FUNNEL, &|_| true);
        for funnel in &DEPARTMENT_FUNNELS {
            check(funnel, &|p| department(facts.categories[usize::from(p.category)].code) == funnel.name);
        }
        for funnel in &BRAND_FUNNELS {
            check(funnel, &|p| catalogue.brands[usize::from(p.brand)] == funnel.name);
        }
    }
}
