//! What writers of this process have committed to a partition, for its readers in this process: it is in
//! memory, and need not be fetched. Nobody has it sooner than a broker would give it.
//!
//! A commit returns when it is decided; the marker that makes a transaction readable comes into the log a
//! little later, behind its records. So a transaction is given out once a broker has said that all up to its
//! end is decided, or once the next one of its writer stands behind that marker: a transactional id cannot
//! write again before its markers are there (the coordinator refuses with CONCURRENT_TRANSACTIONS). Where the
//! next one begins two offsets behind the last record of the one before, the offset between is the marker,
//! and nobody else has written there. Any other distance proves nothing, and the records are fetched.
//!
//! No thread, no clock, no client.
use std::collections::VecDeque;

use crate::Batch;

/// Kept of what its readers have not reached, besides the last two transactions.
const KEPT_BYTES: usize = 4 << 20;
/// So many transactions in a row that nobody had to fetch, and nothing is fetched any more.
const IN_STEP: u32 = 2;
/// Records of a transaction, in the partition: fewer cost no more to fetch than to ask whether they are readable.
const RECORDS_MIN: i64 = if cfg!(test) { 4 } else { 1024 };
/// Without a transaction for so long, it is fetched again: others may write now.
const IDLE_STEPS: u32 = 50;
/// Asked so often in vain whether a transaction is readable, it is fetched when it is: one that is open holds it.
const ASKED_MAX: u32 = 25;

pub(super) type WriterId = u64;

/// What a transaction has written to a partition: records at each offset from `first` to before `next`.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) writer: WriterId,
    pub(super) first: i64,
    pub(super) next: i64,
    pub(super) batches: Vec<Batch>,
}

#[derive(Debug, Default)]
pub(super) struct Supply {
    /// In the log's order, one writer's. All but the last are readable.
    transactions: VecDeque<Kept>,
    /// Who wrote the last one, and where it ends.
    last: Option<(WriterId, i64)>,
    /// All before it is decided, as far as is known.
    stable: i64,
    in_step: u32,
    idle_steps: u32,
    asked: u32,
}

#[derive(Debug)]
struct Kept {
    transaction: Transaction,
    /// Between its first record and the last of the transaction before there is the marker of that, and
    /// nothing else.
    follows: bool,
}

impl Transaction {
    fn bytes(&self) -> usize {
        self.batches.iter().map(Batch::bytes).sum()
    }

    pub(super) fn is_large(&self) -> bool {
        self.next - self.first >= RECORDS_MIN
    }
}

impl Supply {
    /// It is committed.
    pub(super) fn add(&mut self, transaction: Transaction) {
        let follows = self.last == Some((transaction.writer, transaction.first - 1));
        if !follows {
            *self = Self::default();
        }
        self.last = Some((transaction.writer, transaction.next));
        self.transactions.push_back(Kept { transaction, follows });
        while self.transactions.len() > 2
            && self.transactions.iter().map(|kept| kept.transaction.bytes()).sum::<usize>() > KEPT_BYTES
        {
            self.transactions.pop_front();
        }
        (self.idle_steps, self.asked) = (0, 0);
    }

    /// Whether to ask up to where all is decided: the last transaction may be readable.
    pub(super) fn is_pending(&self) -> bool {
        self.is_enough() && !self.transactions.is_empty()
    }

    /// A broker says that all before `stable` is decided.
    pub(super) fn decided(&mut self, stable: i64) {
        self.stable = self.stable.max(stable);
        self.asked += 1;
        if self.asked >= ASKED_MAX {
            self.in_step = 0;
        }
    }

    /// The next readable one, for whom nothing is missing before `end`.
    pub(super) fn next(&mut self, end: i64) -> Option<Transaction> {
        while let Some(Kept { transaction, follows }) = self.transactions.front() {
            let (first, next, follows) = (transaction.first, transaction.next, *follows);
            if self.transactions.len() == 1 && next > self.stable {
                return None;
            }
            let has_come = next <= end;
            if !has_come && first > end && !(follows && first == end + 1) {
                return None;
            }
            let taken = self.transactions.pop_front()?.transaction;
            if !has_come {
                return Some(taken);
            }
        }
        None
    }

    /// One was added, and what is readable was given out: counts it, if that was all but the last, or begins
    /// to count anew.
    pub(super) fn count(&mut self, is_large: bool) {
        let is_in_step = self.transactions.len() <= 1 && is_large;
        self.in_step = if is_in_step { self.in_step + 1 } else { 0 };
    }

