//! Workers that prepare pieces in any order and have them placed in guest order.

use super::cut::{Cutter, Piece, data_bytes};
use super::{Progress, Work};
use crate::math::{div, index};
use drylab_block::{Error, ReadAt, Result};
use std::collections::{BTreeMap, VecDeque};
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
    /// One at a time, in any order. File systems let one thread at a time write to a file: others would wait for it in
    /// the kernel, where they can read meanwhile.
    fn finish(&self, piece: &Piece, slot: &mut Self::Slot) -> Result<()>;
}

/// A piece in work. The worker that prepares it finishes it, too: its bytes are in the cache of that core.
#[derive(Default)]
struct Held<S> {
    worker: u32,
    piece: Piece,
    slot: S,
}

/// A piece that waits for its turn, and how its preparing went.
type Waiting<S> = (Box<Held<S>>, Result<()>);

struct State<J: Job> {
    waiting: BTreeMap<u64, Waiting<J::Slot>>,
    /// The ticket to be placed next.
    turn: u64,
    /// Away while a worker is placing.
    order: Option<J::Order>,
    /// Placed and not finished, each with its ticket.
    placed: VecDeque<(u64, Box<Held<J::Slot>>)>,
    /// Some worker is finishing a piece.
    finishing: bool,
    /// Workers that wait for the bell.
    asleep: u32,
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

/// Bytes of pieces that a worker holds, and that all hold together.
const BYTES_EACH: u64 = 4 << 20;
const BYTES_ALL: u64 = 32 << 20;

/// Pieces of up to `cell` bytes that each of `jobs` workers holds: enough to read on while another writes.
fn slots_each(jobs: u32, cell: u64) -> usize {
    let bytes = BYTES_EACH.min(div(BYTES_ALL, u64::from(jobs)));
    index(div(bytes, cell).clamp(2, 16))
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
    let slots = match jobs {
        1 => 1,
        _ => slots_each(jobs, cell),
    };
    let total = work.progress.map_or(0, |_| data_bytes(disk));
    let shop = Shop {
        job,
        work,
        cutter: Mutex::new((Cutter::new(disk, cell, block), 0)),
        state: Mutex::new(State {
            waiting: BTreeMap::new(),
            turn: 0,
            order: Some(order),
            placed: VecDeque::new(),
            finishing: false,
            asleep: 0,
            ended: false,
            failed: None,
            progress: Progress { done: 0, total },
        }),
        bell: Condvar::new(),
    };
    std::thread::scope(|scope| {
        let shop = &shop;
        for number in 1..jobs {
            scope.spawn(move || shop.worker(number, slots));
        }
        shop.worker(0, slots);
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
    Finish(u64, Box<Held<J::Slot>>),
    Cut(Box<Held<J::Slot>>),
}

/// Wakes the others when a worker panics: they would wait for its ticket.
struct Alarm<'s, 'a, J: Job>(&'s Shop<'a, J>);

impl<J: Job> Drop for Alarm<'_, '_, J> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state().fail(0, Error::io("a worker panicked"));
            self.0.bell.notify_all();
        }
    }
}

impl<J: Job> State<J> {
    /// The piece whose turn it is, if it has been prepared and nobody is placing.
    fn next_to_place(&mut self) -> Option<Task<J>> {
        if !self.may_place() {
            return None;
        }
        let (waiting, order) = (self.waiting.remove(&self.turn)?, self.order.take()?);
        Some(Task::Place(self.turn, waiting, order))
    }

    fn may_place(&self) -> bool {
        self.order.is_some() && self.waiting.contains_key(&self.turn)
    }

    /// The first of a worker's pieces that is placed and comes before an error.
    fn to_finish(&self, worker: u32) -> Option<usize> {
        let end = self.failed.as_ref().map_or(u64::MAX, |(failed, _)| *failed);
        self.placed
            .iter()
            .position(|(ticket, held)| held.worker == worker && *ticket < end)
    }

    /// Everything before `ticket` has been placed when this is called, so the least ticket is the first error.
    fn fail(&mut self, ticket: u64, error: Error) {
        if self
            .failed
            .as_ref()
            .is_none_or(|(first, _)| ticket < *first)
        {
            self.failed = Some((ticket, error));
        }
    }
}

