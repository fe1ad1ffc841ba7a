//! Decimal numbers, written and read without `core::fmt`.
//!
//! This module makes no system call, allocates nothing and cannot panic.

use crate::error::{Error, Fault};
use crate::variable::Variable;

/// The most digits of a 64-bit number.
pub const DIGITS: usize = 20;

/// Writes `value` in decimal to the end of `digits` and returns that end. It cannot fail or panic, so it may run
/// between clone and execve.
#[must_use]
pub fn decimal(mut value: u64, digits: &mut [u8; DIGITS]) -> &[u8] {
    let mut rest = digits.len();
    for (position, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
        rest = position;
        if value == 0 {
            break;
        }
    }
    digits.get(rest..).unwrap_or(&[])
}

/// Reads the value of `variable`, a decimal number up to `most`.
pub(crate) fn number(variable: Variable, value: &[u8], most: u64) -> Result<u64, Error> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(variable.fault(match value {
            [b'-', rest @ ..] if !rest.is_empty() && rest.iter().all(u8::is_ascii_digit) => Fault::OutOfRange,
            _ => Fault::NotANumber,
        }));
    }
    value_of(value).filter(|number| *number <= most).ok_or(variable.fault(Fault::OutOfRange))
}

/// Reads decimal digits; `None` if there are none, another byte, or more than 64 bits hold.
pub(crate) fn value_of(digits: &[u8]) -> Option<u64> {
    let add = |sum: u64, digit: &u8| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(digit.into())
    };
    digits.iter().try_fold(0, add).filter(|_| !digits.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_writes_every_length() {
        let mut digits = [0; DIGITS];
        let mut value = 0_u64;
        loop {
            assert_eq!(decimal(value, &mut digits), std::format!("{value}").as_bytes());
            assert_eq!(decimal(value / 10 * 10, &mut digits), std::format!("{}", value / 10 * 10).as_bytes());
            let Some(next) = value.checked_mul(10).and_then(|value| value.checked_add(9)) else {
                break;
            };
            value = next;
        }
        assert_eq!(decimal(u64::MAX, &mut digits), b"18446744073709551615");
        assert_eq!(decimal(0, &mut digits), b"0");
    }
}
