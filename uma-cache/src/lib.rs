//! Per-CPU bucket caches of the uma zone allocator
