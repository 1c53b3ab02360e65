//! Hashing that takes long: PBKDF2, with as many iterations as a stored secret or a server asks for.

use tokio::sync::Semaphore;

/// Up to so many iterations are done where they are needed: 20 ms or so. More would hold up every client of a worker.
const QUICK: u32 = 100_000;

/// Long work is done by this many threads at a time, so that the workers keep some of the machine.
static PLACES: Semaphore = Semaphore::const_new(2);

/// Does work of so many iterations: at once if that is quick, else on a thread for which no client has to wait.
pub(super) async fn work<T: Send + 'static>(iterations: u32, work: impl FnOnce() -> T + Send + 'static) -> T {
    if iterations <= QUICK {
        return work();
    }
    let place = PLACES.acquire().await;
    // The place is taken until the work has ended, even if nobody waits for it any more.
    let worked = tokio::task::spawn_blocking(move || {
        let _place = place;
        work()
    });
    match worked.await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The program ends.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_work_is_done_elsewhere() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let here = std::thread::current().id();
        let there = |iterations| runtime.block_on(work(iterations, || std::thread::current().id()));
        assert_eq!(there(0), here);
        assert_eq!(there(QUICK), here);
        assert_ne!(there(QUICK + 1), here);
    }

    /// While more of it waits than there are places, whatever else there is to do goes on.
    #[test]
    fn long_work_holds_nobody_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (release, waits) = std::sync::mpsc::channel::<()>();
        let waits = std::sync::Arc::new(parking_lot::Mutex::new(waits));
        runtime.block_on(tokio::task::LocalSet::new().run_until(async {
            let tasks: Vec<_> = (0..5)
                .map(|_| {
                    let waits = std::sync::Arc::clone(&waits);
                    tokio::task::spawn_local(work(QUICK + 1, move || waits.lock().recv().unwrap()))
                })
                .collect();
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            assert!(tasks.iter().all(|task| !task.is_finished()));
            work(QUICK, || ()).await;
            tasks.iter().for_each(|_| release.send(()).unwrap());
            for task in tasks {
                task.await.unwrap();
            }
        }));
    }
}
