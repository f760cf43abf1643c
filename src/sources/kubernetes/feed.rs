//! List and watch of one collection: finds out where it is served, lists it in
//! pages or as a stream, follows its changes, and comes back after a failure.
//!
//! What failed decides how it goes on: an expired version (410) lists again, a
//! collection that is not there (404) asks where it is, an unknown token (401)
//! reads the configuration again; anything else tries the same again, later.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, TryStreamExt};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use kube::core::response::Status;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::access::{Door, Doors};
use super::heard::What;
use super::locate::{Found, Place};
use super::needs::{Order, Scope};
use super::outlet::Outlet;
use crate::limits::{
    KUBERNETES_ABSENT_POLL, KUBERNETES_ANSWER, KUBERNETES_PAGE_MAX, KUBERNETES_RESUMES_MAX,
    KUBERNETES_RETRY_FIRST, KUBERNETES_WATCH, KUBERNETES_WATCH_SPREAD,
};
use crate::sources::remote::{Pace, chain};

/// Why a step failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server's own answer.
    Api(Box<Status>),
    Other(String),
    /// Nobody listens any more.
    Closed,
}

impl Failure {
    /// The server's code.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Api(status) => Some(status.code),
            Self::Other(_) | Self::Closed => None,
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Api(status),
            error => Self::Other(chain(&error)),
        }
    }
}

impl From<kube::core::request::Error> for Failure {
    fn from(error: kube::core::request::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Api(status) => {
                write!(f, "the server answers {}: {}", status.code, status.message)
            }
            Self::Other(message) => f.write_str(message),
            Self::Closed => f.write_str("the agent is stopping"),
        }
    }
}

/// An answer, or a failure where none comes.
pub(super) async fn answered<T>(
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Failure> {
    match timeout(KUBERNETES_ANSWER, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_elapsed) => Err(Failure::Other(format!(
            "no answer within {} s",
            KUBERNETES_ANSWER.as_secs()
        ))),
    }
}

/// A page of a list.
#[derive(Deserialize)]
struct Page {
    metadata: PageMetadata,
    #[serde(default)]
    items: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMetadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: String,
}

/// What a feed does next.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    Locate,
    List(Place),
    /// From the newest version that was heard.
    Follow(Place),
    /// Whether the server knows that version at all.
    Doubt(Place),
}

/// Who wakes a feed.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls {
    /// Its definition has changed.
    pub(super) located: Arc<Notify>,
    /// All of it is needed again.
    pub(super) relist: Arc<Notify>,
}

/// The feed of one collection.
pub(super) struct Feed {
    pub(super) outlet: Outlet,
    pub(super) doors: Doors,
    pub(super) pace: Pace,
    pub(super) calls: Calls,
    /// The server answers again.
    pub(super) reached: Arc<Notify>,
    /// Whether the server streams lists of this, as far as is known: behind one
    /// address there may be several servers.
    pub(super) streams: bool,
    /// How long a watch may be silent.
    pub(super) silence: Duration,
    /// A feed that this one is not needed beside: whether that one is in use.
    pub(super) yields_to: Option<watch::Receiver<Option<bool>>>,
    /// Whether this one is in use, for the one that yields to it.
    pub(super) leads: Option<watch::Sender<Option<bool>>>,
    /// How much is asked for.
    pub(super) order: watch::Receiver<Order>,
    /// The newest version that was heard, where, and of how much.
    pub(super) version: String,
    pub(super) place: Option<Place>,
    pub(super) asked: Order,
}

impl Feed {
    /// Goes on until nobody listens.
    pub(super) async fn run(mut self) {
        let mut phase = Phase::Locate;
        while let Some(next) = self.step(phase).await {
            phase = next;
        }
    }

    async fn step(&mut self, phase: Phase) -> Option<Phase> {
        let door = match self.doors.open().await {
            Ok(door) => door,
            Err(message) => {
                let failure = Failure::Other(message);
                return self.recover(None, failure, phase).await;
            }
        };
        let is_another = *self.order.borrow() != self.asked;
        let phase = if is_another { Phase::Locate } else { phase };
        let again = phase.clone();
        let outcome = match phase {
            Phase::Locate => self.locate(&door).await,
            Phase::List(place) => self.list(&door, place).await,
            Phase::Follow(place) => self.follow(&door, place).await,
            Phase::Doubt(place) => self.doubt(&door, place).await,
        };
        match outcome {
            Ok(next) => {
                if self.pace.failures() > 0 {
                    self.reached.notify_waiters();
                }
                Some(next)
            }
            Err(failure) => self.recover(Some(&door), failure, again).await,
        }
    }

