//! "Did you mean": the known word nearest to a wrong one.

/// The word of `known` that is nearest to `wrong`, if one is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong_lower = wrong.to_lowercase();
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&wrong_lower, &word.to_lowercase()), word))
        .min()
        .filter(|(distance, word)| *distance <= 1 + word.chars().count() / 3)
        .map(|(_, word)| word)
}

/// The tail of an error message: ` (did you mean `word`?)`, or the list of what is known.
#[must_use]
pub fn suggestion(wrong: &str, known: &[&str]) -> String {
    match nearest(wrong, known.iter().copied()) {
        Some(word) => format!("; did you mean `{word}`?"),
        None => format!("; known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_noise_finds_none() {
        let known = ["timeout_ms", "memory_mb", "concurrency"];
        assert_eq!(nearest("timeout", known), Some("timeout_ms"));
        assert_eq!(nearest("memroy_mb", known), Some("memory_mb"));
        assert_eq!(nearest("zzz", known), None);
    }
}
