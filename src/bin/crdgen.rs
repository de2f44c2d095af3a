//! `crdgen`: writes or checks the CRDs.
fn main() {}
