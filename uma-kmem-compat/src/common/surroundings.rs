//! The parts of a platform that are the host's for every face: pages, checks and what is said are not.

/// In an `impl` of [`Platform`](uma::Platform): CPUs, locks, sleep, books, the registry and traces are the
/// [`Host`](uma::Host)'s.
macro_rules! as_the_host {
    () => {
        type Cpus = <uma::Host as uma::Platform>::Cpus;
        type Lock = <uma::Host as uma::Platform>::Lock;
        type Sleep = <uma::Host as uma::Platform>::Sleep;
        type Metadata = <uma::Host as uma::Platform>::Metadata;

        fn cpus(&self) -> Self::Cpus {
            uma::Host.cpus()
        }

        fn sleep(&self) -> Self::Sleep {
            uma::Host.sleep()
        }

        fn metadata(&self) -> Self::Metadata {
            uma::Host.metadata()
        }

        fn registry(&self) -> &uma::Registry<Self::Lock> {
            static HOST: uma::Host = uma::Host::new();
            HOST.registry()
        }

        fn relax(&self) {
            uma::Host.relax();
        }

        fn thread(&self) -> u64 {
            uma::Host.thread()
        }

        fn trace(&self, frames: &mut [usize; uma::debug::FRAMES]) -> usize {
            uma::Host.trace(frames)
        }

        fn show_frame(&self, frame: usize, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            uma::Host.show_frame(frame, f)
        }
    };
}
pub(crate) use as_the_host;