    /// Tells of the failure, waits, and decides how to go on.
    async fn recover(
        &mut self,
        door: Option<&Door>,
        failure: Failure,
        phase: Phase,
    ) -> Option<Phase> {
        let next = match (failure.code(), phase) {
            _ if matches!(failure, Failure::Closed) => return None,
            // The version is too old, or of another life of the server's store.
            (Some(410 | 504), Phase::Follow(place)) => {
                self.outlet.resync("expired");
                Phase::List(place)
            }
            (Some(404), _) => Phase::Locate,
            (_, Phase::Follow(place)) if self.pace.failures() >= KUBERNETES_RESUMES_MAX => {
                self.outlet.resync("broken");
                Phase::List(place)
            }
            (_, phase) => phase,
        };
        let is_resync = failure.code() == Some(410);
        if !is_resync {
            self.outlet.failed(&failure).await?;
        }
        if let Some(door) = door.filter(|_| self.may_be_misled(&failure))
            && let Err(message) = self.doors.renew(door).await
        {
            self.outlet.failed(&Failure::Other(message)).await?;
        }
        self.wait(&failure).await;
        Some(next)
    }

    /// Whether the configuration may say something else by now: the server does
    /// not know us, or has not been reached for a while.
    fn may_be_misled(&self, failure: &Failure) -> bool {
        match failure.code() {
            Some(code) => code == 401,
            None => self.pace.failures() % KUBERNETES_RESUMES_MAX == KUBERNETES_RESUMES_MAX - 1,
        }
    }

    /// The server may be back before the wait is over: another feed may have seen
    /// it.
    async fn wait(&mut self, failure: &Failure) {
        let wait = self.pace.failed();
        if failure.code().is_some() {
            self.reached.notify_waiters();
            return sleep(wait).await;
        }
        let pause = self.pace.spread(KUBERNETES_RETRY_FIRST * 4);
        tokio::select! {
            () = sleep(wait) => {}
            () = self.reached.notified() => sleep(pause).await,
        }
    }

    async fn locate(&mut self, door: &Door) -> Result<Phase, Failure> {
        let order = *self.order.borrow();
        if order.scope == Scope::Nothing {
            if let Some(led) = &self.leads {
                // Whether it could be used is not known.
                led.send_replace(None);
            }
            self.forget(What::Unneeded).await?;
            self.pace.reset();
            another(&mut self.order, order).await;
            return Ok(Phase::Locate);
        }
        if let Some(leader) = &mut self.yields_to {
            // No feed is ever gone while the agent runs.
            let is_led = tokio::select! {
                known = leader.wait_for(Option::is_some) => {
                    known.is_ok_and(|known| *known == Some(true))
                }
                () = another(&mut self.order, order) => return Ok(Phase::Locate),
            };
            if is_led {
                let why = "CiliumEndpoint is watched instead";
                self.forget(What::Absent(why)).await?;
                tokio::select! {
                    () = another(&mut self.order, order) => {}
                    () = left(&mut self.yields_to) => {}
                }
                return Ok(Phase::Locate);
            }
        }
        match self.outlet.locate(&door.client).await? {
            Found::Here(place) => {
                let is_same = self.place.as_ref() == Some(&place) && self.asked == order;
                if is_same && !self.version.is_empty() {
                    return Ok(Phase::Follow(place));
                }
                self.place = Some(place.clone());
                self.asked = order;
                Ok(Phase::List(place))
            }
            Found::Nowhere(why) => {
                self.forget(What::Absent(why)).await?;
                if let Some(led) = &self.leads {
                    led.send_replace(Some(false));
                }
                self.pace.reset();
                let poll = KUBERNETES_ABSENT_POLL + self.pace.spread(KUBERNETES_ABSENT_POLL);
                // Word of the definition, another order, or time.
                tokio::select! {
                    _ = timeout(poll, self.calls.located.notified()) => {}
                    () = another(&mut self.order, order) => {}
                }
                Ok(Phase::Locate)
            }
        }
    }

