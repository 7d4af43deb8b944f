//! Entry points for fuzzers.

use crate::{Hive, HiveEditor, RegType};
use drylab_block::Limits;

/// Most values looked at in one input: damaged lists may all point to one long list.
const VALUES_MAX: usize = 1 << 16;

/// Opens the bytes as a hive, walks every key and value, edits it, and reads the edits back.
///
/// # Panics
/// Only on a bug of ours: when a value that was set does not read back.
pub fn hive(data: &[u8]) {
    let limits = Limits::DEFAULT;
    let Ok(hive) = Hive::open(data, &limits) else {
        return;
    };
    let mut left = VALUES_MAX;
    let mut bytes_left = data.len().saturating_mul(4);
    for key in hive.walk().into_iter().flatten().flatten() {
        let _ = key.class_name();
        for value in key.values().into_iter().flatten() {
            left = left.saturating_sub(1);
            bytes_left = bytes_left.saturating_sub(value.len());
            let _ = (
                value.as_u32(),
                value.as_u64(),
                value.as_string(),
                value.as_multi_string(),
            );
            if left == 0 || bytes_left == 0 {
                return;
            }
        }
    }
    edit(data, &limits);
}

fn edit(data: &[u8], limits: &Limits) {
    let Ok(mut editor) = HiveEditor::open(data.to_vec(), limits) else {
        return;
    };
    let path = r"Drylab\Fuzz";
    if editor.create_key(path).is_err() {
        return;
    }
    let text = vec![0x41; 300];
    let set = editor
        .set_value(path, "text", RegType::BINARY, &text)
        .is_ok();
    let bytes = editor.finish();
    let Ok(hive) = bytes.and_then(|bytes| Hive::open(bytes, limits)) else {
        return;
    };
    let read = hive
        .key(path)
        .ok()
        .flatten()
        .and_then(|key| key.value("text").ok().flatten());
    assert!(
        !set || read.is_some_and(|value| value.as_binary() == text),
        "a value that was set reads back"
    );
}
