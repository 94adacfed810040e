//! Programs that are decided on the way: what the next operation can be depends on what came before.

/// The bytes that decide, one or two for each question.
#[derive(Clone, Debug)]
pub struct Decisions(pub Vec<u8>);

#[cfg(feature = "arbitrary")]
impl<'a> arbitrary::Arbitrary<'a> for Decisions {
    fn arbitrary(input: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self> {
        let all = input.len();
        input.bytes(all).map(|bytes| Self(bytes.to_vec()))
    }
}