    /// Whether what is written to the partition comes from here, and is not fetched.
    pub(super) fn is_enough(&self) -> bool {
        self.in_step >= IN_STEP
    }

    /// Some time has passed.
    pub(super) fn step(&mut self) {
        self.idle_steps = self.idle_steps.saturating_add(1);
        if self.idle_steps >= IDLE_STEPS {
            self.in_step = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Offset, Records};

    fn transaction(writer: WriterId, first: i64, records: i64) -> Transaction {
        let mut all = Records::new();
        (0..records).for_each(|_| all.push(1, b"", &[], |_| {}));
        let batches = vec![Batch::contiguous("t".into(), 0, Offset(first), Arc::new(all))];
        Transaction { writer, first, next: first + records, batches }
    }

    fn next(supply: &mut Supply, end: i64) -> Option<i64> {
        supply.next(end).map(|given| given.first)
    }

    #[test]
    fn a_transaction_is_given_out_once_the_next_one_of_its_writer_follows_at_once() {
        let mut supply = Supply::default();
        supply.add(transaction(1, 10, 5));
        assert_eq!(next(&mut supply, 10), None, "its marker may not be there yet");
        supply.decided(14);
        assert_eq!(next(&mut supply, 10), None, "its last record is not decided");
        supply.add(transaction(1, 16, 4));
        assert_eq!(next(&mut supply, 9), None, "what is at 9 is not known");
        assert_eq!(next(&mut supply, 12), Some(10), "the rest of it");
        supply.decided(21);
        assert_eq!(next(&mut supply, 15), Some(16), "at 15 is the marker, and it is decided");
        supply.add(transaction(1, 21, 4));
        for (writer, first, why) in [(1, 27, "a record of another, or a second marker"), (2, 31, "of another writer")] {
            supply.add(transaction(writer, first, 3));
            assert_eq!(next(&mut supply, 20), None, "{why}");
            assert_eq!(next(&mut supply, 27), None, "{why}");
        }
        supply.add(transaction(2, 35, 3));
        assert_eq!(next(&mut supply, 30), None, "what is at 30 is not known");
        supply.add(transaction(2, 39, 3));
        assert_eq!(next(&mut supply, 34), Some(35), "what was fetched meanwhile is passed over");
    }

    #[test]
    fn it_is_enough_while_large_transactions_come_in_step() {
        const MANY: i64 = RECORDS_MIN;
        let mut supply = Supply::default();
        let mut first = 0;
        let mut add = |supply: &mut Supply, records, is_taken: bool| {
            supply.add(transaction(1, first, records));
            while is_taken && supply.next(first - 1).is_some() {}
            supply.count(records >= MANY);
            first += records + 1;
            supply.is_enough()
        };
        assert!(!add(&mut supply, MANY, true) && add(&mut supply, MANY, true) && add(&mut supply, MANY, true));
        (0..IDLE_STEPS).for_each(|_| supply.step());
        assert!(!supply.is_enough(), "after a pause");
        assert!(!add(&mut supply, MANY, true) && add(&mut supply, MANY, true));
        assert!(!add(&mut supply, MANY - 1, true), "few at a time");
        assert!(!add(&mut supply, MANY, true) && add(&mut supply, MANY, true));
        assert!(!add(&mut supply, MANY, false), "its readers are not where it is");
        assert!(add(&mut supply, MANY, true) || add(&mut supply, MANY, true));
        assert!(add(&mut supply, MANY, true) && supply.is_pending());
        (0..ASKED_MAX).for_each(|_| supply.decided(0));
        assert!(!supply.is_enough() && !supply.is_pending(), "it stays open");
    }

    #[test]
    fn what_its_readers_do_not_reach_is_bounded() {
        let mut supply = Supply::default();
        let large = |first| {
            let mut all = Records::new();
            all.push(1, b"", &[], |out| out.resize(1 << 20, 0));
            let batches = vec![Batch::contiguous("t".into(), 0, Offset(first), Arc::new(all))];
            Transaction { writer: 1, first, next: first + 1, batches }
        };
        (0..40).for_each(|i| supply.add(large(10 + 2 * i)));
        assert_eq!(supply.transactions.len(), 4);
        assert_eq!(next(&mut supply, 10), None);
        assert_eq!(next(&mut supply, 82), Some(82));
    }
}
