//! Rust text with comments and literals blanked out, line for line.

/// The code of a file: comments, strings and characters become spaces.
pub(crate) fn code(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < characters.len() {
        let length = skipped(&characters[at..]);
        if length == 0 {
            out.push(characters[at]);
            at += 1;
            continue;
        }
        for character in &characters[at..(at + length).min(characters.len())] {
            out.push(if *character == '\n' { '\n' } else { ' ' });
        }
        at += length;
    }
    out
}

/// Length of the comment or literal that starts here; 0 if none does.
fn skipped(rest: &[char]) -> usize {
    match rest {
        ['/', '/', ..] => until(rest, &['\n']),
        ['/', '*', ..] => 2 + until(&rest[2..], &['*', '/']) + 2,
        ['"', ..] => string(rest),
        ['r', '"', ..] => 2 + until(&rest[2..], &['"']) + 1,
        ['r', '#', ..] => raw_string(rest),
        ['\'', '\\', _, '\'', ..] => 4,
        ['\'', '\\', ..] => 1 + until(&rest[1..], &['\'']) + 1,
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    }
}

fn until(rest: &[char], end: &[char]) -> usize {
    rest.windows(end.len())
        .position(|window| window == end)
        .unwrap_or(rest.len())
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn raw_string(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let mut end = vec!['"'];
    end.extend(std::iter::repeat_n('#', hashes));
    let start = 2 + hashes;
    start + until(&rest[start..], &end) + end.len()
}

/// Whether `word` stands in the code by itself, not as part of a longer name.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let is_name = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        !is_name(line[..at].chars().next_back()) && !is_name(line[at + word.len()..].chars().next())
    })
}

/// The line (from 1) at which a file's inline tests begin.
pub(crate) fn tests_start(code: &str) -> Option<usize> {
    let lines: Vec<&str> = code.lines().collect();
    lines
        .windows(2)
        .position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].trim_end().ends_with('{'))
        .map(|index| index + 1)
}
