// SPDX-License-Identifier: MPL-2.0
use super::*;
use proptest::prelude::*;

const TAG: [u8; 32] = [1; 32];
const D1: [u8; 32] = [2; 32];
const C2: [u8; 32] = [3; 32];

fn tree() -> Tree {
    Tree::new([42; 32])
}

fn keys(leaf: Leaf) -> PathKeys {
    PathKeys::from_bytes(leaf, &tree().path_keys(leaf)).unwrap()
}

fn copy<'a>(epoch: Epoch, c2_sealed: &'a [u8; 32]) -> Copy<'a> {
    Copy {
        tag: &TAG,
        d1: &D1,
        epoch,
        c2_sealed,
    }
}

/// [KL19]: of eight users 1..8, the group {1, 3, 4, 7, 8} is covered by KEK_1, KEK_34 and KEK_78.
#[test]
fn worked_example_of_the_paper() {
    let group: BTreeSet<Leaf> = [1, 3, 4, 7, 8].map(|user| user - 1).into();
    let kek_1 = leaf_node(0);
    let kek_34 = leaf_node(2) >> 1;
    let kek_78 = leaf_node(6) >> 1;
    let mut expected = vec![kek_1, kek_34, kek_78];
    expected.sort_unstable();
    assert_eq!(cover(&group), expected);

    let sealed = tree().admit(&TAG, &D1, &[9; 16], &C2);
    for user in 0..8 {
        let node = cover_of_member(&group, user);
        assert_eq!(node.is_some(), group.contains(&user));
        if let Some(node) = node {
            assert!(expected.contains(&node));
            let wrapped = tree().wrap(&copy([9; 16], &sealed), &group, user);
            assert_eq!(keys(user).unwrap_c2(&wrapped), Some(C2));
        }
    }
}

#[test]
fn a_million_owners() {
    let group: BTreeSet<Leaf> = (0..1_000_000).collect();
    let nodes = cover(&group);
    // 1,000,000 in binary has seven ones, each one subtree.
    assert_eq!(nodes.len(), 1_000_000u32.count_ones() as usize);
    let sealed = tree().admit(&TAG, &D1, &[9; 16], &C2);
    for leaf in [0, 1, 524_287, 524_288, 999_999] {
        let wrapped = tree().wrap(&copy([9; 16], &sealed), &group, leaf);
        assert!(nodes.contains(&wrapped.node));
        assert_eq!(keys(leaf).unwrap_c2(&wrapped), Some(C2));
    }
}

/// Whether a set of path keys opens what was wrapped for any member.
fn opens(keys: &PathKeys, group: &BTreeSet<Leaf>, epoch: Epoch, sealed: &[u8; 32]) -> bool {
    group.iter().any(|member| {
        let wrapped = tree().wrap(&copy(epoch, sealed), group, *member);
        keys.unwrap_c2(&wrapped) == Some(C2)
    })
}

fn groups() -> impl Strategy<Value = BTreeSet<Leaf>> {
    prop_oneof![
        proptest::collection::btree_set(0u32..40, 1..30),
        proptest::collection::btree_set(any::<u32>(), 1..10),
    ]
}

proptest! {
    #[test]
    fn members_open_and_others_do_not(group in groups(), other: u32) {
        let sealed = tree().admit(&TAG, &D1, &[9; 16], &C2);
        for member in &group {
            prop_assert!(opens(&keys(*member), &group, [9; 16], &sealed));
        }
        for other in [other, other % 40] {
            prop_assert_eq!(opens(&keys(other), &group, [9; 16], &sealed), group.contains(&other));
        }
    }

    #[test]
    fn who_is_near_is_enough(group in groups(), reader: u32, low in 0u32..40) {
        let sealed = tree().admit(&TAG, &D1, &[9; 16], &C2);
        for reader in group.iter().copied().chain([reader, low]) {
            let part: BTreeSet<Leaf> = group.range(near(reader)).copied().collect();
            let wrapped = tree().wrap(&copy([9; 16], &sealed), &part, reader);
            prop_assert_eq!(keys(reader).unwrap_c2(&wrapped), Some(C2));
            let up = DEPTH - wrapped.node.ilog2();
            prop_assert!(up <= NEAR);
            for i in 0..1u64 << up {
                let leaf = ((wrapped.node << up) + i - (1 << DEPTH)) as Leaf;
                prop_assert!(leaf == reader || group.contains(&leaf));
            }
        }
    }

    #[test]
    fn a_leaver_opens_nothing_new(group in groups(), pick: prop::sample::Index) {
        let leaver = *group.iter().nth(pick.index(group.len())).unwrap();
        let tree = tree();
        let before = tree.admit(&TAG, &D1, &[9; 16], &C2);
        let old = tree.wrap(&copy([9; 16], &before), &group, leaver);
        let mut rest = group.clone();
        rest.remove(&leaver);
        let after = tree.renew(&copy([9; 16], &before), [10; 16]);
        prop_assert!(!opens(&keys(leaver), &rest, [10; 16], &after));
        // Nor does the group key it kept.
        let mixed = Wrapped { c2: after, ..old };
        prop_assert_ne!(keys(leaver).unwrap_c2(&mixed), Some(C2));
        for member in &rest {
            prop_assert!(opens(&keys(*member), &rest, [10; 16], &after));
        }
    }

    #[test]
    fn the_cover_is_exact_and_minimal(group in groups()) {
        let nodes = cover(&group);
        let mut leaves = BTreeSet::new();
        for node in &nodes {
            let up = DEPTH - node.ilog2();
            for i in 0..1u64 << up {
                prop_assert!(leaves.insert(((node << up) + i - (1 << DEPTH)) as Leaf), "disjoint");
            }
        }
        prop_assert_eq!(&leaves, &group);
        // Minimal: no node's sibling is in the cover too, so none can be merged upwards.
        prop_assert!(nodes.iter().all(|n| !nodes.contains(&(n ^ 1))));
        for member in &group {
            prop_assert!(nodes.contains(&cover_of_member(&group, *member).unwrap()));
        }
    }
}
