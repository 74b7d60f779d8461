//! Where the values of `[variables]` come from: flags, then the environment, then defaults.

use super::ManifestError;
use super::raw::RawVariable;
use std::collections::BTreeMap;

/// The places outside the manifest that can give a variable its value.
pub(crate) struct VariableSources<'s> {
    /// `--variable NAME=VALUE`, the strongest.
    pub(crate) flags: &'s BTreeMap<String, String>,
    /// Looks up an environment variable.
    pub(crate) environment: &'s dyn Fn(&str) -> Option<String>,
}

/// Gives each declared variable its value, or says which ones have none.
pub(super) fn resolve(
    declared: &BTreeMap<String, RawVariable>,
    sources: &VariableSources<'_>,
) -> Result<BTreeMap<String, String>, ManifestError> {
    if let Some(name) = sources.flags.keys().find(|name| !declared.contains_key(*name)) {
        return Err(ManifestError::UndeclaredVariable { name: name.clone() });
    }
    let mut values = BTreeMap::new();
    let mut missing = Vec::new();
    for (name, variable) in declared {
        check_name(name)?;
        if variable.required == variable.default.is_some() {
            return Err(ManifestError::VariableShape { name: name.clone() });
        }
        let environment_name = format!("SPIN_VARIABLE_{}", name.to_ascii_uppercase());
        let value = sources
            .flags
            .get(name)
            .cloned()
            .or_else(|| (sources.environment)(&environment_name))
            .or_else(|| variable.default.clone());
        match value {
            Some(value) => _ = values.insert(name.clone(), value),
            None => missing.push(name.as_str()),
        }
    }
    if !missing.is_empty() {
        return Err(ManifestError::MissingVariables { names: missing.join(", ") });
    }
    Ok(values)
}

/// Spin's rule for names, which lets them be turned into environment variables and back.
pub(super) fn check_name(name: &str) -> Result<(), ManifestError> {
    let characters_fit =
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let starts_well = name.starts_with(|first: char| first.is_ascii_lowercase());
    if characters_fit && starts_well && !name.ends_with('_') && !name.contains("__") {
        Ok(())
    } else {
        Err(ManifestError::VariableName { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(text: &str) -> BTreeMap<String, RawVariable> {
        toml::from_str(text).unwrap()
    }

    fn check(flags: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<String, ManifestError> {
        let declared = declared("a = { required = true }\nb = { default = 'b0', secret = true }");
        let flags = flags.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let environment: BTreeMap<String, String> =
            environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let sources = VariableSources { flags: &flags, environment: &|name| environment.get(name).cloned() };
        resolve(&declared, &sources).map(|values| format!("{}/{}", values["a"], values["b"]))
    }

    #[test]
    fn flags_win_over_the_environment_and_it_over_defaults() {
        assert_eq!(check(&[("a", "1")], &[("SPIN_VARIABLE_A", "2")]).unwrap(), "1/b0");
        assert_eq!(check(&[], &[("SPIN_VARIABLE_A", "2"), ("SPIN_VARIABLE_B", "3")]).unwrap(), "2/3");
    }

    #[test]
    fn a_missing_required_variable_is_named() {
        let error = check(&[], &[]).unwrap_err();
        assert!(error.to_string().contains("required variable(s) a:"), "{error}");
    }

    #[test]
    fn a_flag_for_an_undeclared_variable_is_refused() {
        let error = check(&[("a", "1"), ("typo", "1")], &[]).unwrap_err();
        assert!(matches!(error, ManifestError::UndeclaredVariable { name } if name == "typo"));
    }

    #[test]
    fn a_variable_is_either_required_or_has_a_default() {
        for text in ["a = {}", "a = { required = true, default = 'x' }"] {
            let sources = VariableSources { flags: &BTreeMap::new(), environment: &|_| None };
            let error = resolve(&declared(text), &sources).unwrap_err();
            assert!(matches!(error, ManifestError::VariableShape { .. }), "{text}");
        }
    }

    #[test]
    fn names_follow_spins_rule() {
        for good in ["a", "nats_address", "v2"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "_a", "a_", "a__b", "A", "1a", "a-b", "ä"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
