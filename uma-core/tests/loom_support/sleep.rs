//! Waiting at a limit, in a model.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use uma_core::{Deadline, Sleep};

use super::checker::{Notify, thread_local};

thread_local! {
    static PLACE: RefCell<Option<Arc<Notify>>> = RefCell::new(None);
    static CLOCK: Cell<u64> = Cell::new(0);
}

/// Sleeps until woken. A sleep with a deadline ends at once, and then the deadline has passed: how long
/// it takes is up to the scheduler of the model.
pub(crate) struct Parking;

/// A deadline that passes in the first sleep.
pub(crate) fn soon() -> Deadline {
    Deadline::at(CLOCK.with(Cell::get) + 1)
}

impl Sleep for Parking {
    type Waker = Arc<Notify>;

    fn now(&self) -> u64 {
        CLOCK.with(Cell::get)
    }

    fn waker(&self) -> Self::Waker {
        let place = Arc::new(Notify::new());
        PLACE.with(|own| *own.borrow_mut() = Some(place.clone()));
        place
    }

    fn sleep(&self, until: Deadline) {
        match until.nanoseconds() {
            Some(time) => CLOCK.with(|clock| clock.set(time)),
            None => {
                let place = PLACE.with(|own| own.borrow().clone());
                place.expect("whoever sleeps has named a waker").wait();
            }
        }
    }

    fn wake(&self, waker: &Self::Waker) {
        waker.notify();
    }
}
