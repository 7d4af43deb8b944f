//! Rust source as the checks want it: without comments, text and tests.

/// What one file says outside its comments and its `#[cfg(test)]` items.
pub(crate) struct Code {
    /// The source with comments and the content of texts as blanks; every line keeps its number.
    pub(crate) bare: String,
    /// Texts with the line on which each begins.
    pub(crate) texts: Vec<(usize, String)>,
}

impl Code {
    /// Reads a source file, its tests included.
    pub(crate) fn of_all(source: &str) -> Self {
        let mut reader = Reader {
            chars: source.chars().collect(),
            at: 0,
            bare: String::new(),
            texts: Vec::new(),
        };
        reader.read();
        let Reader { bare, texts, .. } = reader;
        Self { bare, texts }
    }

    /// Reads a source file without its tests.
    pub(crate) fn of(source: &str) -> Self {
        let Self { bare, mut texts } = Self::of_all(source);
        let (bare, gone) = without_tests(&bare);
        texts.retain(|(line, _)| !gone.iter().any(|range| range.contains(line)));
        Self { bare, texts }
    }

    /// Identifiers, keywords and paths of two parts (`std::env`), each with its line.
    pub(crate) fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        self.bare.lines().enumerate().flat_map(|(index, line)| {
            let part = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':' || c == '!');
            line.split(part)
                .filter(|word| !word.is_empty())
                .map(move |word| (index + 1, word))
        })
    }
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    bare: String,
    texts: Vec<(usize, String)>,
}

impl Reader {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    /// Takes a character that is not code: line ends stay, the rest becomes a blank.
    fn blank(&mut self) {
        self.bare
            .push(if self.peek(0) == '\n' { '\n' } else { ' ' });
        self.at += 1;
    }

    fn keep(&mut self) {
        self.bare.push(self.peek(0));
        self.at += 1;
    }

    fn read(&mut self) {
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '/') => {
                    while self.at < self.chars.len() && self.peek(0) != '\n' {
                        self.blank();
                    }
                }
                ('/', '*') => self.block_comment(),
                ('"', _) => self.text(),
                ('r', '"' | '#') if !self.inside_word() => match self.hashes() {
                    Some(hashes) => {
                        for _ in 0..=hashes {
                            self.keep();
                        }
                        self.raw(hashes);
                    }
                    None => self.keep(),
                },
                // A character, not a lifetime.
                ('\'', '\\') => self.character(),
                ('\'', _) if self.peek(2) == '\'' => self.character(),
                _ => self.keep(),
            }
        }
    }

    /// Whether the `r` here ends a longer word; `br` and `cr` begin texts.
    fn inside_word(&self) -> bool {
        let before = |back: usize| {
            self.at
                .checked_sub(back)
                .map_or(' ', |index| self.chars[index])
        };
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let prefix = matches!(before(1), 'b' | 'c') && !word(before(2));
        word(before(1)) && !prefix
    }

    /// How many `#` stand between `r` and the quote, if there is a quote.
    fn hashes(&self) -> Option<usize> {
        let mut count = 0;
        while self.peek(1 + count) == '#' {
            count += 1;
        }
        (self.peek(1 + count) == '"').then_some(count)
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    self.blank();
                    continue;
                }
            }
            self.blank();
            self.blank();
            if depth == 0 {
                return;
            }
        }
    }

    fn line(&self) -> usize {
        self.bare.matches('\n').count() + 1
    }

    fn text(&mut self) {
        let line = self.line();
        let mut text = String::new();
        self.keep();
        while self.at < self.chars.len() && self.peek(0) != '"' {
            if self.peek(0) == '\\' {
                text.push('\\');
                self.blank();
            }
            text.push(self.peek(0));
            self.blank();
        }
        self.keep_if_there();
        self.texts.push((line, text));
    }

    fn raw(&mut self, hashes: usize) {
        let line = self.line();
        let mut text = String::new();
        self.keep();
        while self.at < self.chars.len() {
            if self.peek(0) == '"' && (1..=hashes).all(|ahead| self.peek(ahead) == '#') {
                for _ in 0..=hashes {
                    self.keep();
                }
                break;
            }
            text.push(self.peek(0));
            self.blank();
        }
        self.texts.push((line, text));
    }

    fn character(&mut self) {
        self.keep();
        while self.at < self.chars.len() && self.peek(0) != '\'' {
            if self.peek(0) == '\\' {
                self.blank();
            }
            self.blank();
        }
        self.keep_if_there();
    }

    fn keep_if_there(&mut self) {
        if self.at < self.chars.len() {
            self.keep();
        }
    }
}

/// Blanks every item behind `#[cfg(test)]`; also gives the lines that went.
fn without_tests(bare: &str) -> (String, Vec<std::ops::RangeInclusive<usize>>) {
    const MARK: &str = "#[cfg(test)]";
    let mut out = bare.to_owned();
    let mut gone = Vec::new();
    while let Some(start) = out.find(MARK) {
        let end = item_end(&out, start + MARK.len());
        let line = |at: usize| out[..at].matches('\n').count() + 1;
        gone.push(line(start)..=line(end));
        let blanks: String = out[start..end]
            .chars()
            .map(|c| if c == '\n' { '\n' } else { ' ' })
            .collect();
        out.replace_range(start..end, &blanks);
    }
    (out, gone)
}

/// The end of the item that begins at `from`: its first `;` outside braces, or its closing brace.
pub(crate) fn item_end(bare: &str, from: usize) -> usize {
    let mut depth = 0usize;
    for (index, c) in bare[from..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return from + index + 1;
                }
            }
            ';' if depth == 0 => return from + index + 1,
            _ => {}
        }
    }
    bare.len()
}

#[test]
fn comments_texts_and_tests_are_no_code() {
    let source = r##"
/// HashMap in a comment
fn a<'a>(x: &'a str) -> char { let y = "HashSet \" f32"; /* f64 /* nested */ */ '"' }
const R: &str = br#"Instant "quoted" "#;
#[cfg(test)]
mod tests {
    fn b() { let m: HashMap = "x"; }
}
fn c() { real_word::here() }
"##;
    let code = Code::of(source);
    for word in ["HashMap", "HashSet", "f32", "f64", "Instant", "nested"] {
        assert!(!code.bare.contains(word), "{word}: {}", code.bare);
    }
    assert!(
        code.words()
            .any(|(line, word)| line == 9 && word == "real_word::here")
    );
    let texts: Vec<(usize, &str)> = code
        .texts
        .iter()
        .map(|(line, text)| (*line, text.as_str()))
        .collect();
    assert_eq!(
        texts,
        [(3, r#"HashSet \" f32"#), (4, r#"Instant "quoted" "#)]
    );
    assert_eq!(code.bare.lines().count(), source.lines().count());
}
