use super::*;
use tokio::time::advance;

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);

fn breaker() -> Breaker {
    Breaker::new(
        BreakerPolicy::default().window(Duration::from_secs(10)),
        Access::Read,
    )
}

/// A call that has sent a request.
fn ask(breaker: &Breaker) -> Ticket<'_> {
    let mut ticket = breaker.admit(&KEY).unwrap();
    ticket.sends();
    ticket
}

fn call(breaker: &Breaker, success: bool) {
    ask(breaker).report(success);
}

fn open(breaker: &Breaker) {
    (0..5).for_each(|_| call(breaker, false));
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn it_opens_at_a_rate_and_not_below_the_floor() {
    let breaker = breaker();
    for _ in 0..4 {
        call(&breaker, false);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    call(&breaker, false);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert!(breaker.admit(&KEY).is_none());
    assert_eq!(breaker.opened.get(), 1);
    advance(Duration::from_secs(2)).await;
    assert_eq!(
        breaker.error().to_string(),
        "5 of the last 5 reads failed; next probe in 3.0 s"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_now_and_then_does_not_open_it() {
    let breaker = breaker();
    for call_number in 0..1000 {
        call(&breaker, call_number % 3 != 0);
        advance(Duration::from_millis(10)).await;
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_dies_amid_successes_opens_it_soon() {
    let breaker = breaker();
    for _ in 0..10_000 {
        call(&breaker, true);
    }
    for _ in 0..9 {
        call(&breaker, false);
    }
    call(&breaker, true);
    for _ in 0..9 {
        call(&breaker, false);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    call(&breaker, false);
    assert_eq!(breaker.state(), BreakerState::Open);

    let never = Breaker::new(BreakerPolicy::default().failure_percent(101), Access::Read);
    for _ in 0..1000 {
        call(&never, false);
    }
    assert_eq!(never.state(), BreakerState::Closed);
}

/// Lookups of one caller, each of which waits long: there are never many within the window.
#[tokio::test(start_paused = true)]
async fn a_server_that_keeps_few_callers_waiting_opens_it_too() {
    let breaker = Breaker::new(BreakerPolicy::default(), Access::Read);
    for failed in 0..10 {
        assert_eq!(breaker.state(), BreakerState::Closed, "after {failed}");
        let mut ticket = ask(&breaker);
        advance(Duration::from_secs(15)).await;
        ticket.report(false);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn old_failures_are_forgotten() {
    let breaker = breaker();
    for _ in 0..4 {
        call(&breaker, false);
    }
    advance(Duration::from_secs(11)).await;
    for _ in 0..4 {
        call(&breaker, false);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    // And so are old successes.
    let breaker = self::breaker();
    for _ in 0..1000 {
        call(&breaker, true);
    }
    advance(Duration::from_secs(11)).await;
    for _ in 0..5 {
        call(&breaker, false);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_call_from_before_says_nothing_about_after() {
    let breaker = breaker();
    let late: Vec<_> = (0..20).map(|_| ask(&breaker)).collect();
    open(&breaker);
    let healer = breaker.start_healing().unwrap();
    breaker.half_open(healer);
    assert!(
        breaker.admit(&KEY).is_none(),
        "half-open is not for callers"
    );
    breaker.probed(healer, true);
    for mut ticket in late {
        ticket.report(false);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_late_has_failed_and_one_dropped_soon_has_not() {
    let breaker = breaker();
    for _ in 0..20 {
        drop(ask(&breaker));
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    for _ in 0..5 {
        let ticket = ask(&breaker);
        advance(Duration::from_secs(1)).await;
        drop(ticket);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_sent_no_request_says_nothing() {
    let breaker = breaker();
    for _ in 0..20 {
        breaker.admit(&KEY).unwrap().report(false);
        let ticket = breaker.admit(&KEY);
        advance(Duration::from_secs(1)).await;
        drop(ticket);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    // Nor that the server works.
    for _ in 0..4 {
        call(&breaker, false);
        breaker.admit(&KEY).unwrap().report(true);
    }
    call(&breaker, false);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn only_one_healer_runs_and_another_may_take_over() {
    let breaker = breaker();
    assert!(
        breaker.start_healing().is_none(),
        "there is nothing to heal"
    );
    open(&breaker);
    let first = breaker.start_healing().unwrap();
    assert!(breaker.start_healing().is_none());
    breaker.stop_healing(first);
    let second = breaker.start_healing().unwrap();
    assert_eq!(breaker.half_open(second), Some(KEY));
    breaker.probed(second, false);
    assert_eq!(breaker.state(), BreakerState::Open);
    breaker.half_open(second);
    breaker.probed(second, true);
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert!(breaker.start_healing().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_healer_that_has_ended_is_not_in_the_way_of_the_next() {
    let breaker = breaker();
    open(&breaker);
    let first = breaker.start_healing().unwrap();
    breaker.half_open(first);
    breaker.probed(first, true);
    open(&breaker);
    let second = breaker.start_healing().unwrap();
    // It ends only now.
    breaker.stop_healing(first);
    assert!(breaker.start_healing().is_none(), "two would probe at once");
    assert_eq!(breaker.half_open(first), None);
    breaker.probed(first, true);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.half_open(second), Some(KEY));
}

fn writes() -> Breaker {
    Breaker::new(BreakerPolicy::default(), Access::Write)
}

#[tokio::test(start_paused = true)]
async fn the_first_write_after_the_interval_is_the_probe() {
    let breaker = writes();
    open(&breaker);
    advance(Duration::from_secs(4)).await;
    assert!(breaker.admit(&KEY).is_none());
    advance(Duration::from_secs(1)).await;
    let mut probe = ask(&breaker);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert!(breaker.admit(&KEY).is_none(), "one at a time");
    probe.report(false);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert!(breaker.admit(&KEY).is_none(), "not one after the other");
    advance(Duration::from_secs(5)).await;
    call(&breaker, true);
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert_eq!((breaker.opened.get(), breaker.closed.get()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_dropped_as_the_probe_leaves_the_next_a_chance() {
    let breaker = writes();
    open(&breaker);
    advance(Duration::from_secs(5)).await;
    drop(breaker.admit(&KEY).unwrap());
    assert_eq!(breaker.state(), BreakerState::Open);
    // It may have hung.
    drop(ask(&breaker));
    assert!(breaker.admit(&KEY).is_none());
    advance(Duration::from_secs(5)).await;
    call(&breaker, true);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_the_server_asks_for_is_kept_and_bounded() {
    for (asked, kept) in [(1, 5), (60, 60), (u64::MAX, 300)] {
        let breaker = writes();
        let mut ticket = ask(&breaker);
        ticket.report(false);
        ticket.pause(Duration::from_secs(asked));
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(
            breaker
                .error()
                .to_string()
                .contains("asked for a pause of writes")
        );
        advance(Duration::from_secs(kept) - Duration::from_millis(1)).await;
        assert!(breaker.admit(&KEY).is_none(), "{asked}");
        advance(Duration::from_millis(1)).await;
        let mut probe = ask(&breaker);
        // The pause goes on.
        probe.report(false);
        probe.pause(Duration::from_secs(60));
        advance(Duration::from_secs(59)).await;
        assert!(breaker.admit(&KEY).is_none());
        advance(Duration::from_secs(1)).await;
        call(&breaker, true);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
