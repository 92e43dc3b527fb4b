//! The two runtimes of tokio, and tasks that run as a server's do: on a worker.

use std::future::Future;
use tokio::runtime::{Builder, Runtime};

#[derive(Debug)]
pub(crate) struct Tokio {
    pub(crate) name: &'static str,
    runtime: Runtime,
    multi: bool,
}

impl Tokio {
    /// Two workers.
    pub(crate) fn multi() -> Self {
        let mut builder = Builder::new_multi_thread();
        Self::new("multi-thread", builder.worker_threads(2), true)
    }

    pub(crate) fn current() -> Self {
        Self::new("current-thread", &mut Builder::new_current_thread(), false)
    }

    fn new(name: &'static str, builder: &mut Builder, multi: bool) -> Self {
        Self {
            name,
            runtime: builder.enable_all().build().expect("a runtime"),
            multi,
        }
    }

    pub(crate) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> T {
        if self.multi {
            // On a worker, and not on the thread that waits for it.
            let task = self.runtime.spawn(future);
            self.runtime.block_on(task).expect("the task ends")
        } else {
            self.runtime.block_on(future)
        }
    }
}

pub(crate) fn both() -> [Tokio; 2] {
    [Tokio::multi(), Tokio::current()]
}
