//! How sessions go: how long they are, how long their pauses, what becomes of them. Pure: draws from
//! the generator that is passed in.
use rand::RngExt;
use rand_distr::weighted::WeightedAliasIndex;
use rand_distr::{Distribution, Geometric};
use rand_xoshiro::SplitMix64;

use super::facts::LENGTHS;

/// Within each range of November's lengths: the ratio of a length's share to that of the one before.
/// With these its quantiles, its mean and the median of the sessions' seconds come out as they were.
const SHRINKS: [f64; 5] = [0.80, 0.85, 0.935, 0.93, 0.0];
/// From here on lengths fall as a power.
const TAIL_FROM: u32 = 51;
const TAIL_EXPONENT: f64 = 1.80;
const LONGEST: u32 = 34_570;

/// Pauses between a session's events in the sample, in seconds: up to this share, up to so many.
/// (The median is 33 with the copies, which have none.)
const PAUSES: [(f64, f64); 19] = [
    (0.0, 1.0),
    (0.01, 3.0),
    (0.02, 5.0),
    (0.05, 7.0),
    (0.10, 10.0),
    (0.15, 13.0),
    (0.25, 18.0),
    (0.35, 23.0),
    (0.50, 34.0),
    (0.65, 47.0),
    (0.75, 62.0),
    (0.85, 88.0),
    (0.90, 115.0),
    (0.95, 170.0),
    (0.98, 277.0),
    (0.99, 377.0),
    (0.995, 530.0),
    (0.999, 979.0),
    (1.0, 3_600.0),
];
const PAUSE_STEPS: usize = 1 << 12;

/// Looks at the focus again, once more with this chance each time.
const FOCUS_AGAIN: f64 = 0.45;

/// The greatest chance of a cart, a purchase once more.
pub(super) const MOST_AGAIN: f64 = 0.98;

/// What becomes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Browse,
    Cart,
    /// A cart, then a purchase.
    Buy,
    /// A purchase without a cart.
    Direct,
}

/// How many events of each kind, in this order. All but the views before, between and after are of
/// one product, the focus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) before: u32,
    pub(super) focus: u32,
    pub(super) carts: u32,
    pub(super) between: u32,
    pub(super) purchases: u32,
    pub(super) after: u32,
}

impl Script {
    pub(super) fn others(&self) -> u32 {
        self.before + self.between + self.after
    }
}

pub(super) struct Lengths {
    /// The shares of 1, 2, … and at last of all that are longer.
    shares: Vec<f64>,
    table: WeightedAliasIndex<f64>,
}

