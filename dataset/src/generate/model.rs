//! A month's model: everything that rows are drawn from, none of it larger than the catalogue.
use rand::SeedableRng;
use rand_distr::Distribution;
use rand_distr::weighted::WeightedAliasIndex;
use rand_xoshiro::SplitMix64;

use super::behaviour::{Fate, Fates, Lengths, MOST_AGAIN, Pauses, Users, table};
use super::calendar::{Calendar, Month};
use super::catalogue::{Catalogue, Product};
use super::facts::{COPIED_CARTS, Facts, NOVEMBER, OCTOBER, Totals, to_f64};
use super::sold::{Sold, purchases_a_buyer, sold};

/// In a session that carts or buys, the other products are of the focus's category with this chance.
pub(super) const KINDRED: f64 = 0.5;
/// For the means over what sessions hold.
const TRIALS: u32 = 40_000;

pub(super) struct Model {
    pub(super) month: Month,
    pub(super) totals: Totals,
    pub(super) calendar: Calendar,
    pub(super) lengths: Lengths,
    pub(super) pauses: Pauses,
    pub(super) fates: Fates,
    pub(super) users: Users,
    pub(super) catalogue: Catalogue,
    pub(super) foci: Foci,
    pub(super) views: Views,
    /// The chance that a cart, a purchase once more is an exact copy of the one before.
    pub(super) copied: [f64; 2],
    /// What each product's carts are known by: its category, or in October its sub-category.
    units: Vec<u16>,
    /// `,product_id,category_id,category_code,brand,price,` of each product, one after another.
    texts: Vec<u8>,
    ends: Vec<u32>,
    /// Of `Facts::categories`.
    codes: Vec<&'static str>,
}

/// Products by how often a session is about them, for each fate.
pub(super) struct Foci {
    buy: WeightedAliasIndex<f64>,
    cart: WeightedAliasIndex<f64>,
    direct: WeightedAliasIndex<f64>,
}

/// Products by how often they are looked at: first a category id, then one of its products.
pub(super) struct Views {
    categories: WeightedAliasIndex<f64>,
    members: Vec<Vec<u32>>,
    within: Vec<WeightedAliasIndex<f64>>,
}

impl Foci {
    pub(super) fn draw(&self, fate: Fate, rng: &mut SplitMix64) -> Option<u32> {
        let table = match fate {
            Fate::Browse => return None,
            Fate::Buy => &self.buy,
            Fate::Cart => &self.cart,
            Fate::Direct => &self.direct,
        };
        u32::try_from(table.sample(rng)).ok()
    }
}

impl Views {
    pub(super) fn category(&self, rng: &mut SplitMix64) -> u16 {
        u16::try_from(self.categories.sample(rng)).unwrap_or_default()
    }

    pub(super) fn product(&self, category: u16, rng: &mut SplitMix64) -> u32 {
        let category = usize::from(category);
        self.members[category][self.within[category].sample(rng)]
    }
}

impl Model {
    /// For a replay of `rows` rows of a month.
    pub(super) fn new(month: Month, rows: u64, facts: &Facts) -> Self {
        let october = month.is(2019, 10);
        let totals = if october { OCTOBER } else { NOVEMBER };
        let mut catalogue = Catalogue::build(facts);
        let [of_october, of_november] = sold(&catalogue, facts);
        let sold = if october { of_october } else { of_november };
        let unpriced = catalogue.unpriced(&totals);
        for (product, unpriced) in catalogue.products.iter_mut().zip(unpriced) {
            product.cents = if unpriced { 0 } else { product.cents };
        }
        let lengths = Lengths::with_mean(to_f64(totals.rows) / to_f64(totals.sessions));
        let sessions = to_f64(totals.sessions);
        let share = |of: &dyn Fn(&Sold) -> f64| sold.iter().map(of).sum::<f64>() / sessions;
        let shares = [share(&|p| p.carted), share(&|p| p.bought), share(&Sold::direct)];
        let units: Vec<u16> = catalogue.products.iter().map(|p| if october { p.kind } else { p.category }).collect();
        let fates = Fates::new(&lengths, shares, &carts_by_unit(&units, &sold), purchases_a_buyer());
        let views = views(&sold, &catalogue, &lengths, &fates, &units);
        let foci = Foci {
            buy: table(&sold.iter().map(|p| p.bought).collect::<Vec<_>>()),
            cart: table(&sold.iter().map(|p| p.carted - p.bought).collect::<Vec<_>>()),
            direct: table(&sold.iter().map(Sold::direct).collect::<Vec<_>>()),
        };
        let again = |events: u64, of: &dyn Fn(&Sold) -> f64| to_f64(events) - sold.iter().map(of).sum::<f64>();
        let copies = to_f64(totals.copies);
        let copied = [
            copies * COPIED_CARTS / again(totals.carts, &|p| p.carted),
            copies * (1.0 - COPIED_CARTS) / again(totals.purchases, &|p| p.bought + p.direct()),
        ];
        let expected_sessions = to_f64(rows) * sessions / to_f64(totals.rows);
        let (texts, ends) = texts(&catalogue, facts);
        Self {
            month,
            totals,
            calendar: Calendar::of(month, facts),
            pauses: Pauses::new(),
            users: Users::new(to_f64(totals.users) / sessions * expected_sessions, expected_sessions),
            foci,
            lengths,
            fates,
            views,
            copied: copied.map(|chance| chance.clamp(0.0, 1.0)),
            catalogue,
            units,
            texts,
            ends,
            codes: facts.categories.iter().map(|category| category.code).collect(),
        }
    }

    pub(super) fn unit(&self, product: u32) -> u16 {
        self.units[product as usize]
    }

