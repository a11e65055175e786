//! The products: which cell each is of, its price, and how often it is viewed, carted and bought in
//! November. The same in every month and for every seed. Pure.
use std::collections::HashMap;

use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal};
use rand_xoshiro::SplitMix64;

use super::facts::{Facts, MAX_PRICE_CENTS, MEDIAN_PRICES, NOVEMBER, OCTOBER, TOP_PRODUCT, Totals, to_f64};
use super::fit::{Cell, cells};
use super::sample::{Example, Sample};

/// The catalogue is one: its draws do not depend on the seed of the rows.
const SEED: u64 = 0x5EED_0F5A_0123_4567;
/// Products of a cell grow as this power of its views.
const PRODUCTS_BY_VIEWS: f64 = 0.66;
/// So many that as many as in November are seen there.
const PRODUCTS: f64 = 190_700.0;
/// Views fall by rank within a cell as (rank + OFFSET)^-EXPONENT.
const EXPONENT: f64 = 0.95;
const OFFSET: f64 = 2.0;
/// Fewer prices of a kind in the sample say nothing of it.
const FEW: usize = 12;
const MEDIAN: f64 = 80.0;
const SPREAD: f64 = 0.75;
/// By what drawn prices spread less than the sample's, and medians that only the sample gives are higher:
/// so the mean, median and standard deviation of all come nearest to those of both months.
const NARROWER: f64 = 0.85;
const DEARER: f64 = 1.11;

#[derive(Clone, Debug)]
pub(super) struct Product {
    pub(super) id: u64,
    /// Of `Catalogue::category_ids`.
    pub(super) category_id: u16,
    /// Of `Facts::categories`.
    pub(super) category: u16,
    /// Of `Facts::october`; one more is another.
    pub(super) kind: u16,
    /// Of `Catalogue::brands`; 0 is none.
    pub(super) brand: u16,
    pub(super) cents: u32,
    pub(super) views: f64,
    pub(super) carts: f64,
    pub(super) purchases: f64,
}

pub(super) struct Catalogue {
    pub(super) products: Vec<Product>,
    pub(super) category_ids: Vec<u64>,
    pub(super) brands: Vec<String>,
}

impl Catalogue {
    pub(super) fn build(facts: &Facts) -> Self {
        let sample = Sample::load();
        let cells = cells(facts, &sample);
        let (category_ids, ids_of) = category_ids(facts, &sample);
        let mut examples: HashMap<(&str, &str), Vec<&Example>> = HashMap::new();
        for example in &sample.products {
            examples.entry((&example.code, &example.brand)).or_default().push(example);
        }
        let index: HashMap<u64, u16> = (0..).zip(&category_ids).map(|(i, id)| (*id, i)).collect();
        let mut made = Self { products: Vec::new(), category_ids, brands: vec![String::new()] };
        let mut numbers: HashMap<String, u16> = HashMap::from([(String::new(), 0)]);
        let scale = PRODUCTS / cells.iter().map(|cell| cell.views.powf(PRODUCTS_BY_VIEWS)).sum::<f64>();
        let mut rng = SplitMix64::seed_from_u64(SEED);
        let mut next_id = 60_000_000;
        for cell in &cells {
            let next_brand = u16::try_from(numbers.len()).unwrap_or(u16::MAX);
            let brand = *numbers.entry(cell.brand.clone()).or_insert_with(|| {
                made.brands.push(cell.brand.clone());
                next_brand
            });
            let code = facts.categories[cell.category].code;
            let kind = facts.kind_of(code);
            let known = examples.get(&(code, cell.brand.as_str())).map_or(&[][..], Vec::as_slice);
            let count = (scale * cell.views.powf(PRODUCTS_BY_VIEWS)).round().max(1.0);
            let first = made.products.len();
            for rank in ranks(count) {
                let example = known.get(rank);
                let category_id = match example {
                    Some(example) => index[&example.category_id],
                    // A brand keeps to one or two of the category's ids.
                    None => {
                        let ids = &ids_of[cell.category];
                        ids[(usize::from(brand) * 7 + usize::from(rng.random_range(0..4_u8) == 0)) % ids.len()]
                    }
                };
                next_id += rng.random_range(1..90_u64);
                made.products.push(Product {
                    id: example.map_or(next_id, |e| e.id),
                    category_id,
                    category: u16::try_from(cell.category).unwrap_or_default(),
                    kind,
                    brand,
                    cents: example.map_or(0, |e| e.cents),
                    views: 0.0,
                    carts: 0.0,
                    purchases: 0.0,
                });
            }
            share(&mut made.products[first..], cell, facts);
        }
        made.every_category_id_is_sold();
        made.price(facts, &sample, &mut rng);
        made.hidden_kinds(facts);
        made
    }

