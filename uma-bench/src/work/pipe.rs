//! A producer and a consumer on two CPUs: one allocates, the other frees.

use std::sync::Arc;

use crate::rounds::Contest;
use crate::subject::{HasZone, Size, Subject, Visit, each_malloc};
use crate::team::Member;
use crate::work::Bench;
use crate::work::ring::Ring;

const ITEMS: u64 = 50_000;

pub(crate) fn run(bench: &mut Bench) {
    if bench.team.cpus() < 2 {
        eprintln!("pipe needs two CPUs");
        return;
    }
    one::<64>(bench);
    one::<256>(bench);
    one::<1024>(bench);
}

fn one<const N: usize>(bench: &mut Bench)
where
    Size<N>: HasZone,
{
    let mut lanes = Lanes(Contest::new(2));
    each_malloc::<N>(&bench.filter, &mut lanes);
    bench.contest("producer and consumer", N, 2, lanes.0);
}

struct Lanes(Contest);

/// How far the other one has come, when last looked.
#[derive(Default)]
struct End(usize);

impl Visit for Lanes {
    fn visit<S: Subject>(&mut self, name: &'static str, subject: S) {
        let ring = Arc::new(Ring::<S::Held>::new());
        let begin = |_: &Member| End::default();
        let job = move |end: &mut End, member: &Member| {
            let mut work = |count| {
                if member.index == 0 {
                    for word in 0..count {
                        let mut held = subject.alloc(word);
                        // SAFETY: member 0 alone puts in.
                        while let Err(back) = unsafe { ring.put(held, &mut end.0) } {
                            held = back;
                            std::hint::spin_loop();
                        }
                    }
                } else {
                    for _ in 0..count {
                        let held = loop {
                            // SAFETY: member 1 alone takes out.
                            match unsafe { ring.take(&mut end.0) } {
                                Some(held) => break held,
                                None => std::hint::spin_loop(),
                            }
                        };
                        // SAFETY: it came from this subject.
                        unsafe { subject.free(held) };
                    }
                }
            };
            work(ITEMS / 5);
            member.time(|| work(ITEMS)).as_nanos() as f64 / ITEMS as f64
        };
        self.0.lane_with(name, begin, job, drop);
    }
}
