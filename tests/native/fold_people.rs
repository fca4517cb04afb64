//! Any number of people may be copied in.

use super::copy;

/// With an insertion for each person, this takes minutes.
#[test]
fn any_number_of_people_are_copied_in_once_in_the_order_of_their_ids() {
    let many: Vec<String> = (0..1_000_000).map(|number| format!("{number:06}")).collect();
    let falling: Vec<&str> = many.iter().rev().map(String::as_str).collect();
    let mut known = Vec::new();
    assert!(copy(&mut known, &falling[..2], 3));
    assert!(copy(&mut known, &[&falling[1..], &falling[..3]].concat(), 2));
    assert!(!copy(&mut known, &falling, 2));
    let found: Vec<_> = known.iter().map(|each| (each.user_id, each.at)).collect();
    assert_eq!(found, many.iter().map(|id| (id.as_str(), 2)).collect::<Vec<_>>());
}
