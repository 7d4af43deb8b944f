//! Converters: what each version reads, writes, keeps, drops, edits and breaks.