impl Lengths {
    /// As in November, bent so that their mean is this.
    pub(super) fn with_mean(mean: f64) -> Self {
        let natural = natural_shares();
        let tail = (f64::from(TAIL_FROM) - 0.5) * TAIL_EXPONENT / (TAIL_EXPONENT - 1.0);
        let bent = |by: f64| -> Vec<f64> {
            let shares: Vec<f64> = (1..).zip(&natural).map(|(n, share)| share * f64::from(n).powf(by)).collect();
            let all: f64 = shares.iter().sum();
            shares.into_iter().map(|share| share / all).collect()
        };
        let mean_of = |shares: &[f64]| -> f64 {
            (1..).zip(shares).map(|(n, share)| if n < TAIL_FROM { f64::from(n) } else { tail } * share).sum()
        };
        let (mut low, mut high) = (-2.0, 2.0);
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if mean_of(&bent(middle)) < mean { low = middle } else { high = middle }
        }
        let shares = bent(high);
        let table = table(&shares);
        Self { shares, table }
    }

    pub(super) fn draw(&self, rng: &mut impl rand::Rng) -> u32 {
        let n = u32::try_from(self.table.sample(rng)).unwrap_or_default() + 1;
        if n < TAIL_FROM { n } else { tail_length(rng.random()) }
    }

    /// The mean of what a length gives, over all lengths up to 50 and one for those above.
    pub(super) fn mean(&self, of: impl Fn(u32) -> f64) -> f64 {
        (1..).zip(&self.shares).map(|(n, share)| share * of(n)).sum()
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the bounds")]
fn tail_length(u: f64) -> u32 {
    let length = (f64::from(TAIL_FROM) - 0.5) * (1.0 - u).powf(-1.0 / TAIL_EXPONENT);
    length.round().min(f64::from(LONGEST)) as u32
}

fn natural_shares() -> Vec<f64> {
    let mut shares = Vec::new();
    for ((from, to, share), shrink) in LENGTHS.into_iter().zip([0.0].into_iter().chain(SHRINKS)) {
        if to == u32::MAX {
            shares.push(share);
            break;
        }
        let weights: Vec<f64> = (0..=to - from).map(|i| shrink.powf(f64::from(i))).collect();
        let all: f64 = weights.iter().sum();
        shares.extend(weights.iter().map(|weight| share * weight / all));
    }
    shares
}

/// A table of weights; those that are none or less are never drawn.
pub(super) fn table(weights: &[f64]) -> WeightedAliasIndex<f64> {
    let weights: Vec<f64> = weights.iter().map(|w| w.max(0.0)).collect();
    let uniform = vec![1.0; weights.len().max(1)];
    // Fails where all are zero: then each is as good.
    WeightedAliasIndex::new(weights).or_else(|_| WeightedAliasIndex::new(uniform)).unwrap_or_else(|_| unreachable!())
}

/// The pauses' distribution, as a table of its inverse.
pub(super) struct Pauses(Vec<u32>);

impl Pauses {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds")]
    pub(super) fn new() -> Self {
        let seconds = |share: f64| {
            let i = PAUSES.iter().position(|(up_to, _)| share <= *up_to).unwrap_or(PAUSES.len() - 1).max(1);
            let ((p0, s0), (p1, s1)) = (PAUSES[i - 1], PAUSES[i]);
            let within = (share - p0) / (p1 - p0);
            (s0.ln() + within * (s1 / s0).ln()).exp()
        };
        let steps = PAUSE_STEPS as f64;
        Self((0..PAUSE_STEPS).map(|i| seconds((i as f64 + 0.5) / steps).round().max(1.0) as u32).collect())
    }

    #[allow(clippy::cast_possible_truncation, reason = "12 bits")]
    pub(super) fn draw(&self, rng: &mut impl rand::Rng) -> u32 {
        self.0[(rng.next_u64() >> 52) as usize]
    }
}

/// How often sessions of a length come to each fate, and with how many carts and purchases.
pub(super) struct Fates {
    /// Of all sessions: with a cart; with a cart and a purchase; with a purchase only.
    pub(super) carted: f64,
    pub(super) bought: f64,
    pub(super) direct: f64,
    mean_two: f64,
    mean_three: f64,
    /// By unit.
    cart_again: Vec<f64>,
    buy_again: f64,
}

impl Fates {
    /// From the shares of sessions; by unit the carts of a session that has any, and the share of such
    /// that buy; and the purchases of a session that has any.
    pub(super) fn new(
        lengths: &Lengths,
        [carted, bought, direct]: [f64; 3],
        carts: &[(f64, f64)],
        purchases: f64,
    ) -> Self {
        let (mean_two, mean_three) = (lengths.mean(|n| readiness(n, 2)), lengths.mean(|n| readiness(n, 3)));
        // Once more, and once more …, as long as there is room.
        let again = |q: f64, room: u32| q * (1.0 - q.powf(f64::from(room))) / (1.0 - q);
        let solve = |wanted: f64, mean: &dyn Fn(f64) -> f64| {
            let (mut low, mut high) = (0.0, MOST_AGAIN);
            for _ in 0..50 {
                let middle = f64::midpoint(low, high);
                if mean(middle) < wanted { low = middle } else { high = middle }
            }
            high
        };
        let buy = |q: f64| lengths.mean(|n| readiness(n, 3) / mean_three * again(q, n.saturating_sub(3)));
        let cart = |q: f64| lengths.mean(|n| readiness(n, 2) / mean_two * again(q, n.saturating_sub(2)));
        let of_unit =
            |(carts, bought): &(f64, f64)| solve(carts - 1.0, &|q| bought * buy(q) + (1.0 - bought) * cart(q));
        let cart_again = carts.iter().map(of_unit).collect();
        Self { carted, bought, direct, mean_two, mean_three, cart_again, buy_again: solve(purchases - 1.0, &buy) }
    }

    /// The chance of a cart once more in a session about a product of a unit.
    pub(super) fn cart_again(&self, unit: u16) -> f64 {
        self.cart_again[usize::from(unit)]
    }

    /// `odds` are those of a cart and of a purchase at the session's time.
    pub(super) fn draw(&self, length: u32, odds: (f64, f64), rng: &mut SplitMix64) -> Fate {
        let mut u: f64 = rng.random();
        for fate in [Fate::Buy, Fate::Direct, Fate::Cart] {
            u -= self.chance(fate, length, odds);
            if u < 0.0 {
                return fate;
            }
        }
        Fate::Browse
    }

    pub(super) fn chance(&self, fate: Fate, length: u32, (cart, purchase): (f64, f64)) -> f64 {
        let (two, three) = (readiness(length, 2) / self.mean_two, readiness(length, 3) / self.mean_three);
        match fate {
            Fate::Buy => self.bought * three * purchase,
            Fate::Direct => self.direct * two * purchase,
            // Where more is bought than carted at other times, no more is.
            Fate::Cart => ((self.carted - self.bought) * two * cart + self.bought * three * (cart - purchase)).max(0.0),
            Fate::Browse => 1.0,
        }
    }

    /// `cart_again` is the chance of a cart once more.
    pub(super) fn script(
        &self,
        fate: Fate,
        length: u32,
        unseen: bool,
        cart_again: f64,
        rng: &mut SplitMix64,
    ) -> Script {
        let (carts, purchases) = match fate {
            Fate::Browse => return Script { before: length, ..Script::default() },
            Fate::Cart => (1 + again(cart_again, length - 2, rng), 0),
            Fate::Direct => (0, 1 + again(self.buy_again, length - 2, rng)),
            Fate::Buy => {
                let purchases = 1 + again(self.buy_again, length - 3, rng);
                (1 + again(cart_again, length - 2 - purchases, rng), purchases)
            }
        };
        let views = length - carts - purchases;
        if unseen {
            // The product was seen in an earlier session; what is looked at here is something else.
            return Script { before: views, focus: 0, carts, between: 0, purchases, after: 0 };
        }
        let focus = 1 + again(FOCUS_AGAIN, views - 1, rng);
        let others = views - focus;
        let before = rng.random_range(0..=others);
        let between = if purchases > 0 && carts > 0 { rng.random_range(0..=others - before) / 2 } else { 0 };
        Script { before, focus, carts, between, purchases, after: others - before - between }
    }
}

/// How ready to buy a session of a length is, against others; none if it has not so many events.
fn readiness(length: u32, least: u32) -> f64 {
    // Longer ones are crawlers' for the most part.
    if length < least || length > 100 { 0.0 } else { (f64::from(length) * 0.22 + 0.5).min(2.4) }
}

/// A geometric draw that stops at `room`.
fn again(chance: f64, room: u32, rng: &mut SplitMix64) -> u32 {
    let drawn = Geometric::new(1.0 - chance).map_or(0, |distribution| distribution.sample(rng));
    u32::try_from(drawn).unwrap_or(u32::MAX).min(room)
}

/// Users by how often they come: a draw's rank among `users`.
pub(super) struct Users {
    users: f64,
}

impl Users {
    /// The heaviest has thousands of sessions.
    const EXPONENT: f64 = 2.2;

    /// So many that `distinct` of them come in `sessions` sessions.
    pub(super) fn new(distinct: f64, sessions: f64) -> Self {
        const STEPS: u32 = 2_000;
        let seen = |users: f64| -> f64 {
            let share = |i: u32| ((f64::from(i) + 0.5) / f64::from(STEPS)).powi(3);
            let width = |i: u32| 3.0 * ((f64::from(i) + 0.5) / f64::from(STEPS)).powi(2) / f64::from(STEPS);
            let rate = |y: f64| sessions / users / Self::EXPONENT * y.powf(1.0 / Self::EXPONENT - 1.0);
            (0..STEPS).map(|i| users * width(i) * (1.0 - (-rate(share(i))).exp())).sum()
        };
        let (mut low, mut high) = (1.0, distinct * 50.0 + 1.0);
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if seen(middle) < distinct { low = middle } else { high = middle }
        }
        Self { users: high }
    }

    /// A nine-digit id (ten from 88 million users on).
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank among the users")]
    pub(super) fn draw(&self, rng: &mut impl rand::Rng) -> u32 {
        let rank = (self.users * rng.random::<f64>().powf(Self::EXPONENT)) as u32;
        // An odd factor modulo a power of two gives each rank an id of its own, in no order.
        let bits = 26.max(u32::BITS - (self.users as u32).leading_zeros()).min(31);
        512_000_000 + (rank.wrapping_mul(0x9E37_79B1) & ((1 << bits) - 1))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::super::facts::to_f64;
    use super::*;

    const DRAWS: u32 = 200_000;

    #[test]
    fn lengths_are_novembers() {
        let lengths = Lengths::with_mean(67_501_979.0 / 13_776_050.0);
        let mut rng = SplitMix64::seed_from_u64(1);
        let drawn: Vec<u32> = (0..DRAWS).map(|_| lengths.draw(&mut rng)).collect();
        for (from, to, share) in LENGTHS {
            let n = drawn.iter().filter(|n| (from..=to).contains(n)).count();
            let got = to_f64(n as u64) / f64::from(DRAWS);
            assert!(
                (got - share).abs() < 0.03 * share + 3.0 * (share / f64::from(DRAWS)).sqrt(),
                "{from}..{to}: {got}"
            );
        }
        let mut sorted = drawn;
        sorted.sort_unstable();
        let at = |percent: usize| sorted[sorted.len() * percent / 100];
        assert_eq!((at(50), at(90)), (2, 11));
        assert!((34..=38).contains(&at(99)), "{}", at(99));
    }

    #[test]
    fn scripts_have_as_many_events_as_the_session() {
        let lengths = Lengths::with_mean(4.9);
        let fates = Fates::new(&lengths, [0.1266, 0.0562, 0.004], &[(1.737, 0.4435)], 1.107);
        let mut rng = SplitMix64::seed_from_u64(2);
        for fate in [Fate::Browse, Fate::Cart, Fate::Buy, Fate::Direct] {
            for length in 3..80 {
                for unseen in [false, true] {
                    let s = fates.script(fate, length, unseen, fates.cart_again(0), &mut rng);
                    assert_eq!(s.others() + s.focus + s.carts + s.purchases, length, "{fate:?} {s:?}");
                    assert_eq!(
                        (s.carts > 0, s.purchases > 0),
                        match fate {
                            Fate::Browse => (false, false),
                            Fate::Cart => (true, false),
                            Fate::Buy => (true, true),
                            Fate::Direct => (false, true),
                        }
                    );
                }
            }
        }
    }

    #[test]
    fn users_come_more_than_once() {
        let users = Users::new(26_830.0, 100_000.0);
        let mut rng = SplitMix64::seed_from_u64(3);
        let distinct: std::collections::HashSet<u32> = (0..100_000).map(|_| users.draw(&mut rng)).collect();
        assert!((to_f64(distinct.len() as u64) / 26_830.0 - 1.0).abs() < 0.02, "{}", distinct.len());
    }
}
