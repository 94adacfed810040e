//! Page supplier of the uma zone allocator over memory given to it
