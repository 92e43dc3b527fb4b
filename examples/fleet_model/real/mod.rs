//! Stub.
use anyhow::Result;
#[derive(Debug, clap::Args)]
pub(crate) struct RealArgs {}
#[derive(Debug, clap::Args)]
pub(crate) struct MemberArgs {}
pub(crate) fn compare(_: &RealArgs) -> Result<()> { Ok(()) }
pub(crate) fn take_part(_: &MemberArgs) -> Result<()> { Ok(()) }
