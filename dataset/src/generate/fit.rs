//! From the counts of categories and of brands to those of each pair of them, a cell: iterative
//! proportional fitting, begun from what the real sample shows of who sells what. Pure.
use std::collections::{BTreeMap, HashMap};

use super::facts::{Facts, NOVEMBER, to_f64};
use super::sample::Sample;

pub(super) const PHONES: &str = "electronics.smartphone";
/// Brands that share one column: each has fewer events than any that is counted by itself.
const OTHERS: &str = "\0others";

/// Enough for margins within a thousandth.
const ROUNDS: usize = 80;
/// No category sells more than this share of what is not a view.
const BOUGHT_AT_MOST: f64 = 0.45;
/// Purchases a view where nothing is known.
const BOUGHT_OF_VIEWS: f64 = 0.011;
/// How readily a brand that the sample has in one category is taken to be in another: of the same
/// department; in none.
const KINDRED: f64 = 0.3;
const UNCODED: f64 = 0.5;
/// A smaller cell is none.
const LEAST_EVENTS: f64 = 8.0;

/// One brand in one category: November's events.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    /// Of `Facts::categories`.
    pub(super) category: usize,
    pub(super) brand: String,
    pub(super) views: f64,
    pub(super) carts: f64,
    pub(super) purchases: f64,
}

impl Cell {
    pub(super) fn events(&self) -> f64 {
        self.views + self.carts + self.purchases
    }
}

/// All cells. Their sums are the tables' counts.
pub(super) fn cells(facts: &Facts, sample: &Sample) -> Vec<Cell> {
    let phone_row = facts.categories.iter().position(|c| c.code == PHONES).unwrap_or_default();
    let bought = purchases_by_category(facts, phone_row);
    let phones = phone_cells(facts, phone_row, bought[phone_row]);
    let brands = brand_margins(facts);
    let column: HashMap<&str, usize> = brands.iter().enumerate().map(|(i, (name, _))| (*name, i)).collect();
    let others = column[OTHERS];

    // Events of each cell but the phones'.
    let mut columns: Vec<f64> = brands.iter().map(|(_, events)| *events).collect();
    for cell in &phones {
        let of = column.get(cell.brand.as_str()).copied().unwrap_or(others);
        columns[of] = (columns[of] - cell.events()).max(1.0);
    }
    let mut rows: Vec<f64> = facts.categories.iter().map(|c| c.events).collect();
    rows[phone_row] = 0.0;
    let mut events = Matrix::new(rows.len(), columns.len());
    seed(&mut events, facts, sample, &column, phone_row);
    events.fit(&rows, &columns.iter().map(|n| Some(*n)).collect::<Vec<_>>());

    // Purchases: as events, by what the category sells; where a brand's are known, as many.
    let mut rows = bought.clone();
    rows[phone_row] = 0.0;
    let mut columns: Vec<Option<f64>> = vec![None; brands.len()];
    for (brand, n) in &facts.bought_brands {
        let phones = facts.phones.get(brand).map_or(0.0, |p| p.purchases);
        columns[column[brand]] = Some((n - phones).max(0.0));
    }
    let mut purchases = Matrix::new(rows.len(), brands.len());
    for (row, category) in facts.categories.iter().enumerate() {
        for c in 0..brands.len() {
            *purchases.at(row, c) = *events.at(row, c) * bought[row] / category.events;
        }
    }
    purchases.fit(&rows, &columns);

    let mut cells = phones;
    let mut shared = Vec::new();
    for (row, category) in facts.categories.iter().enumerate() {
        let carts_a_purchase = (category.events - category.views - bought[row]).max(0.0) / bought[row].max(1e-9);
        for (c, (brand, _)) in brands.iter().enumerate() {
            let (all, purchases) = (*events.at(row, c), *purchases.at(row, c));
            let carts = (purchases * carts_a_purchase).min(all * BOUGHT_AT_MOST);
            let views = (all - carts - purchases).max(all * (1.0 - 2.0 * BOUGHT_AT_MOST));
            let cell = Cell { category: row, brand: (*brand).to_owned(), views, carts, purchases };
            match c == others {
                true => shared.push(cell),
                false if all >= LEAST_EVENTS => cells.push(cell),
                false => {}
            }
        }
    }
    let known: Vec<String> = cells.iter().map(|cell| cell.brand.clone()).collect();
    cells.extend(share_out(&shared, sample, &known));
    keep_sums(&mut cells, facts);
    cells
}

