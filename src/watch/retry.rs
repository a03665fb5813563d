//! When something that failed is tried again: later, and later still each time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::model::Address;

/// Delay before the first further try; doubled each time.
const FIRST: Duration = Duration::from_secs(1);
/// Upper bound of the delay.
const LONGEST: Duration = Duration::from_secs(60);

/// What failed, and when it is due again.
#[derive(Debug, Default)]
pub struct Retries(BTreeMap<Address, Retry>);

#[derive(Debug)]
struct Retry {
    due: Instant,
    delay: Duration,
}

impl Retries {
    /// Whether `address` may be tried at `now`.
    pub fn is_due(&self, address: &Address, now: Instant) -> bool {
        self.0.get(address).is_none_or(|retry| retry.due <= now)
    }

    /// Notes how a round went: what was `tried` and is still `left` to do has failed.
    pub fn remember(&mut self, tried: &BTreeSet<Address>, left: &BTreeSet<Address>, now: Instant) {
        for address in tried {
            if left.contains(address) {
                let last = self.0.get(address).map(|retry| retry.delay);
                let delay = last.map_or(FIRST, |last| (last * 2).min(LONGEST));
                self.0.insert(
                    address.clone(),
                    Retry {
                        due: now + delay,
                        delay,
                    },
                );
            } else {
                self.0.remove(address);
            }
        }
    }

    /// Forgets every failure: the manifest changed.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_bound_and_success_forgets_them() {
        let mut retries = Retries::default();
        let (a, b): (Address, Address) = ("box/a".parse().unwrap(), "box/b".parse().unwrap());
        let both = BTreeSet::from([a.clone(), b.clone()]);
        let now = Instant::now();
        let mut delays = Vec::new();
        for _ in 0..8 {
            retries.remember(&both, &BTreeSet::from([a.clone()]), now);
            delays.push(retries.0[&a].delay.as_secs());
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(!retries.is_due(&a, now + Duration::from_secs(59)));
        assert!(retries.is_due(&a, now + Duration::from_secs(60)));
        assert!(retries.is_due(&b, now));
        retries.remember(&both, &BTreeSet::new(), now);
        assert!(retries.is_due(&a, now));
    }
}
