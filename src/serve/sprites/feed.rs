//! The changes of one service, each of them: two ends that follow closely are two.

use std::collections::VecDeque;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::model::ServiceName;
use crate::supervisor::{ServiceEvent, ServiceObject};

/// The changes of one service, in their order.
pub(super) struct Feed {
    events: mpsc::Receiver<ServiceEvent>,
    name: ServiceName,
    /// What was looked at already, and is still to be told.
    ahead: VecDeque<ServiceObject>,
}

impl Feed {
    /// What `events` say of the service called `name`.
    pub(super) fn new(events: mpsc::Receiver<ServiceEvent>, name: ServiceName) -> Self {
        Self {
            events,
            name,
            ahead: VecDeque::new(),
        }
    }

    /// The service as it became next; `None` when its supervisor has ended. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<ServiceObject> {
        loop {
            if let Some(service) = self.waiting() {
                return Some(service);
            }
            let event = self.events.recv().await?;
            self.keep(event);
        }
    }

    /// The same, if it is there already.
    pub(super) fn waiting(&mut self) -> Option<ServiceObject> {
        while let Ok(event) = self.events.try_recv() {
            self.keep(event);
        }
        self.ahead.pop_front()
    }

    fn keep(&mut self, event: ServiceEvent) {
        if let ServiceEvent::Service { service } = event
            && service.name == self.name.as_str()
        {
            self.ahead.push_back(*service);
        }
    }

    /// When the process was started that followed the one that ended at `end`, if there was one when the
    /// service was seen as `now`.
    pub(super) async fn next_start(
        &mut self,
        end: Timestamp,
        now: &ServiceObject,
    ) -> Option<Timestamp> {
        let started = |service: &ServiceObject| service.started_at.filter(|start| *start >= end);
        let ended =
            |service: &ServiceObject| service.last_exit.as_ref().is_some_and(|it| it.at > end);
        loop {
            while let Ok(event) = self.events.try_recv() {
                self.keep(event);
            }
            let known = self.ahead.iter().find_map(started).or(started(now));
            // One that has ended, too, is told of before its end.
            if known.is_some() || !ended(now) || self.ahead.iter().any(ended) {
                return known;
            }
            let event = self.events.recv().await?;
            self.keep(event);
        }
    }
}
