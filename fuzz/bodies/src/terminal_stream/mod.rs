/// Holds one input to what must be true.
pub fn run(_input: &[u8]) {}
