//! When backups are made, as a CronJob takes it: <https://pkg.go.dev/github.com/robfig/cron/v3>.

const WORDS: [&str; 7] = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];

/// One of the five.
struct Field {
    least: u8,
    most: u8,
    /// What its values are called, from the least.
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { least: 0, most: 59, names: &[] },
    Field { least: 0, most: 23, names: &[] },
    Field { least: 1, most: 31, names: &[] },
    Field {
        least: 1,
        most: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    Field { least: 0, most: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

/// Whether a CronJob would take it. The schema knows the form alone: all of this would not fit into the definition.
pub fn is_schedule(text: &str) -> bool {
    if let Some(word) = text.strip_prefix('@') {
        return WORDS.contains(&word);
    }
    let fields: Vec<&str> = text.split(' ').collect();
    fields.len() == FIELDS.len() && fields.iter().zip(&FIELDS).all(|(text, field)| field.takes(text))
}

impl Field {
    fn takes(&self, text: &str) -> bool {
        text.split(',').all(|item| {
            let (range, step) = item.split_once('/').unwrap_or((item, "1"));
            let is_range = match range.split_once('-') {
                None => matches!(range, "*" | "?") || self.value(range).is_some(),
                Some((from, to)) => self.value(from).zip(self.value(to)).is_some_and(|(from, to)| from <= to),
            };
            is_range && number(step).is_some_and(|step| (1..100).contains(&step))
        })
    }

    fn value(&self, text: &str) -> Option<u8> {
        let named = self.names.iter().zip(self.least..).find(|(name, _)| text.eq_ignore_ascii_case(name));
        let value = named.map(|(_, value)| value).or_else(|| number(text));
        value.filter(|value| (self.least..=self.most).contains(value))
    }
}

fn number(text: &str) -> Option<u8> {
    // Parsing alone would take a sign.
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_what_a_cron_job_takes() {
        for good in [
            "0 3 * * *",
            "*/15 0-6,12 1,15 jan-MAR MON-FRI",
            "59 23 31 12 6",
            "05 03 ? * 0",
            "10/20 * * * *",
            "@daily",
        ] {
            assert!(is_schedule(good), "{good}");
        }
        for bad in [
            "",
            "60 3 * * *",
            "0 24 * * *",
            "0 3 0 * *",
            "0 3 32 * *",
            "0 3 * 13 *",
            "0 3 * * 7",
            "0 3 * foo *",
            "30-10 3 * * *",
            "*/0 3 * * *",
            "*/x 3 * * *",
            "+1 3 * * *",
            "1, 3 * * *",
            "0 3 * *",
            "0 3 * * * *",
            "0  3 * * *",
            "TZ=UTC 0 3 * * *",
            "@never",
        ] {
            assert!(!is_schedule(bad), "{bad}");
        }
    }
}
