//! What the loop takes from the service, its fold, and makes records of: without any client.

pub mod folding;
pub mod given;
