//! The hash that the chains of [`table`](crate::table) and the keys of [`address`](crate::address) share.
//!
//! This module makes no system call.

/// Returns the FNV-1a hash, which spreads short keys and keeps no secret. A program that could choose colliding
/// addresses here already chooses what the process listens on.
pub(crate) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
