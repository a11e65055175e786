//! One session as it goes on: which event comes next, and when. It is a pure function of its seed
//! and length, so it can be played again from its beginning.
use rand::{RngExt, SeedableRng};
use rand_xoshiro::SplitMix64;

use super::behaviour::{Fate, Script};
use super::facts::{NOVEMBER, SHARED_SESSIONS, UNSEEN_PURCHASES, to_f64};
use super::model::{KINDRED, Model};

/// A session of more events plays on for as long as it takes; a shorter one is over within `SPAN`.
pub(super) const LONG: u32 = 100;
/// The most seconds between the first and the last event of a session that is not long.
pub(super) const SPAN: u32 = 12 * 3600;
/// Beyond so many events a session is a crawler's, and its pauses so much shorter.
const CRAWLER: u32 = 300;
const HASTE: u32 = 12;
/// The next view is of the same product.
const SAME_PRODUCT: f64 = 0.43;
/// If not, it is of the same category id.
const SAME_CATEGORY: f64 = 0.82;
/// Sessions that come back after hours or days, under the same id.
pub(super) const RETURNING: f64 = 2e-4;
const RETURN_SECONDS: (f64, f64) = (3_600.0, 864_000.0);
/// Unseen purchases are of sessions with few events only.
const UNSEEN_UP_TO: u32 = 6;
const UNSEEN_OF_SHORT: f64 = UNSEEN_PURCHASES * 2.2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    View,
    Cart,
    Purchase,
}

/// A session before its first event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) seed: u64,
    /// The order of sessions: that of their starts.
    pub(super) ordinal: u64,
    pub(super) second: u32,
    pub(super) length: u32,
    pub(super) returns: bool,
}

impl Start {
    /// The first second in which it has surely ended.
    pub(super) fn over(&self, month: u32) -> u32 {
        if self.plays_on() { month } else { self.second + SPAN + 1 }
    }

    pub(super) fn plays_on(&self) -> bool {
        self.length > LONG || self.returns
    }
}

#[derive(Clone, Debug)]
pub(super) struct Session {
    rng: SplitMix64,
    pub(super) ordinal: u64,
    /// What its id is made of; 0 is no id.
    pub(super) id: u64,
    pub(super) user: u32,
    /// From here on another user has it.
    second_user: Option<(u32, u32)>,
    /// Of the next event.
    pub(super) second: u32,
    /// The last second that an event may have.
    until: u32,
    /// Events to come.
    pub(super) left: u32,
    length: u32,
    returns_at: Option<u32>,
    script: Script,
    fate: Fate,
    focus: u32,
    current: u32,
    category: u16,
}

impl Session {
    pub(super) fn begin(start: &Start, model: &Model) -> Self {
        let mut rng = SplitMix64::seed_from_u64(start.seed);
        let id = rng.random::<u64>() | 1;
        let user = model.users.draw(&mut rng);
        let fate = model.fates.draw(start.length, model.calendar.odds(start.second), &mut rng);
        let unseen = start.length <= UNSEEN_UP_TO
            && matches!(fate, Fate::Buy | Fate::Direct)
            && rng.random_bool(UNSEEN_OF_SHORT);
        let focus = model.foci.draw(fate, &mut rng);
        let cart_again = focus.map_or(0.0, |product| model.fates.cart_again(model.unit(product)));
        let script = model.fates.script(fate, start.length, unseen, cart_again, &mut rng);
        let category = match focus {
            Some(product) => model.catalogue.products[product as usize].category_id,
            None => model.views.category(&mut rng),
        };
        let shared = start.length > 1 && rng.random_bool(SHARED_SESSIONS * 1.7);
        let second_user = shared.then(|| (rng.random_range(1..start.length), model.users.draw(&mut rng)));
        // Of sessions with one event, which are four in ten.
        let no_id =
            start.length == 1 && rng.random_bool(to_f64(NOVEMBER.empty_sessions) / to_f64(NOVEMBER.sessions) / 0.406);
        let month = model.calendar.seconds();
        let mut session = Self {
            rng,
            ordinal: start.ordinal,
            id: if no_id { 0 } else { id },
            user,
            second_user,
            second: start.second,
            until: if start.plays_on() { month - 1 } else { start.second + SPAN },
            left: start.length,
            length: start.length,
            returns_at: start.returns.then_some(start.length / 2),
            script,
            fate,
            focus: focus.unwrap_or(u32::MAX),
            current: u32::MAX,
            category,
        };
        session.current = session.another(model);
        session
    }

    /// The event at `second`. Afterwards `second` is that of the next one, if there is any left.
    pub(super) fn step(&mut self, model: &Model) -> (Kind, u32) {
        if let Some((at, user)) = self.second_user
            && self.left == at
        {
            self.user = user;
        }
        let event = self.event(model);
        self.left -= 1;
        // What is left has room before the end.
        if let Some(room) = self.until.saturating_sub(self.second).checked_div(self.left) {
            self.second += self.pause(event.0, model).min(room);
        }
        event
    }

    fn event(&mut self, model: &Model) -> (Kind, u32) {
        let script = &mut self.script;
        if script.before > 0 {
            script.before -= 1;
        } else if script.focus > 0 {
            script.focus -= 1;
            return (Kind::View, self.focus);
        } else if script.carts > 0 {
            script.carts -= 1;
            return (Kind::Cart, self.focus);
        } else if script.between > 0 {
            script.between -= 1;
        } else if script.purchases > 0 {
            script.purchases -= 1;
            // On a day without a purchase no session brings one over from the day before.
            let kind = if model.calendar.odds(self.second).1 > 0.0 { Kind::Purchase } else { Kind::View };
            return (kind, self.focus);
        } else {
            script.after = script.after.saturating_sub(1);
        }
        let shown = self.current;
        if self.left > 1 && !self.rng.random_bool(SAME_PRODUCT) {
            self.current = self.another(model);
        }
        (Kind::View, shown)
    }

    /// A product to look at.
    fn another(&mut self, model: &Model) -> u32 {
        let rng = &mut self.rng;
        let category = if self.fate == Fate::Browse {
            if self.current != u32::MAX && !rng.random_bool(SAME_CATEGORY) {
                self.category = model.views.category(rng);
            }
            self.category
        } else if rng.random_bool(KINDRED) {
            self.category
        } else {
            model.views.category(rng)
        };
        model.views.product(category, rng)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a month")]
    fn pause(&mut self, kind: Kind, model: &Model) -> u32 {
        if self.returns_at == Some(self.left) {
            let (least, most) = RETURN_SECONDS;
            return (least * (most / least).powf(self.rng.random())) as u32;
        }
        let copied = match kind {
            Kind::Cart if self.script.carts > 0 => model.copied[0],
            Kind::Purchase if self.script.purchases > 0 => model.copied[1],
            _ => 0.0,
        };
        if copied > 0.0 && self.rng.random_bool(copied) {
            return 0;
        }
        let pause = model.pauses.draw(&mut self.rng);
        if self.length > CRAWLER { pause / HASTE + 1 } else { pause }
    }

    /// Its last second is another.
    pub(super) fn end_with(&mut self, second: u32) {
        self.until = second;
    }

    /// Plays on silently up to `second`; how many events lay before it.
    pub(super) fn forward(&mut self, second: u32, model: &Model) -> u64 {
        let before = self.left;
        while self.left > 0 && self.second < second {
            self.step(model);
        }
        u64::from(before - self.left)
    }
}
