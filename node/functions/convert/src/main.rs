//! °C in, °F out.

use std::io::Read;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut text = String::new();
    if let Err(error) = std::io::stdin().read_to_string(&mut text) {
        eprintln!("standard input: {error}");
        return ExitCode::FAILURE;
    }
    let Some(celsius) = number(&text) else {
        eprintln!("not a temperature: `{}`", text.trim());
        return ExitCode::FAILURE;
    };
    let fahrenheit = celsius * 1.8 + 32.0;
    println!(r#"{{"celsius":{celsius},"fahrenheit":{fahrenheit:.2}}}"#);
    ExitCode::SUCCESS
}

/// The number itself, or the one that follows `"value":` in an object.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let digits = match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        Some(fields) => fields.split(',').find_map(|field| {
            let (name, value) = field.split_once(':')?;
            (name.trim() == r#""value""#).then(|| value.trim())
        })?,
        None => text,
    };
    digits.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_and_objects_are_understood() {
        assert_eq!(number(" 21.5\n"), Some(21.5));
        assert_eq!(number(r#"{"unit": "C", "value": -4}"#), Some(-4.0));
        assert_eq!(number("warm"), None);
        assert_eq!(number("nan"), None);
        assert_eq!(number(r#"{"valued": 1}"#), None);
    }
}