/// What the cells that are too small held goes to the others of their category.
fn keep_sums(cells: &mut [Cell], facts: &Facts) {
    let mut sums = vec![0.0; facts.categories.len()];
    for cell in cells.iter() {
        sums[cell.category] += cell.events();
    }
    for cell in cells.iter_mut() {
        let scale = facts.categories[cell.category].events / sums[cell.category];
        cell.views *= scale;
        cell.carts *= scale;
        cell.purchases *= scale;
    }
}

/// The brands with their events: those without one, those counted, and all others.
fn brand_margins(facts: &Facts) -> Vec<(&'static str, f64)> {
    let mut brands = vec![("", NOVEMBER.empty_brand * to_f64(NOVEMBER.rows))];
    brands.extend(&facts.brands);
    let others = to_f64(NOVEMBER.rows) - brands.iter().map(|(_, n)| n).sum::<f64>();
    brands.push((OTHERS, others));
    brands
}

/// Purchases by category: the phones' are known; the others' as October's of the same sub-category
/// against its views, scaled to the whole.
fn purchases_by_category(facts: &Facts, phone_row: usize) -> Vec<f64> {
    let rates: HashMap<&str, f64> = facts
        .october
        .iter()
        .filter(|kind| kind.views > 0.0)
        .map(|kind| (kind.name, kind.purchases / kind.views))
        .collect();
    let mut bought: Vec<f64> = facts
        .categories
        .iter()
        .map(|c| {
            let rate = c.code.split('.').nth(1).and_then(|sub| rates.get(sub)).copied().unwrap_or(BOUGHT_OF_VIEWS);
            c.views * rate
        })
        .collect();
    let phones: f64 = facts.phones.values().map(|p| p.purchases).sum();
    for _ in 0..ROUNDS {
        bought[phone_row] = 0.0;
        let scale = (to_f64(NOVEMBER.purchases) - phones) / bought.iter().sum::<f64>();
        for (n, c) in bought.iter_mut().zip(&facts.categories) {
            *n = (*n * scale).min((c.events - c.views) * BOUGHT_AT_MOST);
        }
    }
    bought[phone_row] = phones;
    bought
}

/// Views and purchases are known by brand; carts are shared by how many of them end in a purchase.
fn phone_cells(facts: &Facts, phone_row: usize, bought: f64) -> Vec<Cell> {
    const BOUGHT_OF_CARTED: [(&str, f64); 4] = [("samsung", 48.5), ("apple", 44.4), ("xiaomi", 36.9), ("huawei", 46.8)];
    let phones = &facts.categories[phone_row];
    let carts = phones.events - phones.views - bought;
    let share = |brand: &str, purchases: f64| {
        purchases / BOUGHT_OF_CARTED.iter().find(|(name, _)| *name == brand).map_or(40.0, |(_, rate)| *rate)
    };
    let all: f64 = facts.phones.iter().map(|(brand, p)| share(brand, p.purchases)).sum();
    let cell = |(brand, p): (&&str, &super::facts::Phones)| Cell {
        category: phone_row,
        brand: (*brand).to_owned(),
        views: p.views,
        carts: carts * share(brand, p.purchases) / all,
        purchases: p.purchases,
    };
    facts.phones.iter().map(cell).collect()
}

