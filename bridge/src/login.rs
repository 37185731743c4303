//! Notices that the credentials for the broker have become others.
//!
//! They are files of one mounted Secret, which the kubelet replaces in one step, and each connection reads them. One
//! more file there stands for all of them.

use std::path::PathBuf;

use api::bridge_config::MqttConfig;

/// Which credentials the bridge connects by.
#[derive(Debug)]
pub struct Login {
    path: Option<PathBuf>,
    revision: String,
}

impl Login {
    /// Those that the files hold at this moment.
    pub fn of(mqtt: &MqttConfig) -> Self {
        let mut login =
            Self { path: mqtt.login_revision_file.as_ref().map(Into::into), revision: String::new() };
        login.poll();
        login
    }

    /// The word that stands for them: empty if it can't be read, none if there is none.
    pub fn revision(&self) -> Option<&str> {
        self.path.as_ref().map(|_| self.revision.as_str())
    }

    /// Whether they have become others since it was asked last.
    pub fn poll(&mut self) -> bool {
        let read = self.path.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        // One that can't be read at this moment changes nothing.
        let Some(read) = read.map(|text| text.trim_end().to_owned()) else { return false };
        let is_new = read != self.revision;
        self.revision = read;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn mqtt(file: Option<&str>) -> MqttConfig {
        let config = serde_json::json!({"url": "mqtt://b", "clientId": "b", "loginRevisionFile": file});
        serde_json::from_value(config).expect("a configuration")
    }

    #[test]
    fn another_word_is_news_once_and_a_missing_file_is_none() {
        let path = std::env::temp_dir().join(format!("bridge-login-{}", std::process::id()));
        let name = path.display().to_string();
        let mut login = Login::of(&mqtt(Some(&name)));
        assert_eq!((login.poll(), login.revision()), (false, Some("")));
        fs::write(&path, "one\n").expect("it can be written");
        assert!(login.poll());
        assert_eq!((login.poll(), login.revision()), (false, Some("one")));
        assert_eq!(Login::of(&mqtt(Some(&name))).revision(), Some("one"));
        fs::write(&path, "two").expect("it can be written");
        assert!(login.poll());
        fs::remove_file(&path).expect("it is there");
        assert_eq!((login.poll(), login.revision()), (false, Some("two")));
        let mut none = Login::of(&mqtt(None));
        assert_eq!((none.poll(), none.revision()), (false, None));
    }
}
