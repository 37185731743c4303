//! Variables in provisioning files: `$NAME`, `${NAME}`, `$__env{NAME}`, `$__file{path}`; `$$` is a dollar.
//! <https://grafana.com/docs/grafana/latest/administration/provisioning/#using-environment-variables>

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Fills in the variables of every text in a document.
pub(crate) fn document(value: Value) -> Result<Value> {
    Ok(match value {
        Value::String(text) => Value::String(expand(&text)?),
        Value::Array(items) => Value::Array(items.into_iter().map(document).collect::<Result<_>>()?),
        Value::Object(fields) => Value::Object(
            fields.into_iter().map(|(name, value)| Ok((name, document(value)?))).collect::<Result<_>>()?,
        ),
        other => other,
    })
}

/// Fills in the variables of one text. What is filled in is not searched for further variables.
fn expand(text: &str) -> Result<String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            after
        } else if let Some(after) = after.strip_prefix("__file{") {
            let (path, after) = closed(after)?;
            let content = std::fs::read_to_string(path).with_context(|| format!("$__file{{{path}}}"))?;
            expanded.push_str(content.trim());
            after
        } else if let Some(after) = after.strip_prefix("__env{") {
            let (name, after) = closed(after)?;
            expanded.push_str(&std::env::var(name).unwrap_or_default());
            after
        } else if let Some(after) = after.strip_prefix('{') {
            let (name, after) = closed(after)?;
            expanded.push_str(&std::env::var(name).unwrap_or_default());
            after
        } else {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            if name.is_empty() {
                expanded.push('$');
            }
            expanded.push_str(&std::env::var(name).unwrap_or_default());
            after
        };
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn closed(text: &str) -> Result<(&str, &str)> {
    match text.split_once('}') {
        Some(parts) => Ok(parts),
        None => bail!("a variable lacks its closing brace: {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_s_content_is_filled_in_once_and_without_its_last_line_break() {
        let path = std::env::temp_dir().join(format!("interpolate-{}", std::process::id()));
        std::fs::write(&path, "to$HOME=ken\n").unwrap();
        assert_eq!(expand(&format!("$__file{{{}}}", path.display())).unwrap(), "to$HOME=ken");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn dollars_are_escaped_by_a_dollar() {
        assert_eq!(expand("a$$b").unwrap(), "a$b");
        assert_eq!(expand("5$").unwrap(), "5$");
    }

    #[test]
    fn what_can_t_be_read_is_refused() {
        assert!(expand("$__file{/no/such/file}").is_err());
        assert!(expand("$__file{/etc/hostname").is_err());
    }
}