    async fn forget(&mut self, what: What) -> Result<(), Failure> {
        self.version.clear();
        self.place = None;
        self.tell(what).await
    }

    async fn tell(&mut self, what: What) -> Result<(), Failure> {
        self.outlet.tell(what).await
    }

    /// Everything, then its newest version.
    async fn list(&mut self, door: &Door, place: Place) -> Result<Phase, Failure> {
        if self.streams {
            match self.list_as_stream(door, &place).await {
                // The server has no such lists.
                Err(failure) if matches!(failure.code(), Some(400 | 422)) => {
                    self.streams = false;
                }
                // It has them, and cannot give this one: with an old etcd behind it,
                // never.
                Err(failure) if failure.code() == Some(500) => {}
                outcome => return outcome,
            }
        }
        self.tell(What::Begins).await?;
        let scope = self.asked.scope;
        let request = Request::new(self.outlet.path(&place, scope));
        let mut params = ListParams {
            field_selector: self.outlet.field_selector(scope),
            label_selector: self.outlet.label_selector(scope),
            limit: Some(KUBERNETES_PAGE_MAX),
            ..ListParams::default()
        };
        loop {
            let request = if self.outlet.metadata_only() {
                request.list_metadata(&params)
            } else {
                request.list(&params)
            };
            let page: Page = answered(door.client.request(request?)).await?;
            for object in page.items.unwrap_or_default() {
                self.outlet.object(object).await?;
            }
            self.version = page.metadata.resource_version;
            if page.metadata.next.is_empty() {
                break;
            }
            params.continue_token = Some(page.metadata.next);
        }
        self.whole(place).await
    }

    async fn whole(&mut self, place: Place) -> Result<Phase, Failure> {
        self.tell_whole().await?;
        Ok(Phase::Follow(place))
    }

    async fn tell_whole(&mut self) -> Result<(), Failure> {
        self.tell(What::Whole(self.asked)).await?;
        if let Some(led) = &self.leads {
            led.send_replace(Some(true));
        }
        Ok(())
    }

