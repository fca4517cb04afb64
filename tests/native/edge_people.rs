//! Any number of people may be named by a callback.

use super::{Field, Ids};

/// With a comparison of each id with all before it, this takes an hour.
#[test]
fn any_number_of_people_are_each_named_once_in_their_order() {
    let many: Vec<String> = (0..500_000).rev().map(|number| number.to_string()).collect();
    let (text, list) = (many.join(","), format!("[{}]", many.join(", ")));
    let ids = Ids { max_characters: 128 };
    let fields = [Field::Text(&text), Field::List(&list), Field::Text("0, x")];
    assert_eq!(ids.people(fields.into_iter()).unwrap(), [many, vec!["x".into()]].concat());
}
