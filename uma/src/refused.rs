//! What the compiler has to refuse. Each pair of examples differs in one line: the first compiles, so
//! that the second fails for that line alone.
//!
//! # A box outlives its zone
//!
//! ```
//! let zone = uma::Zone::<u64>::builder("short").build().unwrap();
//! let value = zone.alloc(1).unwrap();
//! drop(value);
//! drop(zone);
//! ```
//!
//! ```compile_fail,E0505
//! let zone = uma::Zone::<u64>::builder("short").build().unwrap();
//! let value = zone.alloc(1).unwrap();
//! drop(zone);
//! drop(value);
//! ```
//!
//! # An object outlives its cache
//!
//! ```
//! let cache = uma::ObjectCache::<u64>::builder("short").init(|| 1).build().unwrap();
//! let object = cache.get().unwrap();
//! drop(object);
//! drop(cache);
//! ```
//!
//! ```compile_fail,E0505
//! let cache = uma::ObjectCache::<u64>::builder("short").init(|| 1).build().unwrap();
//! let object = cache.get().unwrap();
//! drop(cache);
//! drop(object);
//! ```
//!
//! # What is set aside, and what was placed in it, outlives its zone
//!
//! ```
//! let zone = uma::Zone::<u64>::builder("short").build().unwrap();
//! let mut room = zone.prefill(1).unwrap();
//! let value = room.place(1).unwrap();
//! drop(room);
//! assert_eq!(*value, 1);
//! ```
//!
//! ```compile_fail,E0505
//! let zone = uma::Zone::<u64>::builder("short").build().unwrap();
//! let mut room = zone.prefill(1).unwrap();
//! let value = room.place(1).unwrap();
//! drop(zone);
//! assert_eq!(*value, 1);
//! ```
//!
//! ```compile_fail,E0505
//! use uma::core::Request;
//! let zone = uma::RawZone::builder("short", std::alloc::Layout::new::<u64>()).build().unwrap();
//! let mut list = zone.prefill(1, Request::NOWAIT).unwrap();
//! drop(zone);
//! list.take();
//! ```
//!
//! # A leaked value outlives its zone
//!
//! ```compile_fail,E0505
//! let zone = uma::Zone::<u64>::builder("short").build().unwrap();
//! let value = uma::ZoneBox::leak(zone.alloc(1).unwrap());
//! drop(zone);
//! *value = 2;
//! ```
//!
//! # An allocation that is under way outlives its zone
#![cfg_attr(feature = "async", doc = "```compile_fail,E0505")]
#![cfg_attr(not(feature = "async"), doc = "```ignore")]
//! let zone = uma::Zone::<u64>::builder("short").build().unwrap();
//! let coming = zone.alloc_async(1);
//! drop(zone);
//! drop(coming);
//! ```
//!
//! # A look at a zone outlives the visit that counts it in
//!
//! ```
//! use uma::Platform;
//! let mut last = None;
//! uma::Host.registry().visit(&mut |zone| last = Some(zone.name()));
//! ```
//!
//! ```compile_fail,E0521
//! use uma::Platform;
//! let mut last = None;
//! uma::Host.registry().visit(&mut |zone| last = Some(zone));
//! ```
//!
//! # A value that is bound to its thread leaves it
//!
//! ```
//! use std::sync::Arc;
//! static ZONE: uma::Zone<Arc<u64>> = uma::Zone::new("counted");
//! let value = ZONE.alloc(Arc::new(1)).unwrap();
//! std::thread::spawn(move || drop(value)).join().unwrap();
//! ```
//!
//! ```compile_fail,E0277
//! use std::rc::Rc;
//! static ZONE: uma::Zone<Rc<u64>> = uma::Zone::new("counted");
//! let value = ZONE.alloc(Rc::new(1)).unwrap();
//! std::thread::spawn(move || drop(value)).join().unwrap();
//! ```
//!
//! ```compile_fail,E0277
//! use std::rc::Rc;
//! let objects = uma::ObjectCache::<Rc<u64>>::builder("counted").init(|| Rc::new(1)).build();
//! ```
//!
//! # Items of two zones are mixed up
//!
//! A box knows its zone, so it cannot go to another; what can is a bare pointer, and that is `unsafe`.
//!
//! ```
//! let (a, b) = (uma::Zone::<u64>::builder("a").build().unwrap(), 0);
//! let value = uma::ZoneBox::into_raw(a.alloc(1).unwrap());
//! // SAFETY: it came from `into_raw` of a box of this zone.
//! drop(unsafe { a.box_from_raw(value) });
//! ```
//!
//! ```compile_fail,E0133
//! let (a, b) = (uma::Zone::<u64>::builder("a").build().unwrap(), 0);
//! let value = uma::ZoneBox::into_raw(a.alloc(1).unwrap());
//! drop(a.box_from_raw(value));
//! ```
//!
//! ```compile_fail,E0133
//! use uma::core::Request;
//! let zone = uma::RawZone::builder("raw", std::alloc::Layout::new::<u64>()).build().unwrap();
//! let item = zone.alloc(Request::NOWAIT).unwrap();
//! zone.free(item);
//! ```
//!
//! # A box is used twice
//!
//! ```compile_fail,E0382
//! let zone = uma::Zone::<u64>::builder("once").build().unwrap();
//! let value = zone.alloc(1).unwrap();
//! drop(value);
//! drop(value);
//! ```
