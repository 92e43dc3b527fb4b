//! A future that is polled once and then neither polled nor dropped holds up no other call.
use crate::support::{artifact, folder, key};
use futures::poll;
use pipeline_cache::{DiskCache, PipelineCacheStore};
use std::pin::pin;
use std::sync::mpsc;
use std::time::Duration;

/// Polls each call once, and keeps it.
macro_rules! abandon {
    ($($name:ident = $call:expr;)*) => {
        $(
            let mut $name = pin!($call);
            assert!(poll!(&mut $name).is_pending());
        )*
    };
}

/// One operation at once, on one thread for what waits.
fn with_one_operation<F: Future>(test: impl FnOnce(DiskCache) -> F) -> F::Output {
    let folder = folder();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.max_blocking_threads(1).enable_all().build();
    runtime.unwrap().block_on(async {
        let settings = DiskCache::builder().root(folder.path());
        let cache = settings.max_concurrent_operations(1).open().await.unwrap();
        let within = tokio::time::timeout(Duration::from_secs(60), test(cache));
        within.await.expect("a call waits for an abandoned one")
    })
}

/// Absent keys that nobody has looked for: the kernel knows nothing of them, so each lookup goes to
/// the blocking pool.
async fn look_for_absent_keys(cache: &DiskCache) {
    for number in 0..1000 {
        assert_eq!(cache.get(&key(1000 + number)).await.unwrap(), None);
    }
}

#[test]
fn an_abandoned_lookup_holds_up_no_other() {
    with_one_operation(async |cache| {
        let (release, gate) = mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || gate.recv());
        let keys = [key(1), key(2)];
        // The first has the permit. The second waits for it, and would be given it.
        abandon! {
            first = cache.get(&keys[0]);
            second = cache.get(&keys[1]);
        }
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        look_for_absent_keys(&cache).await;
        assert_eq!(first.await.unwrap(), None);
        assert_eq!(second.await.unwrap(), None);
    });
}

#[test]
fn an_abandoned_write_holds_up_no_other_call() {
    with_one_operation(async |cache| {
        let keys = [key(1), key(2)];
        cache.put(&keys[0], artifact(10)).await.unwrap();
        let (release, gate) = mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || gate.recv());
        abandon! {
            put = cache.put(&keys[1], artifact(10));
            same_key = cache.put(&keys[1], artifact(10));
            remove = cache.remove(&keys[1]);
            flush = cache.flush();
            trim = cache.trim();
            clear = cache.clear();
            contains = cache.contains(&keys[0]);
            frame = cache.open_frame(&keys[0]);
        }
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        look_for_absent_keys(&cache).await;
        cache.put(&keys[1], artifact(10)).await.unwrap();
        cache.remove(&keys[1]).await.unwrap();
        cache.flush().await.unwrap();
        cache.trim().await.unwrap();
        cache.clear().await.unwrap();
        cache.close(Duration::from_secs(30)).await.unwrap();
        assert!(cache.durability_report().durable);
        put.await.unwrap();
        same_key.await.unwrap();
        remove.await.unwrap();
        flush.await.unwrap();
        trim.await.unwrap();
        contains.await.unwrap();
        frame.await.unwrap();
        drop(clear);
    });
}
