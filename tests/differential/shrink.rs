//! Makes a failing case small: steps, objects, rules, items, peers and ports
//! go one by one, as long as the packet still finds two judges that differ.

use serde_json::Value;

use crate::case::{Case, Change};
use crate::compare::{Ask, Judges, Mismatch};

/// Attempts at most; each runs a whole case with one packet.
const ATTEMPTS_MAX: usize = 1_500;

/// The smallest case that was found, and what its judges say.
pub(crate) fn shrink(judges: &mut Judges, case: &Case, found: &Mismatch) -> (Case, Mismatch) {
    let mut shrinker = Shrinker {
        judges,
        best: case.clone(),
        found: found.clone(),
        attempts: 0,
    };
    shrinker.best.steps.truncate(found.step + 1);
    let flat = shrinker.best.flattened();
    shrinker.attempt(flat);
    shrinker.without_options();
    loop {
        let before = size(&shrinker.best);
        shrinker.without_changes();
        shrinker.without_parts();
        if size(&shrinker.best) == before || shrinker.attempts >= ATTEMPTS_MAX {
            break;
        }
    }
    (shrinker.best, shrinker.found)
}

struct Shrinker<'a> {
    judges: &'a mut Judges,
    best: Case,
    found: Mismatch,
    attempts: usize,
}

impl Shrinker<'_> {
    /// Takes the smaller case if it fails in the same way.
    fn attempt(&mut self, smaller: Case) -> bool {
        self.attempts += 1;
        if self.attempts > ATTEMPTS_MAX || smaller.steps.is_empty() {
            return false;
        }
        let ask = Ask::Last(self.found.probe.as_ref());
        match self.judges.run(&smaller, ask) {
            Err(found) if found.what == self.found.what => {
                self.best = smaller;
                self.found = found;
                true
            }
            _ => false,
        }
    }

    fn without_options(&mut self) {
        let mut smaller = self.best.clone();
        smaller.options.failsafe.clear();
        self.attempt(smaller);
        let mut smaller = self.best.clone();
        smaller.audit = false;
        smaller.options.audit = false;
        self.attempt(smaller);
        let mut smaller = self.best.clone();
        smaller.options.node_labels.clear();
        self.attempt(smaller);
    }

    /// Halves first, then one change at a time.
    fn without_changes(&mut self) {
        for step in (0..self.best.steps.len()).rev() {
            let mut width = self.best.steps[step].len().div_ceil(2);
            while width > 0 {
                let mut start = 0;
                while start < self.best.steps[step].len() {
                    let mut smaller = self.best.clone();
                    let end = (start + width).min(smaller.steps[step].len());
                    smaller.steps[step].drain(start..end);
                    if !self.attempt(smaller) {
                        start += width;
                    }
                }
                width /= 2;
            }
        }
    }

    /// Members of lists and maps in the manifests, the largest parts first.
    fn without_parts(&mut self) {
        for step in 0..self.best.steps.len() {
            for change in 0..self.best.steps[step].len() {
                let mut place = 0;
                loop {
                    let mut smaller = self.best.clone();
                    let Change::Put(object) = &mut smaller.steps[step][change] else {
                        break;
                    };
                    let mut left = place;
                    if !remove(object, &mut left) {
                        break;
                    }
                    if !self.attempt(smaller) {
                        place += 1;
                    }
                }
            }
        }
    }
}

/// Removes the member of number `left`, counted from the outside; false when
/// there are fewer.
fn remove(value: &mut Value, left: &mut usize) -> bool {
    match value {
        Value::Array(list) => {
            if *left < list.len() {
                list.remove(*left);
                return true;
            }
            *left -= list.len();
            list.iter_mut().any(|value| remove(value, left))
        }
        Value::Object(map) => {
            if let Some(key) = map.keys().nth(*left).cloned() {
                map.remove(&key);
                return true;
            }
            *left -= map.len();
            map.values_mut().any(|value| remove(value, left))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn size(case: &Case) -> usize {
    case.to_yaml().len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::remove;

    #[test]
    fn every_member_is_removed_once() {
        let whole = json!({"a": [1, {"b": 2}], "c": {"d": []}});
        let mut found = Vec::new();
        for place in 0.. {
            let mut value = whole.clone();
            if !remove(&mut value, &mut { place }) {
                break;
            }
            found.push(value.to_string());
        }
        assert_eq!(
            found,
            [
                r#"{"c":{"d":[]}}"#,
                r#"{"a":[1,{"b":2}]}"#,
                r#"{"a":[{"b":2}],"c":{"d":[]}}"#,
                r#"{"a":[1],"c":{"d":[]}}"#,
                r#"{"a":[1,{}],"c":{"d":[]}}"#,
                r#"{"a":[1,{"b":2}],"c":{}}"#,
            ]
        );
    }
}