    /// A category id that no brand fell on takes products of one that has many.
    fn every_category_id_is_sold(&mut self) {
        let mut sold = vec![0_u32; self.category_ids.len()];
        for product in &self.products {
            sold[usize::from(product.category_id)] += 1;
        }
        let missing: Vec<u16> = (0..).zip(&sold).filter(|(_, n)| **n == 0).map(|(id, _)| id).collect();
        let uncoded = self
            .products
            .iter_mut()
            .filter(|p| p.category == 0 && sold[usize::from(p.category_id)] > 200 && p.views > 20.0);
        let every = uncoded.step_by(101).zip(missing.iter().cycle());
        for (product, id) in every.take(missing.len() * 3) {
            product.category_id = *id;
        }
    }

    /// Draws the prices that the sample does not give: log-normal about the category's median, so
    /// that the median over views is the real one.
    fn price(&mut self, facts: &Facts, sample: &Sample, rng: &mut SplitMix64) {
        let known: std::collections::HashSet<u64> = sample.products.iter().map(|p| p.id).collect();
        let (by_category, by_cell) = prices(sample);
        let mut of_category: Vec<Vec<usize>> = vec![Vec::new(); facts.categories.len()];
        for (i, product) in self.products.iter().enumerate() {
            of_category[usize::from(product.category)].push(i);
        }
        for (members, category) in of_category.iter().zip(&facts.categories) {
            let all = by_category.get(category.code).filter(|prices| prices.len() >= FEW);
            let fact = MEDIAN_PRICES.iter().find(|(code, _)| *code == category.code).map(|(_, median)| *median);
            let guess = || all.map_or(MEDIAN, |prices| prices[prices.len() / 2]) * DEARER;
            let median = fact.unwrap_or_else(guess);
            let spread = all.map_or(SPREAD, |prices| spread(prices));
            let mut drawn: Vec<usize> = Vec::new();
            let mut prices: Vec<f64> = vec![0.0; members.len()];
            for (k, &i) in members.iter().enumerate() {
                let product = &self.products[i];
                if known.contains(&product.id) {
                    prices[k] = f64::from(product.cents) / 100.0;
                    continue;
                }
                let brand = self.brands[usize::from(product.brand)].as_str();
                let cell = by_cell.get(&(category.code, brand)).filter(|prices| prices.len() >= FEW);
                let (median, spread) =
                    cell.map_or((median, spread), |prices| (prices[prices.len() / 2], self::spread(prices)));
                let price = LogNormal::new(median.ln(), spread * NARROWER).map_or(median, |drawn| drawn.sample(rng));
                prices[k] = price;
                drawn.push(k);
            }
            let weight = |k: usize| self.products[members[k]].views;
            let factor = factor_for_median(&prices, &drawn, weight, median);
            for &k in &drawn {
                self.products[members[k]].cents = cents(prices[k] * factor);
            }
        }
    }

    /// Which products have no price in a month: such without a brand that are seldom viewed, and of
    /// those as many as there were rows.
    pub(super) fn unpriced(&self, month: &Totals) -> Vec<bool> {
        const SELDOM: f64 = 2_000.0;
        let seldom = |p: &Product| p.brand == 0 && p.views < SELDOM && p.cents > 0;
        let sum = |is: &dyn Fn(&Product) -> bool| self.products.iter().filter(|p| is(p)).map(|p| p.views).sum::<f64>();
        let wanted = to_f64(month.zero_prices) / to_f64(month.rows) * to_f64(NOVEMBER.views);
        let share = (wanted - sum(&|p| p.cents == 0)).max(0.0) / sum(&seldom);
        let mut owed = 0.0;
        let mut unpriced = |p: &Product| {
            if !seldom(p) {
                return p.cents == 0;
            }
            owed += p.views * share;
            let owes = owed >= p.views;
            owed -= if owes { p.views } else { 0.0 };
            owes
        };
        self.products.iter().map(&mut unpriced).collect()
    }

