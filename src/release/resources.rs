//! Reading `infrastructure.resources`, which every platform writes a little differently.

use serde_json::Value;

use super::planner::PlanError;

/// Megabytes (of a million bytes, rounded up) of `"512Mi"`, `"2Gi"`, `"500MB"`, `"1.5GB"`; a bare number is megabytes.
pub(super) fn memory_mb(value: &Value) -> Result<u64, PlanError> {
    const FORMS: &str = "a number with Mi, Gi, MB or GB, such as 512Mi or 1.5GB";
    let fail = || resource("memory", value, FORMS);
    if let Some(mb) = value.as_u64() {
        return Ok(mb);
    }
    let text = value.as_str().ok_or_else(fail)?.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
    let (number, unit) = text.split_at(end);
    let bytes = match unit.trim() {
        "Mi" | "MiB" => 1_048_576.0,
        "Gi" | "GiB" => 1_073_741_824.0,
        "M" | "MB" => 1e6,
        "G" | "GB" => 1e9,
        _ => return Err(fail()),
    };
    let number: f64 = number.parse().map_err(|_| fail())?;
    Ok((number * bytes / 1e6).ceil() as u64)
}

/// Processors of `2`, `"2"`, `"1.5"`, `"500m"`.
pub(super) fn cpus(value: &Value) -> Result<f64, PlanError> {
    let fail = || resource("cpu", value, "a number, such as 2, 1.5 or 500m");
    let parsed = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.strip_suffix('m') {
            Some(milli) => milli.parse::<f64>().ok().map(|milli| milli / 1000.0),
            None => text.parse().ok(),
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    parsed.filter(|cpus| cpus.is_finite() && *cpus > 0.0).ok_or_else(fail)
}

/// The error for a value below `infrastructure.resources`.
pub(super) fn resource(key: &str, value: &Value, accepted: &str) -> PlanError {
    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    PlanError::ResourceInvalid { key: key.to_owned(), value, accepted: accepted.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn memory() {
        for (value, mb) in [(json!("512Mi"), 537), (json!("1Gi"), 1074), (json!("1.5GB"), 1500), (json!(300), 300)] {
            assert_eq!(memory_mb(&value), Ok(mb), "{value}");
        }
        for value in [json!("512"), json!("lots"), json!(-1), json!(null), json!("1..5Gi")] {
            assert_eq!(memory_mb(&value).expect_err("wrong").code(), "resource_invalid", "{value}");
        }
    }

    #[test]
    fn processors() {
        for (value, cores) in [(json!(2), 2.0), (json!("500m"), 0.5), (json!("1.5"), 1.5)] {
            assert_eq!(cpus(&value), Ok(cores), "{value}");
        }
        assert!(cpus(&json!("many")).is_err() && cpus(&json!(0)).is_err());
    }
}
