//! Which of the clients just answered the next entry waits for. Hot path.
//!
//! A client that sends one command at a time comes back soon after it is answered. Were the next entry made of whoever comes first, all
//! the others would wait for it and then for their own, and three nodes would do the work of an entry for two or three commands. So the
//! chunks of an entry are its *cohort*, and while cohorts come back the next entry waits for them, for a moment (compare PostgreSQL's
//! `commit_delay` and `commit_siblings`).
//!
//! Clients that do not come back in time, because they think, read, write to other groups, or have gone, must not cost the others
//! that moment over and over: one cohort has to have come back unasked before the next is waited for, and each wait in vain puts the
//! following one off for twice as many entries.

/// A wait in vain puts off the next for at most this many entries.
const PENALTY_MAX: u32 = 64;

#[derive(Debug, Default, Clone, Copy)]
struct Cohort {
    seq: u64,
    chunks: u32,
    returned: u32,
}

impl Cohort {
    /// Seven of eight: one client's pause does not hold up sixteen.
    fn is_back(&self) -> bool {
        u64::from(self.returned) * 8 >= u64::from(self.chunks) * 7
    }
}

/// The cohorts of the last two entries.
#[derive(Debug, Default)]
pub struct Cohorts {
    last: Cohort,
    /// Its stragglers come while the last entry is in flight.
    previous: Cohort,
    /// Entries until one is waited for again.
    put_off: u32,
    penalty: u32,
}

impl Cohorts {
    /// A chunk has come whose connection was last answered by entry `follows`.
    pub fn arrived(&mut self, follows: Option<u64>) {
        for cohort in [&mut self.last, &mut self.previous] {
            if follows == Some(cohort.seq) {
                cohort.returned += 1;
            }
        }
    }

    /// Whether the next entry should wait for more of the last one's clients.
    pub fn is_awaited(&self) -> bool {
        self.put_off == 0 && self.previous.chunks > 0 && self.previous.is_back() && !self.last.is_back()
    }

    /// Entry `seq` is being proposed; `in_vain` if it was held back and they did not come in time.
    pub fn proposed(&mut self, seq: u64, chunks: usize, in_vain: bool) {
        if in_vain {
            self.penalty = (self.penalty * 2).clamp(1, PENALTY_MAX);
            self.put_off = self.penalty;
        } else if self.put_off > 0 {
            self.put_off -= 1;
        } else {
            self.penalty /= 2;
        }
        self.previous = self.last;
        self.last = Cohort { seq, chunks: u32::try_from(chunks).unwrap_or(u32::MAX), returned: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(cohorts: &mut Cohorts, seq: u64, chunks: u32) {
        (0..chunks).for_each(|_| cohorts.arrived(Some(seq)));
    }

    #[test]
    fn clients_that_came_back_once_are_waited_for() {
        let mut cohorts = Cohorts::default();
        cohorts.proposed(1, 10, false);
        cohorts.arrived(None);
        assert!(!cohorts.is_awaited(), "nobody has come back yet");
        cohorts.proposed(2, 6, false);
        back(&mut cohorts, 1, 10);
        assert!(cohorts.is_awaited(), "the ten have, so the six are expected");
        back(&mut cohorts, 2, 5);
        assert!(cohorts.is_awaited());
        back(&mut cohorts, 2, 1);
        assert!(!cohorts.is_awaited());
    }

    #[test]
    fn one_of_sixteen_may_be_missing() {
        let mut cohorts = Cohorts::default();
        cohorts.proposed(1, 16, false);
        cohorts.proposed(2, 16, false);
        back(&mut cohorts, 1, 14);
        back(&mut cohorts, 2, 13);
        assert!(cohorts.is_awaited());
        back(&mut cohorts, 2, 1);
        assert!(!cohorts.is_awaited());
    }

    #[test]
    fn clients_that_do_not_come_back_are_waited_for_ever_less_often() {
        let (mut cohorts, mut waits) = (Cohorts::default(), Vec::new());
        for seq in 2..=200 {
            // They come back, but only while the next entry is in flight.
            back(&mut cohorts, seq - 2, 8);
            let in_vain = cohorts.is_awaited();
            if in_vain {
                waits.push(seq);
            }
            cohorts.proposed(seq, 8, in_vain);
        }
        let gaps: Vec<u64> = waits.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps[..6], [2, 3, 5, 9, 17, 33]);
    }

    #[test]
    fn open_loop_clients_are_never_waited_for() {
        let mut cohorts = Cohorts::default();
        for seq in 1..100 {
            // A third comes back soon.
            back(&mut cohorts, seq - 1, 3);
            assert!(!cohorts.is_awaited());
            cohorts.proposed(seq, 9, false);
        }
    }
}
