//! Workers that prepare pieces in any order and have them placed in guest order.

use super::cut::{Cutter, Piece, data_bytes};
use super::{Progress, Work};
use drylab_block::{Error, ReadAt, Result};
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What is done with each piece.
pub(crate) trait Job: Sync {
    /// What a worker needs, made once for each.
    type Tool;
    /// What is held of a piece between the steps; used again for others.
    type Slot: Send + Default;
    /// What the placing of one piece leaves to the next.
    type Order: Send;

    fn tool(&self) -> Result<Self::Tool>;
    /// Any worker, in any order.
    fn prepare(&self, piece: &Piece, slot: &mut Self::Slot, tool: &mut Self::Tool) -> Result<()>;
    /// One at a time, in guest order.
    fn place(&self, order: &mut Self::Order, piece: &Piece, slot: &mut Self::Slot) -> Result<()>;
    /// Any worker, in any order.
    fn finish(&self, piece: &Piece, slot: &mut Self::Slot) -> Result<()>;
}

/// A piece in work.
#[derive(Default)]
struct Held<S> {
    piece: Piece,
    slot: S,
}

/// A piece that waits for its turn, and how its preparing went.
type Waiting<S> = (Box<Held<S>>, Result<()>);

struct State<J: Job> {
    free: Vec<Box<Held<J::Slot>>>,
    waiting: BTreeMap<u64, Waiting<J::Slot>>,
    /// The ticket to be placed next.
    turn: u64,
    /// Away while a worker is placing.
    order: Option<J::Order>,
    /// There are no more pieces.
    ended: bool,
    /// The first error in guest order so far, and its ticket.
    failed: Option<(u64, Error)>,
    progress: Progress,
}

struct Shop<'a, J: Job> {
    job: &'a J,
    work: &'a Work<'a>,
    /// The cutter and the next ticket.
    cutter: Mutex<(Cutter<'a>, u64)>,
    state: Mutex<State<J>>,
    bell: Condvar,
}

/// Does `job` to every piece of `disk`; the result is what its last placing left.
pub(crate) fn run<J: Job>(
    disk: &dyn ReadAt,
    (cell, block): (u64, u64),
    work: &Work<'_>,
    job: &J,
    order: J::Order,
) -> Result<J::Order> {
    let jobs = work.jobs.clamp(1, 256);
    let slots = if jobs == 1 { 1 } else { jobs.saturating_mul(2) };
    let total = work.progress.map_or(0, |_| data_bytes(disk));
    let shop = Shop {
        job,
        work,
        cutter: Mutex::new((Cutter::new(disk, cell, block), 0)),
        state: Mutex::new(State {
            free: (0..slots).map(|_| Box::default()).collect(),
            waiting: BTreeMap::new(),
            turn: 0,
            order: Some(order),
            ended: false,
            failed: None,
            progress: Progress { done: 0, total },
        }),
        bell: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for _ in 1..jobs {
            scope.spawn(|| shop.worker());
        }
        shop.worker();
    });
    let state = shop.state.into_inner();
    let state = state.unwrap_or_else(PoisonError::into_inner);
    match (state.failed, state.order) {
        (Some((_, error)), _) => Err(error),
        (None, Some(order)) => Ok(order),
        (None, None) => Err(Error::io("a worker ended while it was placing")),
    }
}

/// What a worker finds to do.
enum Task<J: Job> {
    Place(u64, Waiting<J::Slot>, J::Order),
    Cut(Box<Held<J::Slot>>),
}

/// Wakes the others when a worker panics: they would wait for its ticket.
struct Alarm<'s, 'a, J: Job>(&'s Shop<'a, J>);

impl<J: Job> Drop for Alarm<'_, '_, J> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0
                .fail(&mut self.0.state(), 0, Error::io("a worker panicked"));
            self.0.bell.notify_all();
        }
    }
}

impl<J: Job> Shop<'_, J> {
    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn worker(&self) {
        let _alarm = Alarm(self);
        let mut tool = match self.job.tool() {
            Ok(tool) => tool,
            Err(error) => {
                self.fail(&mut self.state(), 0, error);
                return self.bell.notify_all();
            }
        };
        while let Some(task) = self.task() {
            match task {
                Task::Place(ticket, waiting, order) => self.place(ticket, waiting, order),
                Task::Cut(held) => self.prepare(held, &mut tool),
            }
        }
        self.bell.notify_all();
    }

    /// What can be done now, waited for; nothing when the others do the rest.
    fn task(&self) -> Option<Task<J>> {
        let mut state = self.state();
        loop {
            if state.failed.is_some() {
                return None;
            }
            let turn = state.turn;
            if state.order.is_some()
                && let Some(waiting) = state.waiting.remove(&turn)
                && let Some(order) = state.order.take()
            {
                return Some(Task::Place(turn, waiting, order));
            }
            // Whoever prepares or places a piece now comes back for what waits behind it.
            if state.ended {
                return None;
            }
            if let Some(held) = state.free.pop() {
                return Some(Task::Cut(held));
            }
            state = self
                .bell
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn prepare(&self, mut held: Box<Held<J::Slot>>, tool: &mut J::Tool) {
        let ticket = {
            let mut cutter = self.cutter.lock().unwrap_or_else(PoisonError::into_inner);
            let ticket = cutter.1;
            cutter.1 = ticket.saturating_add(1);
            cutter.0.next(&mut held.piece).then_some(ticket)
        };
        let Some(ticket) = ticket else {
            self.state().ended = true;
            return self.bell.notify_all();
        };
        let Held { piece, slot } = &mut *held;
        let prepared = self.job.prepare(piece, slot, tool);
        self.state().waiting.insert(ticket, (held, prepared));
    }

    fn place(&self, ticket: u64, (mut held, prepared): Waiting<J::Slot>, mut order: J::Order) {
        let Held { piece, slot } = &mut *held;
        let placed = prepared.and_then(|()| self.job.place(&mut order, piece, slot));
        let mut state = self.state();
        let done = state.progress.done.saturating_add(piece.data());
        state.progress.done = done;
        let progress = state.progress;
        drop(state);
        if let (Some(tell), true) = (self.work.progress, placed.is_ok()) {
            tell(progress);
        }
        let mut state = self.state();
        state.order = Some(order);
        state.turn = ticket.saturating_add(1);
        drop(state);
        self.bell.notify_all();
        let finished = placed.and_then(|()| self.job.finish(piece, slot));
        let mut state = self.state();
        match finished {
            Ok(()) => state.free.push(held),
            Err(error) => self.fail(&mut state, ticket, error),
        }
        drop(state);
        self.bell.notify_all();
    }

    /// Everything before `ticket` has been placed when this is called, so the least ticket is the first error.
    fn fail(&self, state: &mut State<J>, ticket: u64, error: Error) {
        if state
            .failed
            .as_ref()
            .is_none_or(|(first, _)| ticket < *first)
        {
            state.failed = Some((ticket, error));
        }
    }
}
