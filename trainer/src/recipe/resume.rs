//! What of a recipe may differ where a run goes on.

use super::{Recipe, values};
use crate::checkpoint::Place;
use crate::phases::Phase;
use toml::{Table, Value};

/// Where it computes, what is kept and what is measured.
const FREE: [&str; 4] = ["run.device", "run.threads", "checkpoints.", "eval."];

impl Recipe {
    /// Fails unless `given` goes on with this recipe's run, which was at `place`: it may compute elsewhere, keep and measure
    /// other things, and take more or fewer steps of phases that are not over.
    ///
    /// # Errors
    /// Names the first key that may not differ.
    pub fn goes_on_as(&self, given: &Recipe, place: Option<&Place>) -> Result<(), String> {
        let flat = |recipe: &Recipe| {
            values(&Table::try_from(recipe).expect("every field of a checked recipe has a TOML form"))
        };
        let (stored, given) = (flat(self), flat(given));
        let keys = stored.keys().chain(given.keys());
        let differs = |key: &&String| stored.get(*key) != given.get(*key);
        for key in keys.filter(differs).filter(|key| !FREE.iter().any(|free| key.starts_with(free))) {
            let name = key.rsplit('.').next().unwrap_or(key);
            let shown =
                |value: Option<&Value>| value.map_or(format!("no `{name}`"), |value| format!("`{name} = {value}`"));
            let (then, now) = (stored.get(key), given.get(key));
            match (Phase::ALL.into_iter().find(|phase| *key == format!("{}.steps", phase.name())), place) {
                (Some(_), None) => {}
                (Some(phase), Some(place)) if phase == place.phase => {
                    let least = place.step as i64;
                    if now.and_then(Value::as_integer).is_none_or(|steps| steps < least) {
                        return Err(format!("{key}: {} given, but {least} are taken already", shown(now)));
                    }
                }
                (Some(phase), Some(place)) if phase.comes_after(place.phase) => {}
                _ => {
                    return Err(format!(
                        "{key}: this run has {}, the recipe given {}; a run goes on as it was begun: only steps still to be \
                         taken, [checkpoints], [eval], run.device and run.threads may change",
                        shown(then),
                        shown(now)
                    ));
                }
            }
        }
        Ok(())
    }
}
