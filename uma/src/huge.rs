//! Huge pages for the process's supplier of pages.

use uma_backend_mmap::HugePages;

use crate::access::complain;
use crate::host::PAGES;

/// Says whether the zones of the process should lie on huge pages: what is touched from now on, also of memory
/// that was reserved before. [`HugePages::System`], which says nothing, is what they have unless you say more, or
/// the environment does: `UMA_HUGE_PAGES=wanted` or `unwanted`. What was said of memory that is reserved cannot be
/// taken back.
///
/// Where the system gives them ([transparent huge pages] set to `madvise` or `always`) a heap grows with one page
/// fault for each 2 MiB in place of 512, and large heaps miss the processor's translation cache less. In exchange
/// up to 2 MiB more are resident, wherever a heap ends and where the memory of freed items lies in between;
/// [`reclaim`](crate::reclaim) with a drain gives that back. It is of no use to small heaps.
///
/// It says so under no lock, with one system call for each reservation, and may be called at any time.
///
/// [transparent huge pages]: https://docs.kernel.org/admin-guide/mm/transhuge.html
///
/// ```
/// uma::set_huge_pages(uma::mmap::HugePages::Wanted);
/// ```
pub fn set_huge_pages(huge: HugePages) {
    crate::host::pages().set_huge_pages(huge);
}

/// What the environment says.
pub(crate) fn begin() {
    let wish = std::env::var_os("UMA_HUGE_PAGES");
    match wish.as_deref().map(|wish| wish.to_str()) {
        None | Some(Some("" | "system")) => {}
        Some(Some("wanted")) => PAGES.set_huge_pages(HugePages::Wanted),
        Some(Some("unwanted")) => PAGES.set_huge_pages(HugePages::Unwanted),
        _ => {
            let wish = wish.unwrap_or_default();
            complain(format_args!(
                "UMA_HUGE_PAGES={} is none of \"wanted\", \"unwanted\" and \"system\"",
                wish.display()
            ));
        }
    }
}
