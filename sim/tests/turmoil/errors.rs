//! Whatever is logged as an error while a world runs: nothing of it may happen in a run that is to be right.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Enough to see what goes wrong.
const MOST: usize = 5;

/// Collects errors of this thread for as long as it exists.
pub(crate) struct Errors {
    found: Arc<Mutex<Vec<String>>>,
    _guard: DefaultGuard,
}

impl Errors {
    /// The first of those so far.
    pub(crate) fn found(&self) -> Vec<String> {
        self.found.lock().expect("nobody panics with it").clone()
    }
}

/// Collects from now on. A world is one thread.
pub(crate) fn watch() -> Errors {
    let found = Arc::default();
    let collector = Collector(Arc::clone(&found)).with_filter(LevelFilter::ERROR);
    let subscriber = tracing_subscriber::registry().with(collector);
    Errors { found, _guard: tracing::subscriber::set_default(subscriber) }
}

struct Collector(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Collector {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut words = Words(event.metadata().target().to_owned());
        event.record(&mut words);
        let mut found = self.0.lock().expect("nobody panics with it");
        if found.len() < MOST {
            found.push(words.0);
        }
    }
}

struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").expect("a string takes everything");
    }
}

#[test]
fn an_error_is_seen_and_a_warning_is_not() {
    let errors = watch();
    tracing::warn!("it may happen");
    assert_eq!(errors.found(), [""; 0]);
    tracing::error!(lost = 3, "it may not");
    let found = errors.found();
    assert!(found.len() == 1 && found[0].contains("it may not") && found[0].contains("lost=3"), "{found:?}");
}
