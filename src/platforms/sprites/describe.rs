//! Sprites and their services as anybody may have made them.

use futures_util::future::try_join_all;

use super::Sprites;
use super::definition::Mark;
use super::labels::{self, Found};
use super::wire::{Service, Sprite, Status};
use crate::model::{
    Condition, DesiredSandbox, Need, NeedTarget, SandboxName, ServiceAddress, ServiceGoal,
    ServiceName, ServiceSpec,
};
use crate::platforms::cloud::mark::{Owner, PREFIX};
use crate::platforms::described::{Described, is_asked_for, of_argv};
use crate::platforms::{PlatformError, Result};

impl Sprites {
    pub(super) async fn describe_all(&self, wanted: Option<&str>) -> Result<Vec<Described>> {
        let sprites = self.client.sprites().await?;
        let asked = sprites
            .into_iter()
            .filter(|sprite| is_asked_for(wanted, &sprite.name, &sprite.name))
            .map(|sprite| self.describe_one(sprite.name));
        Ok(try_join_all(asked).await?.into_iter().flatten().collect())
    }

    /// Marks a sprite and its services as the stack's. The mark of a service is a part of its definition, so
    /// those that run are started again with it.
    pub(super) async fn take_in(
        &self,
        found: &Described,
        sandbox: &SandboxName,
        wanted: &DesiredSandbox,
        restart: bool,
    ) -> Result<Vec<ServiceName>> {
        let gone = || PlatformError::new(format!("there is no sprite `{}`", found.id));
        let there = self.client.services(&found.id).await?.ok_or_else(gone)?;
        let own = wanted.services.iter().filter_map(|(name, spec)| {
            let service = there.iter().find(|it| it.name == name.as_str())?;
            let address = ServiceAddress::new(sandbox.clone(), name.clone());
            let before = found.owner.as_ref();
            let before = before.and_then(|owner| Mark::of(service, owner));
            let mark = Mark::new(&self.stack, &address, spec).after(before);
            let marked = mark.laid_on(&service.definition);
            Some((address, spec, service, marked))
        });
        let own: Vec<_> = own.collect();
        // Those that have their mark were reached by an adoption that did not get to its end.
        let up = own.iter().filter(|(_, _, service, marked)| {
            service.definition != *marked && service.status().is_up()
        });
        let up: Vec<_> = up.map(|(address, ..)| address.service.clone()).collect();
        if !up.is_empty() && !restart {
            let names: Vec<_> = up.iter().map(ServiceName::as_str).collect();
            let text = format!(
                "Sprites keeps the mark of a service in its definition, so this restarts {}",
                names.join(", ")
            );
            return Err(PlatformError::new(text).hint("if that may be, say `--restart`"));
        }
        for (address, spec, service, marked) in own {
            let stays_down = match service.definition == marked {
                // It may have been started to be marked, and not been stopped any more.
                true => spec.state == ServiceGoal::Stopped && service.status() != Status::Stopped,
                false => {
                    self.write(&found.id, &address, &marked).await?;
                    !up.contains(&address.service)
                }
            };
            if stays_down {
                self.stop(&found.id, &address, spec.stop.grace.0).await?;
            }
        }
        // Last: what is half done is not the stack's yet.
        let sprite = self.client.sprite(&found.id).await?.ok_or_else(gone)?;
        self.write_labels(sandbox, &found.id, &wanted.spec, &sprite)
            .await?;
        Ok(up)
    }

    async fn describe_one(&self, name: String) -> Result<Option<Described>> {
        let (sprite, services) =
            futures_util::try_join!(self.client.sprite(&name), self.client.services(&name))?;
        let (Some(sprite), Some(services)) = (sprite, services) else {
            return Ok(None);
        };
        let mut described = of_sprite(&sprite);
        // Without its labels it is still another stack's. Marks of this one may be those of an adoption that did
        // not get to its end.
        let mut owners = services.iter().filter_map(Mark::owner);
        let other = owners.find(|owner| owner.stack != self.stack);
        described.owner = described.owner.or(other);
        for service in services {
            let spec = of_service(&service, described.owner.as_ref());
            described.services.insert(service.name, spec);
        }
        Ok(Some(described))
    }
}

fn of_sprite(sprite: &Sprite) -> Described {
    let labels = sprite.labels.iter().flatten();
    let owner = labels.clone().find_map(|label| Owner::from_label(label));
    let found = owner
        .as_ref()
        .map(|owner| labels::find(sprite, &owner.stack));
    let mut described = Described::new(&sprite.name, &sprite.name, owner);
    if let Some(Found::Ours(_, spec)) = found {
        described.spec = *spec;
    } else {
        let topics = labels.filter(|label| !label.starts_with(PREFIX));
        described.spec.topics = topics.cloned().collect();
        let settings = sprite.url_settings.as_ref();
        described.spec.public = settings.is_some_and(|it| it.is_public());
        let remark = "vcpus, memory, disk: Sprites does not tell the size of a sprite";
        described.remarks.push(remark.to_owned());
    }
    described.spec.name = Some(sprite.name.clone());
    described
}

fn of_service(service: &Service, owner: Option<&Owner>) -> ServiceSpec {
    let definition = &service.definition;
    if let Some(mark) = owner.and_then(|owner| Mark::of(service, owner)) {
        return mark.spec_of(definition);
    }
    let mut spec = of_argv(&definition.argv());
    spec.env.clone_from(&definition.env);
    spec.working_dir = definition.dir.as_ref().map(Into::into);
    spec.http_port = definition.http_port;
    let needs = definition.needs.iter().filter_map(|name| {
        Some(Need {
            target: NeedTarget::Local(ServiceName::new(name.as_str()).ok()?),
            condition: Condition::Ready,
            restart: false,
        })
    });
    spec.needs = needs.collect();
    if service.status() == Status::Stopped {
        spec.state = ServiceGoal::Stopped;
    }
    spec
}
