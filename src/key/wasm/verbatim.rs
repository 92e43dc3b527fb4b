//! What is canonical as it lies, and copied without being read: most operators and data segments.
//!
//! To say no is always right, and costs time. All bytes here are of a valid module.

/// Whether these bytes of one operator are the only canonical ones, whatever the numbering of
/// types, functions and globals.
#[inline]
pub(super) fn is_operator(operator: &[u8]) -> bool {
    match *operator {
        // No immediates.
        [_] => true,
        // Locals and labels; `memory.size`, `memory.grow`, `table.get`, `table.set`, whose memories
        // and tables keep their numbers.
        [
            0x20..=0x22 | 0x0c..=0x0e | 0x25 | 0x26 | 0x3f | 0x40,
            ref numbers @ ..,
        ] => are_minimal(numbers),
        [0x41 | 0x42, ref number @ ..] => is_minimal_signed(number),
        // Loads and stores, alignment and offset. A larger first byte names a memory.
        [0x28..=0x3e, flags, ref offset @ ..] => flags < 0x40 && are_minimal(offset),
        // Floats, as they lie.
        [0x43 | 0x44, ..] => true,
        // Blocks without result, and with a number or a vector.
        [0x02..=0x04, block_type] => matches!(block_type, 0x40 | 0x7b..=0x7f),
        // Saturating conversions; vector instructions without immediates.
        [0xfc, 0x00..=0x07] | [0xfd, _] => true,
        // `memory.copy`, `memory.fill`
        [0xfc, 0x0a | 0x0b, ref memories @ ..] => are_minimal(memories),
        _ => false,
    }
}

/// The length of the data segment at the start of these bytes, if it is canonical: passive, or
/// written to memory 0 from a constant.
pub(super) fn segment(bytes: &[u8]) -> Option<usize> {
    let contents = match *bytes {
        [0x01, ref contents @ ..] => contents,
        [0x00, 0x41, ref offset @ ..] => {
            let (number, rest) = leb128(offset)?;
            match *rest {
                [0x0b, ref contents @ ..] if is_minimal_signed(number) => contents,
                _ => return None,
            }
        }
        _ => return None,
    };
    let (length, data) = leb128(contents)?;
    if !are_minimal(length) {
        return None;
    }
    let length = length
        .iter()
        .rev()
        .fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
    Some(bytes.len() - data.len() + length)
}

/// A number in LEB128, of at most five bytes, and what follows it.
fn leb128(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let last = bytes.iter().take(5).position(|&byte| byte < 0x80)?;
    bytes.split_at_checked(last + 1)
}

/// Whether no unsigned number among these in LEB128 has padding: a last byte that adds nothing.
#[inline]
fn are_minimal(numbers: &[u8]) -> bool {
    !numbers
        .windows(2)
        .any(|pair| pair[0] >= 0x80 && pair[1] == 0x00)
}

/// The same of one signed number: its last byte must not repeat the sign of the one before.
#[inline]
fn is_minimal_signed(number: &[u8]) -> bool {
    match *number {
        [.., before, 0x00] => before & 0x40 != 0,
        [.., before, 0x7f] => before & 0x40 == 0,
        _ => true,
    }
}