/// What the sample shows, and what it lets one expect.
fn seed(matrix: &mut Matrix, facts: &Facts, sample: &Sample, column: &HashMap<&str, usize>, phone_row: usize) {
    let row: HashMap<&str, usize> = facts.categories.iter().enumerate().map(|(i, c)| (c.code, i)).collect();
    let mut seen: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    let mut departments: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for product in &sample.products {
        let (Some(&r), Some(&c)) = (row.get(product.code.as_str()), column.get(product.brand.as_str())) else {
            continue;
        };
        *seen.entry((r, c)).or_default() += f64::from(product.rows);
        departments.entry(c).or_default().push(department(facts.categories[r].code));
    }
    let coded: f64 = facts.categories[1..].iter().map(|c| c.events).sum();
    for (name, &c) in column {
        // Without a brand, and the many small ones: everywhere.
        let everywhere = ["", OTHERS].contains(name);
        let unseen = (!departments.contains_key(&c)).then(|| drawn_category(facts, name));
        for (r, category) in facts.categories.iter().enumerate().filter(|(r, _)| *r != phone_row) {
            let kin = departments
                .get(&c)
                .is_some_and(|of| !category.code.is_empty() && of.contains(&department(category.code)));
            let expected = match () {
                () if everywhere => 20.0 * category.events / coded,
                () if r == 0 => UNCODED,
                () if kin => KINDRED * category.events / coded * 20.0,
                () if unseen == Some(r) => 1.0,
                () => 0.0,
            };
            *matrix.at(r, c) = seen.get(&(r, c)).copied().unwrap_or_default() + expected;
        }
    }
}

pub(super) fn department(code: &str) -> &str {
    code.split('.').next().unwrap_or_default()
}

/// A category for a brand that the sample does not have: by its name, the greater the likelier.
fn drawn_category(facts: &Facts, brand: &str) -> usize {
    let coded = &facts.categories[1..];
    let weight = |c: &super::facts::Category| if c.code == PHONES { 0.0 } else { c.events.sqrt() };
    let all: f64 = coded.iter().map(weight).sum();
    let hash = brand.bytes().fold(7_u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b)));
    let mut left = f64::from(hash.wrapping_mul(2_654_435_769)) / f64::from(u32::MAX) * all;
    for (i, category) in coded.iter().enumerate() {
        left -= weight(category);
        if left <= 0.0 {
            return i + 1;
        }
    }
    1
}

/// The small brands take the place of the column that stood for all of them: each in one category.
fn share_out(cells: &[Cell], sample: &Sample, known: &[String]) -> Vec<Cell> {
    let known: std::collections::HashSet<&str> = known.iter().map(String::as_str).collect();
    let count = usize::try_from(NOVEMBER.brands).unwrap_or_default().saturating_sub(known.len() - 1);
    let mut names: Vec<String> = sample.brands().filter(|name| !known.contains(name)).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names.extend((names.len()..count).map(|i| format!("brand{i:04}")));
    names.truncate(count);
    let all: f64 = cells.iter().map(Cell::events).sum();
    let weights = falling(count, all, 5_252.0, to_f64(712));
    let mut left: Vec<f64> = cells.iter().map(Cell::events).collect();
    let mut shares: Vec<Vec<(String, f64)>> = vec![Vec::new(); cells.len()];
    for (name, weight) in names.into_iter().zip(weights) {
        let roomiest = (0..left.len()).max_by(|a, b| left[*a].total_cmp(&left[*b])).unwrap_or_default();
        left[roomiest] -= weight;
        shares[roomiest].push((name, weight));
    }
    let mut out = Vec::new();
    for (cell, brands) in cells.iter().zip(shares) {
        let sum: f64 = brands.iter().map(|(_, weight)| weight).sum();
        for (brand, weight) in brands {
            let part = |n: f64| n * weight / sum;
            out.push(Cell {
                category: cell.category,
                brand,
                views: part(cell.views),
                carts: part(cell.carts),
                purchases: part(cell.purchases),
            });
        }
    }
    out
}

