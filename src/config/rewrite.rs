//! CONFIG REWRITE: changed settings into the text of a TOML file that a person wrote.

/// The text with each `(key, value)` set: in its line if the key is set there, else in place of its commented default,
/// else at the end. All else stays as it was.
pub(super) fn rewritten<'a>(text: &str, changes: impl Iterator<Item = (&'a str, toml::Value)>) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    for (key, value) in changes {
        let line = format!("{key} = {value}");
        let set = lines.iter().position(|existing| is_key(existing, key));
        let documented = || lines.iter().position(|existing| is_key(existing.strip_prefix('#').unwrap_or(""), key));
        match set.or_else(documented) {
            Some(index) => lines[index] = line,
            None => lines.push(line),
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn is_key(line: &str, key: &str) -> bool {
    line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_replaced_in_its_line_uncommented_or_appended() {
        let before = "# my file\nport = 7001 # ours\n#timeout = 0\n# timeout is in seconds\n";
        let changes = [("port", 7002.into()), ("timeout", 5.into()), ("requirepass", "a\"b".into())];
        let after = rewritten(before, changes.into_iter());
        assert_eq!(after, "# my file\nport = 7002\ntimeout = 5\n# timeout is in seconds\nrequirepass = 'a\"b'\n");
    }
}
