//! Whatever the bytes: no panic, an end, and frames that rise but for signals.

use proptest::prelude::*;

use super::*;

/// A word of a stack: often something that means something.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        any::<u64>(),
        (0..0x400_u64).prop_map(|offset| CODE + offset),
        (0..0x400_u64).prop_map(|offset| STACK + offset),
    ]
}

/// Call frame instructions, often true ones.
fn instructions() -> impl Strategy<Value = Vec<u8>> {
    let one = prop_oneof![
        (0_u8..64).prop_map(|offset| vec![0x0e, offset]),
        (0_u8..17, 0_u8..32).prop_map(|(register, offset)| vec![0x0c, register, offset]),
        (0_u8..17, 0_u8..8).prop_map(|(register, offset)| vec![0x80 | register, offset]),
        (0_u8..17, prop::collection::vec(any::<u8>(), 0..12)).prop_map(|(register, body)| {
            [&[0x16, register, u8::try_from(body.len()).unwrap()][..], &body].concat()
        }),
        prop::collection::vec(any::<u8>(), 0..8)
            .prop_map(|body| { [&[0x0f, u8::try_from(body.len()).unwrap()][..], &body].concat() }),
        Just(vec![0x0a]),
        Just(vec![0x0b]),
        Just(FIRST.to_vec()),
        prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(one, 0..6).prop_map(|all| all.concat())
}

fn functions() -> impl Strategy<Value = Vec<Function>> {
    prop::collection::vec((instructions(), any::<bool>()), 1..4).prop_map(|all| {
        let numbered = (0_u64..).zip(all);
        numbered
            .map(|(number, (instructions, is_signal_frame))| Function {
                start: CODE + number * 0x100,
                is_signal_frame,
                instructions,
            })
            .collect()
    })
}

fn assert_sane(stack: &Stack) {
    for pair in stack.frames.windows(2) {
        let [inner, outer] = pair else { unreachable!() };
        let (Some(one), Some(other)) = (inner.cfa, outer.cfa) else { continue };
        let last = stack.frames.last() == Some(outer);
        assert!(one < other || inner.is_signal_frame || outer.is_signal_frame || last, "{stack:?}");
    }
    assert!(!stack.end.to_string().is_empty());
}

proptest! {
    #[test]
    fn any_rules_and_any_stack_come_to_an_end(
        functions in functions(),
        words in prop::collection::vec(word(), 1..128),
        known in prop::collection::vec((0_u16..17, word()), 0..17),
        pc in 0..0x400_u64,
    ) {
        let process = process(image(&functions), &words);
        let mut start = registers(&known);
        start.set(RIP, Some(CODE + pc));
        start.set(RSP, Some(STACK));
        assert_sane(&whole(&Unwinder::new(&process), start));
    }

    #[test]
    fn any_table_comes_to_an_end(
        bytes in prop::collection::vec(any::<u8>(), 1..200),
        at in 0..0x900_usize,
        words in prop::collection::vec(word(), 1..64),
        pc in 0..0x300_u64,
    ) {
        let functions: Vec<Function> =
            (0..3).map(|number| function(CODE + number * 0x100, &frame_of(16))).collect();
        let mut image = image(&functions);
        image[HEADER + at..HEADER + at + bytes.len()].copy_from_slice(&bytes);
        assert_sane(&stack_at(&process(image, &words), CODE + pc));
    }

    #[test]
    fn any_image_comes_to_an_end(
        bytes in prop::collection::vec(any::<u8>(), 0x1000..0x1100),
        words in prop::collection::vec(word(), 1..64),
    ) {
        let mut image = image(&[function(CODE, &frame_of(16))]);
        image[40..200].copy_from_slice(&bytes[..160]);
        image[HEADER..HEADER + 0x1000].copy_from_slice(&bytes[..0x1000]);
        assert_sane(&stack_at(&process(image, &words), CODE));
    }
}