    pub(super) fn code(&self, product: &Product) -> &'static str {
        self.codes[usize::from(product.category)]
    }

    /// How many categories there are, that of rows without a code included.
    pub(super) fn categories(&self) -> usize {
        self.catalogue.products.iter().map(|p| usize::from(p.category) + 1).max().unwrap_or_default()
    }

    /// How many sub-categories of October's there are, and one for what has none of them.
    pub(super) fn kinds(&self) -> usize {
        self.catalogue.products.iter().map(|p| usize::from(p.kind) + 1).max().unwrap_or_default()
    }

    pub(super) fn product_text(&self, product: u32) -> &[u8] {
        let product = product as usize;
        let from = if product == 0 { 0 } else { self.ends[product - 1] };
        &self.texts[from as usize..self.ends[product] as usize]
    }
}

/// Carts of a session that carts, and the share of such that buy, by unit.
fn carts_by_unit(units: &[u16], sold: &[Sold]) -> Vec<(f64, f64)> {
    let mut sums = vec![(0.0, 0.0, 0.0); units.iter().map(|unit| usize::from(*unit) + 1).max().unwrap_or_default()];
    for (unit, sold) in units.iter().zip(sold) {
        let (carts, carted, bought) = &mut sums[usize::from(*unit)];
        (*carts, *carted, *bought) = (*carts + sold.carts, *carted + sold.carted, *bought + sold.bought);
    }
    let of = |(carts, carted, bought)| if carted > 0.0 { (carts / carted, bought / carted) } else { (1.0, 0.0) };
    sums.into_iter().map(of).collect()
}

/// The views that are left for drawing freely, once each session with a focus has looked at it.
fn views(sold: &[Sold], catalogue: &Catalogue, lengths: &Lengths, fates: &Fates, units: &[u16]) -> Views {
    let means = [Fate::Buy, Fate::Cart, Fate::Direct].map(|fate| Means::of(fate, lengths, fates));
    let categories = catalogue.category_ids.len();
    // Views that sessions with a focus draw from its category.
    let mut kindred = vec![0.0; categories];
    let mut members = vec![Vec::new(); categories];
    let mut weights = vec![Vec::new(); categories];
    let mut of_category = vec![0.0; categories];
    for (((i, product), sold), unit) in (0..).zip(&catalogue.products).zip(sold).zip(units) {
        let category = usize::from(product.category_id);
        let mut left = sold.views;
        let foci = [sold.bought, sold.carted - sold.bought, sold.direct()];
        for (focus, means) in foci.into_iter().zip(&means) {
            let (of_focus, of_others) = means.at(fates.cart_again(*unit));
            left -= of_focus * focus;
            kindred[category] += of_others * focus * KINDRED;
        }
        let weight = left.max(sold.views * 0.05);
        members[category].push(i);
        weights[category].push(weight);
        of_category[category] += weight;
    }
    for (all, kindred) in of_category.iter_mut().zip(&kindred) {
        *all = (*all - kindred).max(0.0);
    }
    Views { categories: table(&of_category), members, within: weights.iter().map(|weights| table(weights)).collect() }
}

/// Views of the focus, and of others, in a session of a fate, by the chance of a cart once more: at
/// chances from none to the greatest in equal steps, and between them as on a line.
struct Means([(f64, f64); 9]);

impl Means {
    #[allow(clippy::cast_precision_loss, reason = "a few steps")]
    fn of(fate: Fate, lengths: &Lengths, fates: &Fates) -> Self {
        let mut means = Self([(0.0, 0.0); 9]);
        let steps = (means.0.len() - 1) as f64;
        for (step, mean) in means.0.iter_mut().enumerate() {
            *mean = Self::drawn(fate, MOST_AGAIN * step as f64 / steps, lengths, fates);
        }
        means
    }

    fn drawn(fate: Fate, cart_again: f64, lengths: &Lengths, fates: &Fates) -> (f64, f64) {
        let mut rng = SplitMix64::seed_from_u64(7);
        let (mut n, mut of_focus, mut of_others) = (0.0, 0.0, 0.0);
        let odds = (1.0, 1.0);
        for _ in 0..TRIALS {
            let length = lengths.draw(&mut rng);
            if length < 2 {
                continue;
            }
            let chance = fates.chance(fate, length, odds);
            if chance > 0.0 {
                let script = fates.script(fate, length, false, cart_again, &mut rng);
                n += chance;
                of_focus += chance * f64::from(script.focus);
                of_others += chance * f64::from(script.others());
            }
        }
        if n > 0.0 { (of_focus / n, of_others / n) } else { (0.0, 0.0) }
    }

    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few steps"
    )]
    fn at(&self, cart_again: f64) -> (f64, f64) {
        let steps = self.0.len() - 1;
        let place = (cart_again / MOST_AGAIN).clamp(0.0, 1.0) * steps as f64;
        let step = (place as usize).min(steps - 1);
        let (from, to, part) = (self.0[step], self.0[step + 1], place - step as f64);
        (from.0 + part * (to.0 - from.0), from.1 + part * (to.1 - from.1))
    }
}

fn texts(catalogue: &Catalogue, facts: &Facts) -> (Vec<u8>, Vec<u32>) {
    use std::io::Write;
    let (mut texts, mut ends) = (Vec::new(), Vec::new());
    for product in &catalogue.products {
        let id = catalogue.category_ids[usize::from(product.category_id)];
        let code = facts.categories[usize::from(product.category)].code;
        let brand = &catalogue.brands[usize::from(product.brand)];
        let price = records::Cents(i64::from(product.cents));
        let _ = write!(texts, ",{},{id},{code},{brand},{price},", product.id);
        ends.push(u32::try_from(texts.len()).unwrap_or(u32::MAX));
    }
    (texts, ends)
}
