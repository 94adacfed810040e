//! One wrong free, of which the keg must say exactly what it is, and which must do no more harm.

use std::ptr::NonNull;

use uma_cache::{BucketCache, CacheConfig, CpuLocks};
use uma_core::{Item, ItemSource, Limited, NoSleep, Reclaim, Request, Zone};
use uma_keg::{HeaderPlace, Keg};
use uma_testkit::machine::{self, Cpus, OneThread, Unlocked};
use uma_testkit::model::Model;
use uma_testkit::ops::misuse::{Misuse, Wrong};
use uma_testkit::{Fake, HeapMeta, caught};

/// Checks a misuse on a keg, alone or below a zone that caches nothing.
pub fn misuse(program: &Misuse) {
    machine::reset();
    let config = &program.config;
    let slab = super::slab(config);
    let (pages, meta) = (Fake::with_page_size(config.page_size()), HeapMeta::new());
    let keg = || Keg::<_, OneThread, _>::with_layout(Unlocked(&pages), Unlocked(&meta), slab);
    let other = keg();
    if config.hooks {
        let limited = Limited::<_, OneThread, _>::new(keg(), None, NoSleep);
        let cpus = CpuLocks::new(Cpus(config.cpus()));
        let none = CacheConfig::none();
        let cache = BucketCache::<_, _, OneThread, _>::new(limited, cpus, Unlocked(&meta), none);
        let zone = Zone::new("misuse", cache);
        drive(program, &zone, zone.source().source().source(), &other);
    } else {
        let keg = keg();
        drive(program, &keg, &keg, &other);
    }
    drop(other);
    assert_eq!((pages.outstanding().runs, meta.outstanding().runs), (0, 0));
}

type Slabs<'a> = Keg<Unlocked<&'a Fake>, OneThread, Unlocked<&'a HeapMeta>>;

fn drive(program: &Misuse, source: &dyn ItemSource, keg: &Slabs<'_>, other: &Slabs<'_>) {
    let mut model = Model::new(keg.layout(), true);
    let take = |model: &mut Model| {
        model.took(source.alloc(Request::NOWAIT).expect("the heap has plenty"), false);
    };
    let mut back = Vec::new();
    for _ in 0..=program.taken {
        take(&mut model);
    }
    for bit in 0..=u32::from(program.taken) {
        if program.back.rotate_right(bit) & 1 != 0 {
            back.extend(model.give(usize::from(program.i) + bit as usize));
        }
    }
    // SAFETY: items of this source, each once, which the model gave up.
    unsafe { source.release(&back) };

    let foreign = other.alloc(Request::NOWAIT).expect("the heap has plenty");
    if let Some((batch, fault)) = wrong(program, keg, &mut model, &back, foreign) {
        // SAFETY: it is not: that is the test. All that the keg documents is that it reads the memory
        // where the header of a slab would be, and that is there: see `wrong`.
        let panic = caught(|| unsafe { source.release(&batch) });
        let message = panic.expect_err("the misuse was not noticed").message;
        let whole = format!("uma-keg: {fault} ({}-byte items); ", keg.layout().size());
        assert!(message.starts_with(&whole), "{message}");
    }
    assert_eq!(keg.live(), model.live(), "the good items are back, and nothing else happened");
    assert_eq!(machine::locks_held(), 0);
    assert!(machine::complaints().is_empty(), "{:?}", machine::complaints());
    model.verify();

    // It works as before.
    for _ in 0..20 {
        take(&mut model);
    }
    while let Some(item) = model.give(usize::from(program.i)) {
        // SAFETY: an item of this source, which the model gives up.
        unsafe { source.free(item) };
    }
    // SAFETY: an item of that keg, which nobody else has.
    unsafe { other.free(foreign) };
    source.reclaim(Reclaim::DrainCpu);
    assert_eq!((keg.live(), other.live()), (0, 0));
}

/// A batch with one thing wrong, and what the keg must say of it. `None` if this program has no such
/// item, or the keg is not promised to find out.
fn wrong(
    program: &Misuse,
    keg: &Slabs<'_>,
    model: &mut Model,
    back: &[Item],
    foreign: Item,
) -> Option<(Vec<Item>, String)> {
    let slab = keg.slab_layout();
    let inside = slab.header_place() == HeaderPlace::Inside;
    let i = usize::from(program.i);
    let nothing = |item: Item| format!("free of {:#x}, which is no item of this keg", item.addr());
    let (bad, fault) = match program.wrong {
        Wrong::Again => {
            let item = *back.get(i.checked_rem(back.len())?)?;
            (item, format!("double free of the item at {:#x}", item.addr()))
        }
        Wrong::TwiceAtOnce => {
            let item = model.give(i)?;
            (item, format!("double free of the item at {:#x}", item.addr()))
        }
        Wrong::Interior => {
            let start = model.peek(i)?.as_non_null();
            let size = slab.item().size();
            let offset = 1 + usize::from(program.offset).checked_rem(size - 1)?;
            // SAFETY: the item is out and longer than that.
            let item = Item::new(unsafe { start.add(offset) });
            let aligned = item.addr().is_multiple_of(slab.slab_align());
            // With one item to a slab, every aligned address would be an item's, and where a header would
            // be inside there is nothing that may be read.
            if slab.items() == 1 {
                if aligned && inside {
                    return None;
                }
                (item, nothing(item))
            } else {
                (item, format!("free of {:#x}, which is not the start of an item", item.addr()))
            }
        }
        Wrong::Foreign => (foreign, nothing(foreign)),
        Wrong::Nothing => {
            if inside {
                return None;
            }
            let item = Item::from(NonNull::<u64>::dangling().cast::<u8>());
            (item, nothing(item))
        }
    };
    let good = |model: &mut Model, n: u8| -> Vec<Item> {
        (0..n % 8).filter_map(|_| model.give(i)).collect()
    };
    let mut batch = good(model, program.before);
    if program.wrong == Wrong::TwiceAtOnce {
        batch.push(bad);
    }
    let later = good(model, program.after);
    batch.push(bad);
    batch.extend(later);
    Some((batch, fault))
}