impl<J: Job> Shop<'_, J> {
    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn worker(&self, number: u32, slots: usize) {
        let _alarm = Alarm(self);
        let mut tool = match self.job.tool() {
            Ok(tool) => tool,
            Err(error) => {
                self.state().fail(0, error);
                return self.bell.notify_all();
            }
        };
        let held = |_| {
            Box::new(Held {
                worker: number,
                ..Held::default()
            })
        };
        let mut free = Free {
            slots: (0..slots).map(held).collect(),
            all: slots,
        };
        while let Some(task) = self.task(number, &mut free) {
            match task {
                Task::Place(ticket, waiting, order) => self.place(ticket, waiting, order),
                Task::Finish(ticket, held) => free.slots.extend(self.finish(ticket, held)),
                Task::Cut(held) => free.slots.extend(self.prepare(held, &mut tool)),
            }
        }
        self.bell.notify_all();
    }

    /// What worker `number` can do now, waited for; nothing when the others do the rest.
    fn task(&self, number: u32, free: &mut Free<J::Slot>) -> Option<Task<J>> {
        let mut state = self.state();
        loop {
            if state.failed.is_none()
                && let Some(task) = state.next_to_place()
            {
                return Some(task);
            }
            let first = state.to_finish(number);
            if !state.finishing
                && let Some((ticket, held)) = first.and_then(|first| state.placed.remove(first))
            {
                state.finishing = true;
                return Some(Task::Finish(ticket, held));
            }
            let over = state.failed.is_some() || (state.ended && free.slots.len() == free.all);
            if over && first.is_none() {
                return None;
            }
            if state.failed.is_none()
                && !state.ended
                && let Some(held) = free.slots.pop()
            {
                return Some(Task::Cut(held));
            }
            state.asleep = state.asleep.saturating_add(1);
            state = self
                .bell
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.asleep = state.asleep.saturating_sub(1);
        }
    }

    /// Wakes those that wait, if there may be something for them.
    fn wake(&self, state: MutexGuard<'_, State<J>>) {
        let some = state.may_place()
            || !(state.placed.is_empty() || state.finishing)
            || state.ended
            || state.failed.is_some();
        let wake = some && state.asleep > 0;
        drop(state);
        if wake {
            self.bell.notify_all();
        }
    }

    /// Fills a slot, or gives it back when there is no more to read.
    fn prepare(
        &self,
        mut held: Box<Held<J::Slot>>,
        tool: &mut J::Tool,
    ) -> Option<Box<Held<J::Slot>>> {
        let ticket = {
            let mut cutter = self.cutter.lock().unwrap_or_else(PoisonError::into_inner);
            let ticket = cutter.1;
            cutter.1 = ticket.saturating_add(1);
            cutter.0.next(&mut held.piece).then_some(ticket)
        };
        let Some(ticket) = ticket else {
            let mut state = self.state();
            state.ended = true;
            self.wake(state);
            return Some(held);
        };
        let Held { piece, slot, .. } = &mut *held;
        let prepared = self.job.prepare(piece, slot, tool);
        // This worker comes back for it, or the one that is placing now.
        self.state().waiting.insert(ticket, (held, prepared));
        None
    }

    fn place(&self, ticket: u64, (mut held, prepared): Waiting<J::Slot>, mut order: J::Order) {
        let Held { piece, slot, .. } = &mut *held;
        let placed = prepared.and_then(|()| self.job.place(&mut order, piece, slot));
        if let (Some(tell), true) = (self.work.progress, placed.is_ok()) {
            let mut state = self.state();
            state.progress.done = state.progress.done.saturating_add(piece.data());
            let progress = state.progress;
            drop(state);
            tell(progress);
        }
        let mut state = self.state();
        state.order = Some(order);
        state.turn = ticket.saturating_add(1);
        match placed {
            Ok(()) => state.placed.push_back((ticket, held)),
            Err(error) => state.fail(ticket, error),
        }
        self.wake(state);
    }

    /// The slot of the finished piece, for another.
    fn finish(&self, ticket: u64, mut held: Box<Held<J::Slot>>) -> Option<Box<Held<J::Slot>>> {
        let Held { piece, slot, .. } = &mut *held;
        let finished = self.job.finish(piece, slot);
        let mut state = self.state();
        state.finishing = false;
        if let Err(error) = finished {
            state.fail(ticket, error);
        }
        // A worker finishes all that it has before another does: waking one costs as much as reading a piece.
        if state.to_finish(held.worker).is_none() {
            self.wake(state);
        }
        Some(held)
    }
}

/// A worker's slots that are not in work.
struct Free<S> {
    slots: Vec<Box<Held<S>>>,
    all: usize,
}
