//! Renders the text files of `image/templates`: strict, so that a missing value fails a test and not a boot.

use anyhow::{Context as _, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

/// `text` with the fields of `values` filled in; `name` is for the error.
pub fn render(name: &str, text: &str, values: impl Serialize) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().keep_trailing_newline(true).build()?);
    environment.render_str(text, Serde(values)).with_context(|| format!("rendering {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_missing_value_is_an_error_and_the_last_line_break_stays() {
        let values = BTreeMap::from([("a", "<1>")]);
        assert_eq!(render("x", "{{ a }}\n", &values).unwrap(), "<1>\n");
        assert!(
            crate::error::one_line(&render("x", "{{ b }}", &values).unwrap_err()).contains("rendering x")
        );
    }
}
