//! What a program finds in its environment.

use std::collections::BTreeMap;

use crate::users::User;

/// Where programs are looked for when the image does not say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables by name.
pub type Environment = BTreeMap<String, String>;

/// Lays environments over each other, the last wins, and fills what every
/// program counts on where none of them says it: `PATH`, `HOME`, `USER`, and on
/// a terminal `TERM`.
#[must_use]
pub fn environment(layers: &[&Environment], user: &User, terminal: bool) -> Environment {
    let mut all = Environment::new();
    for layer in layers {
        all.extend(layer.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    let mut default = |name: &str, value: &str| {
        all.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    };
    default("PATH", DEFAULT_PATH);
    default("HOME", &user.home);
    default("USER", &user.name);
    if terminal {
        default("TERM", "xterm-256color");
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_layer_wins_and_defaults_fill() {
        let user = User { uid: 5, gid: 5, groups: vec![], name: "eve".into(), home: "/h".into() };
        let image = Environment::from([("A".into(), "1".into()), ("PATH".into(), "/p".into())]);
        let request =
            Environment::from([("A".into(), "2".into()), ("HOME".into(), "/else".into())]);
        let all = environment(&[&image, &request], &user, false);
        let expected = [("A", "2"), ("HOME", "/else"), ("PATH", "/p"), ("USER", "eve")];
        assert!(all.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected));
        let bare = environment(&[], &user, true);
        assert_eq!(
            (bare["PATH"].as_str(), bare["TERM"].as_str()),
            (DEFAULT_PATH, "xterm-256color")
        );
    }
}
