//! Tests of values in pieces.

use proptest::prelude::*;

use super::*;

const P: usize = PIECE_BYTES;

fn text(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|index| (index as u8).wrapping_mul(31).wrapping_add((index >> 9) as u8).wrapping_add(seed))
        .collect()
}

fn addresses(value: &SharedValue) -> Vec<*const u8> {
    value.pieces(0..value.len()).map(|piece| piece.as_ptr()).collect()
}

/// Which pieces a write to `value` copied: those that stay where they were, were made before, or are common zeros are not.
fn copied(value: &mut SharedValue, offset: usize, bytes: &[u8]) -> Vec<usize> {
    // Cut it first, or all of it is one piece.
    value.write(Patch::new(0, b""));
    let before = addresses(value);
    let patch = Patch::new(offset, bytes);
    let mut made: Vec<*const u8> = patch.whole.iter().map(|piece| piece.as_slice().as_ptr()).collect();
    made.push(ZEROS.as_ptr());
    value.write(patch);
    let after = addresses(value);
    (0..after.len()).filter(|i| before.get(*i) != after.get(*i) && !made.contains(&after[*i])).collect()
}

#[test]
fn an_edit_copies_only_the_pieces_at_its_ends() {
    let huge = Bytes::from(text(8 * P + 100, 0));
    for (offset, length, expected) in [
        (8 * P + 100, 2, vec![8]),
        (8 * P + 100, P, vec![8, 9]),
        (8 * P + 100, 3 * P, vec![8, 11]),
        (3 * P + 5, 1, vec![3]),
        (3 * P, P, vec![]),
        (3 * P - 1, P + 2, vec![2, 4]),
        (P / 2, 5 * P, vec![0, 5]),
        (0, 9 * P, vec![]),
        (20 * P + 7, 1, vec![8, 20]),
    ] {
        let mut value = SharedValue::from(huge.clone());
        assert_eq!(copied(&mut value, offset, &vec![1; length]), expected, "{length} bytes at {offset}");
        let mut whole = huge.to_vec();
        overwrite(&mut whole, offset, &vec![1; length]);
        assert_eq!(value.to_bytes(), whole);
    }
}

#[test]
fn a_gap_costs_no_memory_of_its_own() {
    let mut value = SharedValue::from(Bytes::new());
    value.write(Patch::new((512 << 20) - 1, b"x"));
    assert_eq!(value.len(), 512 << 20);
    let pieces = addresses(&value);
    assert_eq!(pieces.iter().filter(|piece| **piece != ZEROS.as_ptr()).count(), 1);
    assert_eq!(value.pieces(P - 1..P + 1).collect::<Vec<_>>().concat(), [0, 0]);
}

#[test]
fn a_piece_is_edited_in_place_while_nobody_else_holds_it() {
    let mut value = SharedValue::from(Bytes::from(text(3 * P + 10, 0)));
    assert_eq!(copied(&mut value, 3 * P + 10, b"ab"), [3], "a slice of what came in");
    assert!(copied(&mut value, 3 * P + 12, &[b'c'; 10]).is_empty(), "within the spare room");
    assert_eq!(copied(&mut value, P + 3, b"x"), [1]);
    assert!(copied(&mut value, P + 9, b"y").is_empty());
    let read: Vec<Bytes> = value.pieces(P..P + 10).collect();
    assert_eq!(copied(&mut value, P + 4, b"z"), [1], "a reader holds it");
    assert_ne!(read.concat()[4], b'z');
    let copy = value.clone();
    assert_eq!(copied(&mut value, 3 * P + 30, b"d"), [3], "a copy holds all");
    assert_eq!((copy.len(), value.len()), (3 * P + 22, 3 * P + 31));
}

#[test]
fn what_is_replaced_is_handed_out_not_freed() {
    let huge = Bytes::from(text(5 * P, 0));
    let mut value = SharedValue::from(huge.clone());
    let replaced = value.write(Patch::new(P / 2, &vec![1; 4 * P]));
    let parts: Vec<Bytes> = replaced.iter().map(Piece::share).collect();
    assert_eq!(parts.concat(), huge);
    assert!(value.write(Patch::new(0, b"in place")).is_empty());
}

#[test]
fn nothing_of_an_edit_is_pinned_and_room_is_bounded() {
    let mut value = SharedValue::from(Bytes::new());
    let mut length = 0;
    while length < 3 * P {
        value.write(Patch::new(length, &[7; 1000]));
        length += 1000;
        let room = value.memory_bytes() - value.len();
        assert!(room <= length.min(P), "{room} bytes spare at {length}");
    }
    let edit = text(2 * P, 0);
    value.write(Patch::new(0, &edit));
    assert!(addresses(&value).iter().all(|piece| !edit.as_ptr_range().contains(piece)));
}

/// Lengths and offsets on, just beside, and far from the pieces' borders.
fn near_borders(pieces_max: usize) -> impl Strategy<Value = usize> {
    (0..=pieces_max, prop_oneof![0..4usize, P - 3..P, 0..P]).prop_map(|(piece, offset)| piece * P + offset)
}

#[derive(Debug, Clone)]
enum Step {
    Set(usize),
    Append(usize),
    SetRange(usize, usize),
    GetRange(usize, usize),
    Copy,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        near_borders(3).prop_map(Step::Set),
        prop_oneof![0..200usize, near_borders(2)].prop_map(Step::Append),
        (near_borders(6), prop_oneof![0..200usize, near_borders(2)])
            .prop_map(|(at, length)| Step::SetRange(at, length)),
        (near_borders(6), near_borders(3)).prop_map(|(at, length)| Step::GetRange(at, length)),
        Just(Step::Copy),
    ];
    prop::collection::vec(step, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn edits_match_a_vector_and_leave_copies_alone(steps in steps()) {
        let (mut value, mut model) = (SharedValue::from(Bytes::new()), Vec::new());
        let mut copies = Vec::new();
        for (step, seed) in steps.into_iter().zip(1u8..) {
            match step {
                Step::Set(length) => {
                    model = text(length, seed);
                    value = Bytes::from(model.clone()).into();
                }
                Step::Append(length) => {
                    let bytes = text(length, seed);
                    value.write(Patch::new(model.len(), &bytes));
                    model.extend_from_slice(&bytes);
                }
                Step::SetRange(offset, length) => {
                    let bytes = text(length, seed);
                    value.write(Patch::new(offset, &bytes));
                    model.resize(model.len().max(offset + length), 0);
                    model[offset..offset + length].copy_from_slice(&bytes);
                }
                Step::GetRange(start, length) => {
                    let (start, end) = (start.min(model.len()), (start + length).min(model.len()));
                    let read = value.pieces(start..end).collect::<Vec<_>>().concat();
                    prop_assert!(read == model[start..end]);
                }
                Step::Copy => copies.push((value.clone(), model.clone())),
            }
            prop_assert_eq!(value.len(), model.len());
            prop_assert!(value.as_slice().is_none_or(|slice| slice == model));
        }
        copies.push((value, model));
        for (value, model) in copies {
            prop_assert!(value.to_bytes() == model);
        }
    }
}
