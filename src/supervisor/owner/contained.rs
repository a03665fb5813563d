//! What an owner does where its service runs in a container: has it made, or finds the one again that
//! an earlier supervisor has started.

use std::os::fd::OwnedFd;

use super::hand::HandUp;
use super::*;
use crate::supervisor::container::{self, Adopt, Order, StartError, Starting, Step};

impl Preparing {
    /// It is not wanted any more.
    pub(super) fn give_up(&mut self, then: Then) {
        // One that runs already is found, and stopped.
        if self.left.is_none() {
            self.starting.cancel();
        }
        self.then = Some(then);
    }
}

impl Owner {
    /// Begins to make its container; what is asked meanwhile is answered.
    pub(super) fn make_container(&mut self, spec: ServiceSpec, attempt: Attempt) {
        if let Err(error) = self.sandbox.store.note_containers() {
            let refusal = Refusal::start_failed(format!("the sandbox's folder: {error}"));
            return self.fail(Ending::Hindered, attempt, refusal);
        }
        let notify = match self.notify_socket(&spec) {
            Ok(notify) => notify,
            Err(error) => {
                let refusal = Refusal::start_failed(error.to_string());
                return self.fail(Ending::Hindered, attempt, refusal);
            }
        };
        if let Err(error) = self.keep_socket(notify.as_ref().map(|(socket, _)| socket)) {
            tracing::warn!(service = %self.name, %error, "its socket ends with this supervisor");
        }
        let env = self.secrets.expand_env(&spec).map(|mut env| {
            if let Some((socket, watchdog)) = &notify {
                let more = probe::environment(socket, *watchdog).into_iter();
                env.extend(more.map(|(name, value)| (name.to_owned(), value.into())));
            }
            env
        });
        // Only what ran when the last supervisor ended is taken over.
        let adopt = match std::mem::take(&mut self.untried) && attempt.origin == Origin::BroughtBack
        {
            true => Adopt::IfThere,
            false => Adopt::Never,
        };
        self.running_revision = Some(self.record.revision);
        let order = Order {
            env: env.map_err(|missing| missing.to_string()),
            ..self.order(&spec, adopt)
        };
        self.phase = Phase::Preparing(Box::new(Preparing {
            attempt,
            executed: Arc::new(spec),
            starting: Starting::begin(order),
            notify: notify.map(|(socket, _)| socket),
            message: None,
            then: None,
            left: None,
        }));
    }

    /// Begins to look for the container that an earlier supervisor has started.
    pub(super) fn find_container(&mut self, left: Box<HandUp>, notify: Option<OwnedFd>) {
        self.untried = false;
        let notify = notify.map(NotifySocket::from_fd).transpose();
        let notify = notify.unwrap_or_else(|error| {
            tracing::warn!(service = %self.name, %error, "it cannot notify any more");
            None
        });
        self.phase = Phase::Preparing(Box::new(Preparing {
            attempt: left.attempt,
            executed: Arc::new(left.executed.clone()),
            starting: Starting::begin(self.order(&left.executed, Adopt::Only)),
            notify: notify.map(Arc::new),
            message: left.message.clone(),
            then: None,
            left: Some(left),
        }));
    }

    fn order(&self, spec: &ServiceSpec, adopt: Adopt) -> Order {
        Order {
            settings: self.sandbox.engine.clone(),
            dir: self.sandbox.store.dir().to_owned(),
            name: self.name.clone(),
            revision: self.record.revision,
            spec: spec.clone(),
            env: Ok(Default::default()),
            adopt,
            tick: self.tick.clone(),
        }
    }

    pub(super) async fn container_moved(&mut self, step: Step) {
        match step {
            Step::Progress(text) => {
                if let Phase::Preparing(preparing) = &mut self.phase {
                    preparing.message = Some(text);
                }
            }
            Step::Done(done) => {
                let phase = std::mem::replace(&mut self.phase, Phase::Down(Rest::Stopped));
                if let Phase::Preparing(preparing) = phase {
                    self.container_came(*preparing, done).await;
                }
            }
        }
    }

    /// Its container runs, or could not be made or found.
    async fn container_came(
        &mut self,
        preparing: Preparing,
        done: Result<Box<container::Container>, StartError>,
    ) {
        let Preparing {
            attempt,
            executed,
            notify,
            then,
            left,
            ..
        } = preparing;
        match (done, left) {
            (Ok(container), left) => {
                let live = Live::Container(container);
                match left {
                    Some(left) => self.go_on(live, *left, notify),
                    None => self.come_up(live, executed, notify, attempt),
                }
                match (then, &mut self.phase) {
                    (Some(then), Phase::Up(up)) if up.stage == Stage::Stopping => up.then = then,
                    (Some(then), _) => self.begin_stop(then),
                    (None, _) => {}
                }
            }
            (Err(error), left) => {
                self.running_revision = None;
                let stopping = left.and_then(|left| left.stopping());
                if let Some(then) = then.or(stopping) {
                    return self.stopped(then, attempt, jiff::Timestamp::now()).await;
                }
                let ending = match (error.lost, error.passing) {
                    (true, _) => Ending::Crash,
                    (false, true) => Ending::Hindered,
                    (false, false) => Ending::Unspawnable,
                };
                let refusal = Refusal::new(500, error.code, error.message);
                self.fail(ending, attempt, refusal);
            }
        }
    }
}