/// `count` numbers that fall as a power of their rank, from `first` at rank `rank`, and sum up to `sum`.
#[allow(clippy::cast_precision_loss, reason = "a few thousand ranks")]
fn falling(count: usize, sum: f64, first: f64, rank: f64) -> Vec<f64> {
    let numbers = |exponent: f64| (1..=count).map(move |i| first * ((rank + i as f64) / rank).powf(-exponent));
    let (mut low, mut high) = (0.0, 20.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if numbers(middle).sum::<f64>() > sum { low = middle } else { high = middle }
    }
    numbers(high).collect()
}

struct Matrix {
    cells: Vec<f64>,
    columns: usize,
}

impl Matrix {
    fn new(rows: usize, columns: usize) -> Self {
        Self { cells: vec![0.0; rows * columns], columns }
    }

    fn at(&mut self, row: usize, column: usize) -> &mut f64 {
        &mut self.cells[row * self.columns + column]
    }

    /// Scales rows and columns in turn until their sums are those. The columns without a sum share
    /// what the others leave.
    fn fit(&mut self, rows: &[f64], columns: &[Option<f64>]) {
        let rest = rows.iter().sum::<f64>() - columns.iter().flatten().sum::<f64>();
        for _ in 0..ROUNDS {
            let mut sums = vec![0.0; self.columns];
            for line in self.cells.chunks(self.columns) {
                for (sum, cell) in sums.iter_mut().zip(line) {
                    *sum += cell;
                }
            }
            let free: f64 = sums.iter().zip(columns).filter(|(_, c)| c.is_none()).map(|(sum, _)| sum).sum();
            let ratio = |wanted: f64, sum: f64| if sum > 0.0 { wanted / sum } else { 0.0 };
            let factors: Vec<f64> = sums
                .iter()
                .zip(columns)
                .map(|(sum, c)| c.map_or_else(|| ratio(rest, free), |c| ratio(c, *sum)))
                .collect();
            for (line, wanted) in self.cells.chunks_mut(self.columns).zip(rows) {
                for (cell, factor) in line.iter_mut().zip(&factors) {
                    *cell *= factor;
                }
                let scale = ratio(*wanted, line.iter().sum());
                line.iter_mut().for_each(|cell| *cell *= scale);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cells_sum_up_to_the_tables() {
        let facts = Facts::load();
        let cells = cells(&facts, &Sample::load());
        let near = |what: &str, got: f64, wanted: f64, within: f64| {
            assert!((got / wanted - 1.0).abs() < within, "{what}: {got} for {wanted}");
        };
        let sum = |of: &dyn Fn(&Cell) -> f64| cells.iter().map(of).sum::<f64>();
        near("views", sum(&|c| c.views), 63_556_110.0, 0.002);
        near("carts", sum(&|c| c.carts), 3_028_930.0, 0.01);
        near("purchases", sum(&|c| c.purchases), 916_939.0, 0.01);
        for (i, category) in facts.categories.iter().enumerate().filter(|(_, c)| c.events > 10_000.0) {
            near(category.code, sum(&|c| if c.category == i { c.events() } else { 0.0 }), category.events, 0.02);
            near(category.code, sum(&|c| if c.category == i { c.views } else { 0.0 }), category.views, 0.02);
        }
        for (brand, events) in &facts.brands {
            near(brand, sum(&|c| if c.brand == *brand { c.events() } else { 0.0 }), *events, 0.02);
        }
        for (brand, bought) in &facts.bought_brands {
            near(brand, sum(&|c| if c.brand == *brand { c.purchases } else { 0.0 }), *bought, 0.02);
        }
        let brands: std::collections::HashSet<_> = cells.iter().map(|c| &c.brand).filter(|b| !b.is_empty()).collect();
        assert_eq!(brands.len() as u64, NOVEMBER.brands);
    }
}
