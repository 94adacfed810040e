//! Every size of every table goes to the smallest class that holds it, and every alignment to one that has it.

use uma_malloc::{Alignment, MAX_CLASS_SIZE, SizeClasses, TableFault};

const TABLES: [(&str, &SizeClasses); 6] = [
    ("general", SizeClasses::GENERAL),
    ("malloc9", SizeClasses::MALLOC9),
    ("kmalloc", SizeClasses::KMALLOC),
    ("kmem_alloc", SizeClasses::KMEM_ALLOC),
    ("umem_alloc", SizeClasses::UMEM_ALLOC),
    ("netbsd", SizeClasses::NETBSD_KMEM),
];

/// The sizes of a table.
fn sizes(table: &SizeClasses) -> Vec<usize> {
    (0..table.count()).map(|class| table.size(class)).collect()
}

fn check_all_sizes(name: &str, table: &SizeClasses) {
    let sizes = sizes(table);
    let mut smallest = 0;
    for size in 0..=table.max() + 4096 {
        while smallest < sizes.len() && sizes[smallest] < size {
            smallest += 1;
        }
        let expected = (smallest < sizes.len()).then_some(smallest);
        assert_eq!(table.class_of(size), expected, "{size} bytes in {name}");
    }
    for size in [usize::MAX, usize::MAX - 7, isize::MAX as usize, 1 << 32, (1 << 32) + 8] {
        assert_eq!(table.class_of(size), None);
    }
}

#[test]
fn every_size_has_the_smallest_class_that_holds_it() {
    for (name, table) in TABLES {
        check_all_sizes(name, table);
    }
    // Tables that are unlike those: one class, dense, the largest there can be.
    check_all_sizes("one", &SizeClasses::checked(&[8], Alignment::Natural));
    check_all_sizes("odd", &SizeClasses::checked(&[1032], Alignment::Natural));
    check_all_sizes("edge", &SizeClasses::checked(&[1024, 1032, 1040, 1048], Alignment::Natural));
    let dense: Vec<usize> = (1..=120).map(|step| 5000 + step * 8).collect();
    check_all_sizes("dense", &SizeClasses::checked(&dense, Alignment::Fixed(8)));
    let largest =
        SizeClasses::checked(&[64, MAX_CLASS_SIZE - 8, MAX_CLASS_SIZE], Alignment::Natural);
    check_all_sizes("largest", &largest);
}

#[test]
fn every_alignment_has_the_smallest_class_that_has_it() {
    for (name, table) in TABLES {
        for power in 0..=14 {
            let align = 1 << power;
            for size in (0..=table.max() + 64).step_by(if power < 4 { 61 } else { 13 }) {
                let fits =
                    |&class: &usize| table.size(class) >= size && table.align(class) >= align;
                let expected = (0..table.count()).find(fits);
                assert_eq!(table.class_for(size, align), expected, "{size}, {align} in {name}");
            }
        }
    }
}

#[test]
fn classes_are_aligned_by_their_rule() {
    for (name, table) in TABLES {
        for class in 0..table.count() {
            let (size, align) = (table.size(class), table.align(class));
            assert!(align >= table.min_align() && align <= 4096);
            if size.is_power_of_two() {
                assert_eq!(align, size.min(4096), "{size} in {name}");
            }
            if size % 64 == 0 && ["kmem_alloc", "general"].contains(&name) {
                assert!(align >= 64, "{size} in {name}");
            }
            if size % 4096 == 0 {
                assert_eq!(align, 4096, "{size} in {name}");
            }
        }
    }
    let of = |table: &SizeClasses, size| table.align(table.class_of(size).unwrap());
    assert_eq!(of(SizeClasses::MALLOC9, 384), 8);
    assert_eq!((of(SizeClasses::KMALLOC, 96), of(SizeClasses::KMALLOC, 192)), (8, 8));
    assert_eq!(SizeClasses::GENERAL.min_align(), 16);
    let fixed = SizeClasses::checked(&[8, 4096], Alignment::Fixed(32));
    assert_eq!((of(&fixed, 8), of(&fixed, 4096)), (32, 32));
}

#[test]
fn little_goes_unused() {
    let table = SizeClasses::GENERAL;
    for size in 1..=table.max() {
        let class = table.size(table.class_of(size).unwrap());
        let unused = class - size;
        assert!(unused < 16 || unused * 5 < class, "{size} bytes take {class}");
    }
}

#[test]
fn bad_tables_are_refused() {
    let natural = |sizes: &[usize]| SizeClasses::new(sizes, Alignment::Natural).map(|_| ());
    assert_eq!(natural(&[]), Err(TableFault::Empty));
    assert_eq!(natural(&[8; 121]), Err(TableFault::TooMany));
    for size in [0, 7, 12, MAX_CLASS_SIZE + 8, usize::MAX - 7] {
        assert_eq!(natural(&[size]), Err(TableFault::BadSize(size)));
    }
    assert_eq!(natural(&[16, 32, 32]), Err(TableFault::NotRising(32)));
    assert_eq!(natural(&[16, 32, 24]), Err(TableFault::NotRising(24)));
    for align in [0, 4, 24, 8192] {
        for alignment in [Alignment::Fixed(align), Alignment::PowersOfTwo(align)] {
            let refused = SizeClasses::new(&[64], alignment).map(|_| ());
            assert_eq!(refused, Err(TableFault::BadAlign(align)));
            assert!(TableFault::BadAlign(align).to_string().contains(&align.to_string()));
        }
    }
}
