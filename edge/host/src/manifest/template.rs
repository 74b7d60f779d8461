//! Spin's string templates: literal text with `{{ variable }}` in it.

use super::ManifestError;

/// Replaces each `{{ name }}` in `text` by what `lookup` gives for the name.
pub(super) fn render<'v>(
    text: &str,
    lookup: impl Fn(&str) -> Option<&'v str>,
) -> Result<String, ManifestError> {
    let mut rendered = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((literal, after_open)) = rest.split_once("{{") {
        let (name, after_close) = after_open
            .split_once("}}")
            .ok_or_else(|| ManifestError::UnclosedTemplate { template: text.to_owned() })?;
        let name = name.trim();
        let value = lookup(name).ok_or_else(|| ManifestError::UnknownVariable {
            template: text.to_owned(),
            name: name.to_owned(),
        })?;
        rendered.push_str(literal);
        rendered.push_str(value);
        rest = after_close;
    }
    rendered.push_str(rest);
    Ok(rendered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let lookup = |name: &str| match name {
            "host" => Some("127.0.0.1"),
            "port" => Some("4222"),
            "braces" => Some("{{ host }}"),
            _ => None,
        };
        assert_eq!(render(text, lookup).unwrap(), expected);
    }

    #[test]
    fn expressions_are_replaced_and_the_rest_is_kept() {
        check("", "");
        check("plain }} text", "plain }} text");
        check("tcp://{{ host }}:{{port}}/", "tcp://127.0.0.1:4222/");
        check("{{host}}{{ port}}", "127.0.0.14222");
    }

    #[test]
    fn a_value_is_not_a_template_again() {
        check("{{ braces }}", "{{ host }}");
    }

    #[test]
    fn unknown_names_and_unclosed_braces_are_errors() {
        assert!(matches!(render("{{ nope }}", |_| None), Err(ManifestError::UnknownVariable { .. })));
        assert!(matches!(render("a {{ b", |_| Some("x")), Err(ManifestError::UnclosedTemplate { .. })));
    }
}
