//! Labels of metrics. Each value is an enum or a constant, so users cannot choose a value.

use std::fmt::{Debug, Error, Write as _};
use std::hash::Hash;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::api::{Phase, Reason};

/// A value of an API enum, spelled as in the objects.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct ApiWord<T>(pub T);

impl<T: Debug> EncodeLabelValue for ApiWord<T> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), Error> {
        write!(encoder, "{:?}", self.0)
    }
}

/// Reason of a rejection, or `None` for an allowed request.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct VerdictReason(pub Option<Reason>);

impl EncodeLabelValue for VerdictReason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), Error> {
        match self.0 {
            Some(reason) => write!(encoder, "{reason:?}"),
            None => encoder.write_str("Allowed"),
        }
    }
}

/// Purpose of a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Purpose {
    /// The connection runs commands.
    Commands,
    /// The connection goes to a jump host, through which Writ reaches another machine.
    Jump,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct VersionLabels {
    pub version: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct PlaceLabels {
    pub place: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct DecisionLabels {
    pub verdict: &'static str,
    pub reason: VerdictReason,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct FinishedLabels {
    pub phase: ApiWord<Phase>,
    pub reason: ApiWord<Reason>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct CallLabels {
    pub operation: &'static str,
    pub outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct OperationLabels {
    pub operation: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct FailureLabels {
    pub controller: &'static str,
    pub category: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct ControllerLabels {
    pub controller: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct OutcomeLabels {
    pub outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct StateLabels {
    pub state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct MachinePhaseLabels {
    pub phase: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct PurposeLabels {
    pub purpose: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct KindLabels {
    pub kind: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct StreamLabels {
    pub stream: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct CauseLabels {
    pub cause: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct WarningLabels {
    pub warnings: &'static str,
}
