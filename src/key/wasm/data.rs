//! Data segments: each stays in its place, in the shorter of its spellings.

use wasm_encoder::DataSection;
use wasm_encoder::reencode::Reencode as _;
use wasmparser::{BinaryReader, Data};

use super::build::Builder;
use super::{Unkeyable, encode, invalid, verbatim};

impl Builder<'_, '_> {
    pub(super) fn data(&mut self) -> Result<DataSection, Unkeyable> {
        let mut section = DataSection::new();
        let Some(contents) = self.source.data.clone() else {
            return Ok(section);
        };
        let contents = &self.source.bytes[contents];
        let mut reader = BinaryReader::new_features(contents, 0, self.source.features);
        for _ in 0..reader.read_var_u32().map_err(invalid)? {
            let here = reader.current_position();
            match verbatim::segment(&contents[here..]) {
                Some(length) => {
                    section.raw(reader.read_bytes(length).map_err(invalid)?);
                }
                None => {
                    let segment: Data<'_> = reader.read().map_err(invalid)?;
                    self.parse_data(&mut section, segment)
                        .map_err(encode::failed)?;
                }
            }
        }
        Ok(section)
    }
}
