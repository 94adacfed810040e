//! The uma zone allocator: typed zones, object caches, limits and statistics
