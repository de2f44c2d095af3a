//! Labels of metrics. Each is an enum or a word of the source, so that what users choose cannot become one.

use std::fmt::{Debug, Error, Write as _};
use std::hash::Hash;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::api::{Phase, Reason};

/// A word of the API, as it stands in the objects.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Word<T>(pub T);

impl<T: Debug> EncodeLabelValue for Word<T> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), Error> {
        write!(encoder, "{:?}", self.0)
    }
}

/// Why it was rejected; None where it was allowed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct OfVerdict(pub Option<Reason>);

impl EncodeLabelValue for OfVerdict {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), Error> {
        match self.0 {
            Some(reason) => write!(encoder, "{reason:?}"),
            None => encoder.write_str("Allowed"),
        }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Purpose {
    /// To run commands.
    Commands,
    /// To reach another machine through it.
    Jump,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct Version {
    pub version: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct Decided {
    pub verdict: &'static str,
    pub reason: OfVerdict,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct Finished {
    pub phase: Word<Phase>,
    pub reason: Word<Reason>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct Called {
    pub operation: &'static str,
    pub outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct Operation {
    pub operation: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct Failed {
    pub controller: &'static str,
    pub category: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct Controller {
    pub controller: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct Outcome {
    pub outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct State {
    pub state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct PhaseOfMachine {
    pub phase: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct For {
    pub purpose: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct Kind {
    pub kind: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct Stream {
    pub stream: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct Cause {
    pub cause: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct Warned {
    pub warnings: &'static str,
}
