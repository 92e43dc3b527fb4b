//! What the server announces: that a lease has ended.
//!
//! One connection hears all of it, and is open only while somebody waits. An announcement may get
//! lost with it, so whoever waits also asks now and then.

use futures::StreamExt as _;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Msg, RedisResult};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::link::Link;
use crate::network::LeaseWatch;
use crate::sync::lock::lock;

/// The pause after a connection that failed. Waiters ask for themselves meanwhile.
const PAUSE: Duration = Duration::from_secs(1);

/// How long the connection is kept when nobody waits.
const IDLE: Duration = Duration::from_secs(10);

/// For a subscription to be confirmed.
const CONFIRMATION: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(super) struct Announcements(Arc<Inner>);

struct Inner {
    link: Link,
    state: Mutex<State>,
    /// The channels that are wanted have changed.
    changed: Notify,
}

#[derive(Default)]
struct State {
    channels: HashMap<String, watch::Sender<()>>,
    is_heard: bool,
}

/// Hears what is announced on one channel.
pub(super) struct Watch {
    announced: Option<watch::Receiver<()>>,
    channel: String,
    announcements: Announcements,
}

impl Announcements {
    pub(super) fn new(link: Link) -> Self {
        Self(Arc::new(Inner {
            link,
            state: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    pub(super) fn watch(&self, channel: String) -> Watch {
        let mut state = lock(&self.0.state);
        let sender = state.channels.entry(channel.clone());
        let announced = sender.or_insert_with(|| watch::Sender::new(())).subscribe();
        let starts = !state.is_heard;
        state.is_heard = true;
        drop(state);
        if starts {
            let hearing = Hearing {
                announcements: self.clone(),
                has_stopped: false,
            };
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(hearing.run());
            }
        }
        self.0.changed.notify_one();
        Watch {
            announced: Some(announced),
            channel,
            announcements: self.clone(),
        }
    }

    fn wanted(&self) -> HashSet<String> {
        lock(&self.0.state).channels.keys().cloned().collect()
    }

    fn announce(&self, channel: &str) {
        if let Some(sender) = lock(&self.0.state).channels.get(channel) {
            sender.send_replace(());
        }
    }

    /// Whether nobody waits. Then another task hears what is wanted from now on.
    fn stop_if_unwanted(&self) -> bool {
        let mut state = lock(&self.0.state);
        state.is_heard = !state.channels.is_empty();
        !state.is_heard
    }
}

impl LeaseWatch for Watch {
    async fn changed(&mut self) {
        match &mut self.announced {
            // Never an error: the sender stays as long as it has receivers.
            Some(announced) => drop(announced.changed().await),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Before the count.
        self.announced = None;
        let mut state = lock(&self.announcements.0.state);
        let channels = &mut state.channels;
        let is_last = |sender: &watch::Sender<()>| sender.receiver_count() == 0;
        if channels.get(&self.channel).is_some_and(is_last) {
            channels.remove(&self.channel);
            self.announcements.0.changed.notify_one();
        }
    }
}

/// The task that hears. When it ends early, as with its runtime, another may take over.
struct Hearing {
    announcements: Announcements,
    /// Another may have started since.
    has_stopped: bool,
}

impl Drop for Hearing {
    fn drop(&mut self) {
        if !self.has_stopped {
            lock(&self.announcements.0.state).is_heard = false;
        }
    }
}

impl Hearing {
    async fn run(mut self) {
        while !self.has_stopped {
            let connector = self.announcements.0.link.connector();
            if let Ok(Ok(subscriber)) = timeout(CONFIRMATION, connector.subscriber()).await {
                let (sink, stream) = subscriber.split();
                if self.hear(sink, stream).await.is_ok() {
                    self.has_stopped = true;
                    return;
                }
            }
            tracing::debug!("announcements of leases are not heard; waiters ask now and then");
            sleep(PAUSE).await;
            self.has_stopped = self.announcements.stop_if_unwanted();
        }
    }

    /// Hears until nobody waits for a while, or the connection fails.
    async fn hear(&self, mut sink: PubSubSink, mut stream: PubSubStream) -> Result<(), ()> {
        let announcements = &self.announcements;
        let mut heard = HashSet::new();
        loop {
            let wanted = announcements.wanted();
            let new: Vec<_> = wanted.difference(&heard).cloned().collect();
            let old: Vec<_> = heard.difference(&wanted).cloned().collect();
            if !new.is_empty() {
                confirmed(sink.subscribe(&new)).await?;
                // What was announced before was not heard.
                new.iter()
                    .for_each(|channel| announcements.announce(channel));
            }
            if !old.is_empty() {
                confirmed(sink.unsubscribe(&old)).await?;
            }
            heard = wanted;
            let idle = async {
                match heard.is_empty() {
                    true => sleep(IDLE).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                message = stream.next() => {
                    let message: Msg = message.ok_or(())?;
                    announcements.announce(message.get_channel_name());
                }
                () = announcements.0.changed.notified() => {}
                () = idle => if announcements.stop_if_unwanted() {
                    return Ok(());
                },
            }
        }
    }
}

async fn confirmed(change: impl Future<Output = RedisResult<()>>) -> Result<(), ()> {
    match timeout(CONFIRMATION, change).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}
