//! The class tables of the systems whose interfaces stand on this crate.

use crate::classes::{Alignment, SizeClasses};

impl SizeClasses {
    /// Four classes to a doubling, from 16 bytes to 64 KiB, each aligned as its size allows, and so to 16 at
    /// least: no more than 20 % of an item of more than 64 bytes goes unused. For a malloc.
    pub const GENERAL: &'static Self = &Self::checked(
        &[
            16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768,
            896, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 3584, 4096, 5120, 6144, 7168, 8192,
            10240, 12288, 14336, 16384, 20480, 24576, 28672, 32768, 40960, 49152, 57344, 65536,
        ],
        Alignment::Natural,
    );

    /// malloc(9) of FreeBSD: powers of two to 64 KiB, and 384.
    pub const MALLOC9: &'static Self = &Self::checked(
        &[16, 32, 64, 128, 256, 384, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536],
        Alignment::PowersOfTwo(8),
    );

    /// `kmalloc` of Linux: powers of two to 8 KiB, 96 and 192.
    pub const KMALLOC: &'static Self = &Self::checked(
        &[8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192],
        Alignment::PowersOfTwo(8),
    );

    /// `kmem_alloc` of Solaris and illumos, to 128 KiB.
    pub const KMEM_ALLOC: &'static Self = &Self::checked(
        &[
            8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448,
            512, 640, 768, 896, 1152, 1344, 1600, 2048, 2688, 4096, 8192, 12288, 16384, 24576,
            32768, 40960, 49152, 57344, 65536, 73728, 81920, 90112, 98304, 106_496, 114_688,
            122_880, 131_072,
        ],
        Alignment::Natural,
    );

    /// `umem_alloc` of libumem, to 128 KiB: also sizes for a power of two and a malloc's tag.
    pub const UMEM_ALLOC: &'static Self = &Self::checked(
        &[
            8, 16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768,
            896, 1152, 1344, 1600, 2048, 2304, 2688, 4096, 4544, 8192, 9216, 12288, 16384, 24576,
            32768, 40960, 49152, 57344, 65536, 73728, 81920, 90112, 98304, 106_496, 114_688,
            122_880, 131_072,
        ],
        Alignment::Natural,
    );

    /// kmem(9) of NetBSD, to 4096 bytes; larger sizes are whole pages.
    pub const NETBSD_KMEM: &'static Self = &Self::checked(
        &[
            8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448,
            512, 768, 1024, 2048, 4096,
        ],
        Alignment::Natural,
    );
}
