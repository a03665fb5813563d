//! What a plan deletes, for those who set a bound to it.

use std::collections::BTreeSet;

use super::{Deed, Plan};
use crate::model::{Address, Observed, ServiceAddress};

/// Every sandbox and service that is gone once `plan` is applied to `observed`, with the services
/// that go with their sandbox, whether they run or not.
pub fn deletions(plan: &Plan, observed: &Observed) -> BTreeSet<Address> {
    let mut gone = BTreeSet::new();
    for (address, group) in plan.by_address() {
        if plan.deed(&group) != Deed::Delete {
            continue;
        }
        gone.insert(address.clone());
        if let Address::Sandbox(name) = address {
            let services = observed.known(name).into_iter().flat_map(|it| &it.services);
            gone.extend(services.map(|(service, _)| {
                Address::Service(ServiceAddress::new(name.clone(), service.clone()))
            }));
        }
    }
    gone
}
