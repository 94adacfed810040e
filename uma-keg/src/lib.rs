//! Kegs of the uma zone allocator: items cut from slabs of pages
