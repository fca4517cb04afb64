//! The part of the loop that uses the service's fold, without any client.

pub mod folding;
pub mod given;