    /// The list as the beginning of a watch.
    async fn list_as_stream(&mut self, door: &Door, place: &Place) -> Result<Phase, Failure> {
        let events = self.watch(door, place, true).await?;
        let mut events = std::pin::pin!(events);
        self.tell(What::Begins).await?;
        loop {
            match timeout(self.silence, events.try_next()).await {
                Ok(event) => match event? {
                    Some(WatchEvent::Bookmark(mark)) => {
                        self.version = mark.metadata.resource_version;
                        let ends = "k8s.io/initial-events-end";
                        if mark.metadata.annotations.contains_key(ends) {
                            self.tell_whole().await?;
                            return self.hear(events, place.clone()).await;
                        }
                    }
                    Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                        self.outlet.object(object).await?;
                    }
                    Some(WatchEvent::Deleted(object)) => self.outlet.gone(object).await?,
                    Some(WatchEvent::Error(status)) => return Err(Failure::Api(status)),
                    None => return Err(Failure::Other("the list ended early".to_owned())),
                },
                Err(_silence) => {
                    // A server that ignores what it was asked for.
                    self.streams = false;
                    return Err(Failure::Other("the list did not end".to_owned()));
                }
            }
        }
    }

    async fn watch(
        &mut self,
        door: &Door,
        place: &Place,
        with_list: bool,
    ) -> Result<impl Stream<Item = Result<WatchEvent<Value>, kube::Error>> + use<>, Failure> {
        let span = KUBERNETES_WATCH + self.pace.spread(KUBERNETES_WATCH_SPREAD);
        let scope = self.asked.scope;
        let params = WatchParams {
            field_selector: self.outlet.field_selector(scope),
            label_selector: self.outlet.label_selector(scope),
            timeout: u32::try_from(span.as_secs()).ok(),
            bookmarks: true,
            send_initial_events: with_list,
        };
        let version = if with_list { "" } else { &self.version };
        let request = Request::new(self.outlet.path(place, scope));
        let request = if self.outlet.metadata_only() {
            request.watch_metadata(&params, version)
        } else {
            request.watch(&params, version)
        };
        answered(door.client.request_events::<Value>(request?)).await
    }

    /// Changes since the newest version, until something wakes the feed.
    async fn follow(&mut self, door: &Door, place: Place) -> Result<Phase, Failure> {
        let events = self.watch(door, &place, false).await?;
        self.hear(std::pin::pin!(events), place).await
    }

    async fn hear(
        &mut self,
        mut events: impl Stream<Item = Result<WatchEvent<Value>, kube::Error>> + Unpin,
        place: Place,
    ) -> Result<Phase, Failure> {
        self.tell(What::Follows).await?;
        let mut any = false;
        loop {
            let event = tokio::select! {
                () = self.calls.located.notified() => return Ok(Phase::Locate),
                () = self.calls.relist.notified() => return Ok(Phase::List(place)),
                () = led(&mut self.yields_to) => return Ok(Phase::Locate),
                () = another(&mut self.order, self.asked) => return Ok(Phase::Locate),
                event = timeout(self.silence, events.try_next()) => event,
            };
            let Ok(event) = event else {
                // Even an idle collection has bookmarks.
                return Ok(Phase::Doubt(place));
            };
            match event? {
                Some(WatchEvent::Error(status)) => return Err(Failure::Api(status)),
                Some(event) => {
                    any = true;
                    self.pace.reset();
                    self.note(event).await?;
                }
                None if any => return Ok(Phase::Follow(place)),
                None => {
                    // Idle to its end, or a server that ends each watch at once:
                    // a short pause does no harm to the first.
                    let pause = self.pace.spread(KUBERNETES_RETRY_FIRST);
                    sleep(KUBERNETES_RETRY_FIRST + pause).await;
                    return Ok(Phase::Follow(place));
                }
            }
        }
    }

    /// A store that was restored from an earlier day says nothing to a watch from a
    /// version that it has yet to come to: then everything is listed again.
    async fn doubt(&mut self, door: &Door, place: Place) -> Result<Phase, Failure> {
        let scope = self.asked.scope;
        let params = ListParams {
            field_selector: self.outlet.field_selector(scope),
            label_selector: self.outlet.label_selector(scope),
            limit: Some(1),
            ..ListParams::default()
        };
        let request = Request::new(self.outlet.path(&place, scope)).list(&params)?;
        let page: Page = answered(door.client.request(request)).await?;
        let [newest, heard] = [&page.metadata.resource_version, &self.version];
        let is_older = match (newest.parse::<u64>(), heard.parse::<u64>()) {
            (Ok(newest), Ok(heard)) => newest < heard,
            // Versions of another kind of server say nothing.
            _ => false,
        };
        if is_older {
            self.outlet.resync("replaced");
            return Ok(Phase::List(place));
        }
        Ok(Phase::Follow(place))
    }

    async fn note(&mut self, event: WatchEvent<Value>) -> Result<(), Failure> {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                self.version = version_of(&object);
                self.outlet.object(object).await
            }
            WatchEvent::Deleted(object) => {
                self.version = version_of(&object);
                self.outlet.gone(object).await
            }
            WatchEvent::Bookmark(mark) => {
                self.version = mark.metadata.resource_version;
                Ok(())
            }
            WatchEvent::Error(status) => Err(Failure::Api(status)),
        }
    }
}

fn version_of(object: &Value) -> String {
    let version = object["metadata"]["resourceVersion"].as_str();
    version.unwrap_or_default().to_owned()
}

/// Ends when something else is asked for than this.
async fn another(order: &mut watch::Receiver<Order>, asked: Order) {
    if order.wait_for(|order| *order != asked).await.is_err() {
        // Nobody orders anything any more.
        std::future::pending::<()>().await;
    }
}

/// Ends when the leader is in use no more, or may not be.
async fn left(leader: &mut Option<watch::Receiver<Option<bool>>>) {
    if let Some(leader) = leader {
        drop(leader.wait_for(|known| *known != Some(true)).await);
    }
}

/// Ends when the leader comes into use.
async fn led(leader: &mut Option<watch::Receiver<Option<bool>>>) {
    if let Some(leader) = leader
        && leader.wait_for(|known| *known == Some(true)).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}
