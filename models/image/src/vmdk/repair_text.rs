//! Mending the text of a descriptor.

use super::disk::Vmdk;
use super::header::SECTOR;
use super::text::Text;
use crate::edit::Plan;
use crate::math::div;

impl Vmdk {
    /// The text as a repair leaves it. The sizes of extents must be in it; words and lines that only other programs miss
    /// are where there is room for them.
    pub(super) fn mended_text(&self, plan: &mut Plan) -> Text {
        let mut text = self.text.clone();
        for part in &self.parts {
            let line = self.descriptor.extents.get(part.line);
            let sectors = div(part.length, SECTOR);
            if line.is_some_and(|line| line.sectors != sectors) {
                text = text.with(text.sectors(part.line), sectors);
            }
        }
        if !text.is_descriptor() {
            return text;
        }
        let mut take = |text: &mut Text, new: Text, what: &str| {
            if new.fits() {
                *text = new;
            } else {
                plan.note(format!("the descriptor has no room for {what}"));
            }
        };
        for (number, line) in self.descriptor.extents.iter().enumerate() {
            let new = if self.text.area.is_some() {
                let is_wrong = !line.kind.eq_ignore_ascii_case("SPARSE");
                is_wrong.then(|| text.with(text.kind(number), "SPARSE"))
            } else {
                let is_wrong = line.lacks_offset();
                is_wrong.then(|| text.with(text.behind_name(number), " 0"))
            };
            if let Some(new) = new {
                take(&mut text, new, "the right extent line");
            }
        }
        if self.descriptor.value("parentCID").is_none() {
            let new = text.with_line("CID", "parentCID=ffffffff");
            take(&mut text, new, "the line parentCID");
        }
        let named = self.descriptor.value("createType");
        if named != Some(self.subformat.as_str()) {
            let kind = &self.subformat;
            let new = match named {
                Some(_) => text.with(text.value("createType"), kind),
                None => text.with_line("parentCID", &format!("createType=\"{kind}\"")),
            };
            take(&mut text, new, "the right createType");
        }
        text
    }
}
