//! Cylinders, heads and sectors, by the appendix "CHS Calculation" of the specification.

use super::SECTOR;
use crate::math::{div, div_up};

/// The geometry in a footer. Whatever it says, a file may hold another number of sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Geometry {
    /// Cylinders.
    pub cylinders: u16,
    /// Heads.
    pub heads: u8,
    /// Sectors of a track.
    pub sectors_per_track: u8,
}

impl Geometry {
    /// The largest: 65,535 × 16 × 255 sectors, 136,899,993,600 bytes (127.5 GiB).
    pub const MAX: Self = Self {
        cylinders: u16::MAX,
        heads: 16,
        sectors_per_track: 255,
    };

    /// The specification's geometry for a number of sectors: that many, or up to a cylinder less; at most [`Self::MAX`].
    #[must_use]
    pub fn of(sectors: u64) -> Self {
        let sectors = sectors.min(Self::MAX.sectors());
        let (heads, per_track) = shape(sectors);
        let cylinders = div(div(sectors, per_track), heads);
        // Both shapes fit their fields, and the cylinders do because of the bound above.
        Self {
            cylinders: u16::try_from(cylinders).unwrap_or(u16::MAX),
            heads: u8::try_from(heads).unwrap_or(u8::MAX),
            sectors_per_track: u8::try_from(per_track).unwrap_or(u8::MAX),
        }
    }

    /// The first geometry of [`Self::of`] that holds `sectors`; [`Self::MAX`] for more than it holds.
    #[must_use]
    pub fn holding(sectors: u64) -> Self {
        // A cylinder is at most 4,080 sectors, so the next multiple is soon found; where the shape changes on the way,
        // the one after it is.
        (0..=8160u64)
            .map(|more| Self::of(sectors.saturating_add(more)))
            .find(|found| found.sectors() >= sectors)
            .unwrap_or(Self::MAX)
    }

    /// Sectors in all.
    #[must_use]
    pub fn sectors(self) -> u64 {
        u64::from(self.cylinders)
            .saturating_mul(u64::from(self.heads))
            .saturating_mul(u64::from(self.sectors_per_track))
    }

    /// Bytes in all.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.sectors().saturating_mul(SECTOR)
    }
}

impl std::fmt::Display for Geometry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            cylinders,
            heads,
            sectors_per_track,
        } = self;
        write!(f, "{cylinders}/{heads}/{sectors_per_track}")
    }
}

/// Heads and sectors of a track.
fn shape(sectors: u64) -> (u64, u64) {
    if sectors >= 65_535 * 16 * 63 {
        return (16, 255);
    }
    let tracks = div(sectors, 17);
    let heads = div_up(tracks, 1024).max(4);
    if heads <= 16 && tracks < heads.saturating_mul(1024) {
        (heads, 17)
    } else if div(sectors, 31) < 16 * 1024 {
        (16, 31)
    } else {
        (16, 63)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_as_measured_with_qemu_img() {
        const MIB: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        for (asked, given) in [
            (MIB, 1_079_296),
            (10 * MIB, 10_514_432),
            (100 * MIB, 104_865_792),
            (GIB, 1_073_995_776),
            (8 * GIB, 8_590_417_920),
            (40 * GIB, 42_951_106_560),
            (136_365_211_648, 136_365_219_840),
        ] {
            assert_eq!(Geometry::holding(asked / SECTOR).bytes(), given, "{asked}");
        }
        assert_eq!(Geometry::MAX.bytes(), 136_899_993_600);
        assert_eq!(Geometry::holding(1 << 40), Geometry::MAX);
    }

    #[test]
    fn the_geometry_of_a_size_loses_less_than_a_cylinder() {
        for sectors in (0..300_000_000u64).step_by(99_991) {
            let geometry = Geometry::of(sectors);
            let cylinder = u64::from(geometry.heads) * u64::from(geometry.sectors_per_track);
            let lost = sectors.min(Geometry::MAX.sectors()) - geometry.sectors();
            assert!(lost < cylinder, "{sectors} {geometry}");
        }
    }
}
