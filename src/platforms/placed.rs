//! The platforms of one stack together: where each sandbox is, and all of them read at once.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::try_join;

use super::{Act, Attached, Attachment, PlatformError, Result, Upgraded, url};
use crate::model::{
    Desired, DesiredSandbox, Listing, Observed, ObservedSandbox, Reference, SandboxName,
    SandboxSpec, SandboxState, Taken, Url,
};

/// The platforms of one stack, and which sandbox lives on which.
#[derive(Default)]
pub struct Platforms {
    by_name: BTreeMap<String, Box<dyn Act>>,
    placement: BTreeMap<SandboxName, String>,
}

impl Platforms {
    /// Adds a platform under the name that manifests use for it.
    pub fn add(&mut self, name: impl Into<String>, platform: Box<dyn Act>) {
        self.by_name.insert(name.into(), platform);
    }

    /// Reads all platforms, and remembers where everything is and where `desired` wants it.
    ///
    /// A platform that cannot be read makes every sandbox that is wanted there unknown.
    pub async fn observe(&mut self, desired: &Desired) -> Result<Observed> {
        for (sandbox, wanted) in &desired.sandboxes {
            self.placement
                .insert(sandbox.clone(), wanted.spec.platform.clone());
        }
        let names: Vec<&String> = self.by_name.keys().collect();
        let reads = self.by_name.values().map(|platform| platform.observe());
        let listings = futures_util::future::join_all(reads).await;
        let mut observed = Observed::default();
        let mut placement = Vec::new();
        for (name, listing) in names.into_iter().zip(listings) {
            match listing {
                Ok(sandboxes) => {
                    let fixed = self.by_name[name].fixed_fields();
                    for (sandbox, listing) in sandboxes {
                        observed.fixed.insert(sandbox.clone(), fixed.clone());
                        placement.push((sandbox.clone(), name.clone()));
                        observed.sandboxes.insert(sandbox, listing);
                    }
                }
                Err(error) => {
                    let here = desired
                        .sandboxes
                        .iter()
                        .filter(|(_, s)| s.spec.platform == *name);
                    let mut found = here.map(|(sandbox, _)| sandbox.clone()).peekable();
                    if found.peek().is_none() {
                        return Err(error);
                    }
                    for sandbox in found {
                        let reason = error.to_string();
                        observed
                            .sandboxes
                            .insert(sandbox, Listing::Unknown { reason });
                    }
                }
            }
        }
        self.placement.extend(placement);
        let named = desired
            .services()
            .flat_map(|(_, spec)| spec.references.values().cloned());
        observed.urls = self.urls_in(&observed, named.collect()).await;
        self.look_for_what_is_taken(&mut observed, desired).await;
        Ok(observed)
    }

    /// Finds out where somebody else has made a service, or attached a file or a volume, and the sandbox is to get
    /// its own.
    async fn look_for_what_is_taken(&self, observed: &mut Observed, desired: &Desired) {
        let both = desired
            .sandboxes
            .iter()
            .filter_map(|(name, wanted)| Some((name, wanted, observed.known(name)?)));
        let asks = both.map(|(name, wanted, found)| async move {
            let asked = try_join!(
                self.taken_services(name, wanted, found),
                self.taken_files(name, &wanted.spec, &found.spec),
                self.taken_volumes(name, &wanted.spec, &found.spec),
            );
            let taken = asked.map(|(services, files, volumes)| [services, files, volumes].concat());
            (name, taken)
        });
        for (name, taken) in futures_util::future::join_all(asks).await {
            let name = name.clone();
            match taken {
                Ok(taken) if taken.is_empty() => {}
                Ok(taken) => drop(observed.taken.insert(name, taken)),
                Err(error) => {
                    let reason = error.to_string();
                    let unknown = Listing::Unknown { reason };
                    observed.sandboxes.insert(name, unknown);
                }
            }
        }
    }

    async fn taken_services(
        &self,
        sandbox: &SandboxName,
        wanted: &DesiredSandbox,
        found: &ObservedSandbox,
    ) -> Result<Vec<Taken>> {
        let wanted = wanted.services.iter();
        let missing: Vec<_> = wanted
            .filter(|(name, _)| !found.services.contains_key(*name))
            .map(|(name, spec)| (name, &**spec))
            .collect();
        // What is down tells nothing; a service of that name is found by who starts one there.
        if missing.is_empty() || found.state != SandboxState::Running {
            return Ok(Vec::new());
        }
        let platform = self.of(sandbox)?;
        let foreign = platform.foreign_services(sandbox, &missing).await?;
        let foreign = foreign.into_iter();
        Ok(foreign.map(|name| Taken::Service { name }).collect())
    }