    /// October's sub-categories have more views than its codes can hold: the rest is of products
    /// without a code, which get one that is not written.
    fn hidden_kinds(&mut self, facts: &Facts) {
        let scale = to_f64(OCTOBER.views) / self.products.iter().map(|p| p.views).sum::<f64>();
        let mut coded = vec![0.0; facts.october.len() + 1];
        for product in self.products.iter().filter(|p| p.category != 0) {
            coded[usize::from(product.kind)] += product.views * scale;
        }
        // Of each kind as many with a code as November's growth, the same for all, allows.
        let room = |growth: f64| facts.october.iter().zip(&coded).map(move |(k, coded)| k.views.min(coded * growth));
        let wanted = to_f64(OCTOBER.views) * (1.0 - OCTOBER.empty_code);
        let (mut low, mut high) = (0.5, 3.0);
        for _ in 0..40 {
            let middle = f64::midpoint(low, high);
            if room(middle).sum::<f64>() < wanted { low = middle } else { high = middle }
        }
        let mut left: Vec<f64> = facts.october.iter().zip(room(high)).map(|(kind, coded)| kind.views - coded).collect();
        let mut uncoded: Vec<&mut Product> = self.products.iter_mut().filter(|p| p.category == 0).collect();
        uncoded.sort_by(|a, b| b.views.total_cmp(&a.views).then(a.id.cmp(&b.id)));
        for product in uncoded {
            let roomiest = (0..left.len()).max_by(|a, b| left[*a].total_cmp(&left[*b])).unwrap_or_default();
            left[roomiest] -= product.views * scale;
            product.kind = u16::try_from(roomiest).unwrap_or_default();
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of products")]
fn ranks(count: f64) -> std::ops::Range<usize> {
    0..count as usize
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the bounds")]
fn cents(price: f64) -> u32 {
    (price * 100.0).round().clamp(10.0, f64::from(MAX_PRICE_CENTS)) as u32
}

/// Shares a cell's events among its products: by rank, but where a product's are known.
#[allow(clippy::cast_precision_loss, reason = "ranks")]
fn share(products: &mut [Product], cell: &Cell, facts: &Facts) {
    let top = facts.bought_products.first().map_or(1.0, |(_, n)| *n);
    let known = |p: &Product| facts.bought_products.iter().find(|(id, _)| *id == p.id).map(|(_, n)| *n);
    let (mut views, mut purchases) = (cell.views, cell.purchases);
    let mut weights = 0.0;
    for (rank, product) in products.iter_mut().enumerate() {
        match known(product) {
            Some(bought) => {
                product.purchases = bought;
                product.views = to_f64(NOVEMBER.views) * TOP_PRODUCT * (bought / top).powf(0.7);
                views -= product.views;
                purchases -= bought;
            }
            None => weights += (rank as f64 + OFFSET).powf(-EXPONENT),
        }
    }
    for (rank, product) in products.iter_mut().enumerate() {
        if known(product).is_none() {
            let weight = (rank as f64 + OFFSET).powf(-EXPONENT) / weights;
            product.views = views.max(0.0) * weight;
            product.purchases = purchases.max(0.0) * weight;
        }
        product.carts = if cell.purchases > 0.0 { cell.carts * product.purchases / cell.purchases } else { 0.0 };
    }
}

/// All category ids, and those of each category: the sample's, and as many more as November has.
fn category_ids(facts: &Facts, sample: &Sample) -> (Vec<u64>, Vec<Vec<u16>>) {
    let mut ids: Vec<u64> = Vec::new();
    let mut of: Vec<Vec<u16>> = vec![Vec::new(); facts.categories.len()];
    let row: HashMap<&str, usize> = facts.categories.iter().enumerate().map(|(i, c)| (c.code, i)).collect();
    let add = |ids: &mut Vec<u64>, of: &mut Vec<u16>, id: u64| {
        if !ids.contains(&id) {
            of.push(u16::try_from(ids.len()).unwrap_or_default());
            ids.push(id);
        }
    };
    for example in &sample.products {
        let row = row.get(example.code.as_str()).copied().unwrap_or_default();
        add(&mut ids, &mut of[row], example.category_id);
    }
    let mut made = 2_053_013_560_000_000_000;
    let mut new = || {
        made += 7_919_311_003;
        made
    };
    for row in &mut of {
        if row.is_empty() {
            add(&mut ids, row, new());
        }
    }
    while to_f64(ids.len() as u64) < to_f64(NOVEMBER.category_ids) {
        add(&mut ids, &mut of[0], new());
    }
    (ids, of)
}

type Prices<K> = HashMap<K, Vec<f64>>;

/// The sample's prices over zero, each as often as it occurs, sorted: by category, and by brand there.
fn prices(sample: &Sample) -> (Prices<&str>, Prices<(&str, &str)>) {
    let (mut by_category, mut by_cell): (Prices<&str>, Prices<(&str, &str)>) = Default::default();
    for p in sample.products.iter().filter(|p| p.cents > 0) {
        let rows = std::iter::repeat_n(f64::from(p.cents) / 100.0, p.rows as usize);
        by_category.entry(&p.code).or_default().extend(rows.clone());
        by_cell.entry((&p.code, &p.brand)).or_default().extend(rows);
    }
    by_category.values_mut().chain(by_cell.values_mut()).for_each(|prices| prices.sort_by(f64::total_cmp));
    (by_category, by_cell)
}

/// The standard deviation of the logarithms.
fn spread(prices: &[f64]) -> f64 {
    let n = to_f64(prices.len() as u64);
    let mean = prices.iter().map(|p| p.ln()).sum::<f64>() / n;
    (prices.iter().map(|p| (p.ln() - mean).powi(2)).sum::<f64>() / n).sqrt()
}

/// By what the drawn prices are multiplied for the weighted median of all to be as wanted.
fn factor_for_median(prices: &[f64], drawn: &[usize], weight: impl Fn(usize) -> f64, wanted: f64) -> f64 {
    let mut scaled = vec![false; prices.len()];
    drawn.iter().for_each(|k| scaled[*k] = true);
    let all: f64 = (0..prices.len()).map(&weight).sum();
    let below = |factor: f64| -> f64 {
        let price = |k: usize| if scaled[k] { prices[k] * factor } else { prices[k] };
        (0..prices.len()).filter(|k| price(*k) < wanted).map(&weight).sum()
    };
    let (mut low, mut high) = (0.2_f64, 5.0_f64);
    for _ in 0..30 {
        let middle = (low * high).sqrt();
        if below(middle) > all / 2.0 { low = middle } else { high = middle }
    }
    high
}
