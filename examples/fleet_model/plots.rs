//! Stub.
use anyhow::Result;
use std::path::Path;
use crate::outage::Outage;
use crate::outcome::Outcome;
pub(crate) fn of_rollouts(_: &[Outcome], _: &Path) -> Result<()> { Ok(()) }
pub(crate) fn of_outages(_: &[Outcome], _: &Outage, _: &Path) -> Result<()> { Ok(()) }
