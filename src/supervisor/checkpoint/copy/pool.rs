//! Work that makes more work, done by a few threads until none is left.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The most threads: storage is seldom faster with more.
const MOST: usize = 8;

/// The work that is waiting, the newest first: so a tree is gone through in depth, and few of its
/// folders are open at a time.
pub(super) struct Pool<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    waiting: Vec<T>,
    /// How many pieces are being worked on: each may make more.
    working: usize,
}

impl<T: Send> Pool<T> {
    pub(super) fn new(first: T) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: vec![first],
                working: 0,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, work: T) {
        self.lock().waiting.push(work);
        self.changed.notify_one();
    }

    /// Works until nothing is left, on this thread and a few others.
    pub(super) fn run(&self, work: impl Fn(T, &Self) + Sync) {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 1..processors.clamp(2, MOST) {
                let help = || self.work(&work);
                // Without it the others do its part.
                let _ = std::thread::Builder::new().spawn_scoped(scope, help);
            }
            self.work(&work);
        });
    }

    fn work(&self, work: &impl Fn(T, &Self)) {
        let mut state = self.lock();
        loop {
            if let Some(next) = state.waiting.pop() {
                state.working += 1;
                drop(state);
                work(next, self);
                state = self.lock();
                state.working -= 1;
                if state.working == 0 && state.waiting.is_empty() {
                    self.changed.notify_all();
                }
            } else if state.working == 0 {
                return;
            } else {
                let waited = self.changed.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