    async fn taken_files(
        &self,
        sandbox: &SandboxName,
        wanted: &SandboxSpec,
        found: &SandboxSpec,
    ) -> Result<Vec<Taken>> {
        let wanted = wanted.files.keys();
        let mut missing: Vec<_> = wanted.filter(|it| !found.files.contains_key(*it)).collect();
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let there = self
            .of(sandbox)?
            .attached(sandbox, Attachment::File)
            .await?;
        missing.retain(|path| there.iter().any(|it| it.name == **path));
        let taken = missing.into_iter().cloned();
        Ok(taken.map(|path| Taken::File { path }).collect())
    }

    async fn taken_volumes(
        &self,
        sandbox: &SandboxName,
        wanted: &SandboxSpec,
        found: &SandboxSpec,
    ) -> Result<Vec<Taken>> {
        let wanted = wanted.volumes.iter();
        let missing: Vec<_> = wanted
            .filter(|(name, path)| found.volumes.get(*name) != Some(*path))
            .collect();
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let there = self
            .of(sandbox)?
            .attached(sandbox, Attachment::Volume)
            .await?;
        let taken = there.into_iter().filter_map(|Attached { name, path }| {
            let path = path?;
            let is_ours = found.volumes.get(&name) == Some(&path);
            let stands_in_the_way = missing
                .iter()
                .any(|(new, at)| **at == path && **new != name);
            (stands_in_the_way && !is_ours).then_some(Taken::Volume { name, path })
        });
        Ok(taken.collect())
    }

    /// What is known of `references`, of which only those in sandboxes that are there can be asked for.
    async fn urls_in(
        &self,
        observed: &Observed,
        references: BTreeSet<Reference>,
    ) -> BTreeMap<Reference, Url> {
        let mut urls = BTreeMap::new();
        let mut asked = BTreeSet::new();
        for reference in references {
            match observed.sandboxes.get(&reference.service.sandbox) {
                None => {}
                Some(Listing::Known(_)) => drop(asked.insert(reference)),
                Some(Listing::Unknown { reason }) => {
                    let reason = reason.clone();
                    urls.insert(reference, Url::Unknown { reason });
                }
            }
        }
        urls.extend(self.urls(&asked).await);
        urls
    }

    /// Where services are reached, asked once for each sandbox. What is not in the answer is not reached.
    pub async fn urls(&self, references: &BTreeSet<Reference>) -> BTreeMap<Reference, Url> {
        let mut by_sandbox: BTreeMap<&SandboxName, Vec<&Reference>> = BTreeMap::new();
        for reference in references {
            let sandbox = &reference.service.sandbox;
            by_sandbox.entry(sandbox).or_default().push(reference);
        }
        let asks = by_sandbox.into_iter().map(|(sandbox, asked)| async {
            let told = match self.of(sandbox) {
                Ok(platform) => platform.urls(sandbox, &asked).await,
                Err(error) => Err(error),
            };
            match told {
                Ok(urls) => urls
                    .into_iter()
                    .map(|(reference, url)| (reference, url::checked(url)))
                    .collect::<Vec<_>>(),
                Err(error) => {
                    let unknown = |reference: &Reference| {
                        let reason = error.to_string();
                        (reference.clone(), Url::Unknown { reason })
                    };
                    asked.into_iter().map(unknown).collect()
                }
            }
        });
        let told = futures_util::future::join_all(asks).await;
        told.into_iter().flatten().collect()
    }

    /// [`Act::upgrade_outdated`] on all platforms.
    pub async fn upgrade_outdated(&self) -> Result<Vec<(SandboxName, Upgraded)>> {
        let mut upgraded = Vec::new();
        for platform in self.by_name.values() {
            upgraded.extend(platform.upgrade_outdated().await?);
        }
        Ok(upgraded)
    }

    /// [`Act::tidy`] on all platforms.
    pub async fn tidy(&self) -> Result<()> {
        for platform in self.by_name.values() {
            platform.tidy().await?;
        }
        Ok(())
    }

    /// Every platform that is open, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &dyn Act)> {
        let all = self.by_name.iter();
        all.map(|(name, platform)| (name.as_str(), platform.as_ref()))
    }

    /// The platform that `sandbox` lives on.
    pub fn of(&self, sandbox: &SandboxName) -> Result<&dyn Act> {
        let name = self.placement.get(sandbox);
        let platform = name.and_then(|name| self.by_name.get(name));
        platform.map(Box::as_ref).ok_or_else(|| {
            PlatformError::new(format!(
                "it is not known which platform `{sandbox}` lives on"
            ))
        })
    }
}
