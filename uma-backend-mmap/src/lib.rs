//! Page supplier of the uma zone allocator over mmap
