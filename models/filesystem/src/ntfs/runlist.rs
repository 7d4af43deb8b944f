//! Runs: which clusters of the volume hold the clusters of a stream.
//!
//! ```text
//! one run: header byte 0xOL, L bytes of length, O bytes of signed distance from the run before (none: sparse); 0 ends
//! ```

use drylab_block::{Error, Result};

/// Clusters that lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// First cluster of the stream.
    pub(crate) vcn: u64,
    /// First cluster of the volume; `None` for a hole.
    pub(crate) lcn: Option<u64>,
    /// Number of clusters, never 0.
    pub(crate) clusters: u64,
}

impl Run {
    fn end(&self) -> u64 {
        self.vcn.saturating_add(self.clusters)
    }
}

fn unsigned(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

fn signed(bytes: &[u8]) -> i64 {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let start = if negative { -1i64 } else { 0 };
    bytes
        .iter()
        .rev()
        .fold(start, |value, byte| (value << 8) | i64::from(*byte))
}

/// Decodes mapping pairs that start at cluster `vcn` of the stream, in a volume of `clusters` clusters.
pub(crate) fn decode(bytes: &[u8], mut vcn: u64, clusters: u64) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    let mut rest = bytes;
    let mut lcn = 0i64;
    loop {
        let cut = || {
            Error::corrupt(format_args!(
                "run {} does not end inside its attribute",
                runs.len()
            ))
        };
        let (header, tail) = rest.split_first().ok_or_else(cut)?;
        if *header == 0 {
            return Ok(runs);
        }
        let (length_bytes, distance_bytes) = (usize::from(header & 0xF), usize::from(header >> 4));
        let (length, tail) = tail.split_at_checked(length_bytes).ok_or_else(cut)?;
        let (distance, tail) = tail.split_at_checked(distance_bytes).ok_or_else(cut)?;
        rest = tail;
        let bad = |what: &str| Error::corrupt(format_args!("run {}: {what}", runs.len()));
        let count = unsigned(length);
        if length_bytes > 8 || distance_bytes > 8 || count == 0 || count > i64::MAX.unsigned_abs() {
            return Err(bad("no sound length or distance"));
        }
        let place = if distance_bytes == 0 {
            None
        } else {
            lcn = lcn
                .checked_add(signed(distance))
                .ok_or_else(|| bad("distance out of range"))?;
            let place = u64::try_from(lcn).map_err(|_| bad("lies before the volume"))?;
            if place.checked_add(count).is_none_or(|end| end > clusters) {
                return Err(bad(&format!(
                    "clusters {place} and {count} from there end past the volume ({clusters})"
                )));
            }
            Some(place)
        };
        runs.push(Run {
            vcn,
            lcn: place,
            clusters: count,
        });
        vcn = vcn
            .checked_add(count)
            .ok_or_else(|| Error::corrupt("runs name more than 2^64 clusters"))?;
    }
}

/// A part of a stream that lies together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Byte offset in the volume; `None` for a hole.
    pub(crate) volume: Option<u64>,
    /// Bytes.
    pub(crate) length: u64,
}

/// The pieces of `length` bytes at `offset` of a stream.
pub(crate) fn pieces(runs: &[Run], cluster: u64, offset: u64, length: u64) -> Result<Vec<Piece>> {
    let mut at = offset;
    let end = offset
        .checked_add(length)
        .ok_or_else(|| Error::corrupt("stream offset past 2^64"))?;
    let mut found = Vec::new();
    while at < end {
        let vcn = at.checked_div(cluster).unwrap_or(0);
        let index = runs.partition_point(|run| run.end() <= vcn);
        let Some(run) = runs.get(index).filter(|run| run.vcn <= vcn) else {
            return Err(Error::corrupt(format_args!(
                "cluster {vcn} of the stream is in none of its {} runs",
                runs.len()
            )));
        };
        let start = run.vcn.saturating_mul(cluster);
        let take = run
            .end()
            .saturating_mul(cluster)
            .min(end)
            .saturating_sub(at);
        let volume = run.lcn.map(|lcn| {
            lcn.saturating_mul(cluster)
                .saturating_add(at.saturating_sub(start))
        });
        found.push(Piece {
            volume,
            length: take,
        });
        at = at.saturating_add(take.max(1));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_decode_with_holes_and_backward_distances() {
        let bytes = [0x21, 0x18, 0x34, 0x12, 0x01, 0x08, 0x11, 0x10, 0xF0, 0x00];
        let runs = decode(&bytes, 0, 1 << 20).unwrap();
        let expected = [
            (0, Some(0x1234), 0x18),
            (0x18, None, 8),
            (0x20, Some(0x1224), 0x10),
        ];
        assert_eq!(
            runs.iter()
                .map(|run| (run.vcn, run.lcn, run.clusters))
                .collect::<Vec<_>>(),
            expected
        );
        let found = pieces(&runs, 4096, 0x17 * 4096 + 5, 10 * 4096).unwrap();
        assert_eq!(
            found.iter().map(|piece| piece.length).sum::<u64>(),
            10 * 4096
        );
        assert_eq!(found[1].volume, None);
    }

    #[test]
    fn runs_past_the_volume_or_without_end_are_corrupt() {
        assert!(decode(&[0x21, 0x18, 0x34, 0x12, 0x00], 0, 0x1234).is_err());
        assert!(decode(&[0x11, 0x01, 0xFF, 0x00], 0, 100).is_err());
        assert!(decode(&[0x21, 0x18, 0x34], 0, 1 << 20).is_err());
        assert!(decode(&[], 0, 100).is_err());
    }
}
