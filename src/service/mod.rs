//! Service.

#[cfg(test)]
mod explore;
mod lifecycle;

pub use crate::moment::Moment;
pub use lifecycle::{Event, Leave, Refused, Request};
