//! A transaction's repetitions, and what they are worth against loss, held against a table of exact values.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use stun::client::{Client, Event, Retransmit};
use stun::message::TransactionId;
use stun::server::Server;

/// Transactions for each share of loss.
const SAMPLES: u32 = 200_000;

/// A row of the table: what it is about, its parameter and its value.
struct Row {
    what: &'static str,
    parameter: f64,
    value: f64,
}

fn table() -> Vec<Row> {
    let lines = include_str!("data/schedule.csv").lines();
    let number = |text: &str| if text.is_empty() { 0.0 } else { text.parse().unwrap() };
    lines
        .skip(2)
        .map(|line| {
            let fields: Vec<_> = line.split(',').collect();
            Row { what: fields[0], parameter: number(fields[1]), value: number(fields[2]) }
        })
        .collect()
}

#[expect(clippy::disallowed_methods, reason = "a test starts the time somewhere")]
fn start() -> Instant {
    Instant::now()
}

/// Plays one transaction without delay over a path that loses this share of packets each way. When the requests went out,
/// and when it ended how, from its start.
fn play(loss: f64, rng: &mut ChaCha8Rng, began: Instant) -> (Vec<Duration>, Duration, bool) {
    let server: SocketAddr = "198.51.100.1:3478".parse().unwrap();
    let us: SocketAddr = "203.0.113.9:4000".parse().unwrap();
    let mut client = Client::binding(server, TransactionId([7; 12]), Retransmit::RFC_8489, began);
    let mut sent = Vec::new();
    let mut now = began;
    loop {
        while let Some((_, request)) = client.poll_transmit() {
            sent.push(now - began);
            if rng.random_bool(1.0 - loss)
                && let Some(answer) = Server::new().respond(server, us, &request)
                && rng.random_bool(1.0 - loss)
            {
                client.handle(server, &answer.data, now);
            }
        }
        match client.poll_event() {
            Some(Event::Mapped { mapped, .. }) => {
                assert_eq!(mapped, us);
                return (sent, now - began, true);
            }
            Some(Event::Failed { .. }) => return (sent, now - began, false),
            None => {}
        }
        now = client.poll_timeout().unwrap().0;
        client.handle_timeout(now);
    }
}

#[test]
fn rfc8489_6_2_1_requests_go_out_and_fail_at_the_exact_times() {
    let (sent, failed, answered) = play(1.0, &mut ChaCha8Rng::seed_from_u64(1), start());

    assert!(!answered);
    let rows = table();
    let times: Vec<_> = rows.iter().filter(|row| row.what == "stun_send_ms").map(|row| row.value).collect();
    assert_eq!(times.len(), 7);
    assert_eq!(sent.iter().map(|at| at.as_secs_f64() * 1e3).collect::<Vec<_>>(), times);
    let end = rows.iter().find(|row| row.what == "stun_fail_ms").unwrap();
    assert!((failed.as_secs_f64() * 1e3 - end.value).abs() < 1e-6);
}

/// The table's other rows are of ICE's pacing (RFC 8445 §14), which no code here follows: a peer checks each candidate on a
/// schedule of its own, all candidates at once.
#[test]
fn rfc8489_6_2_1_failures_and_delays_under_loss_are_as_computed() {
    let began = start();
    let rows = table();
    let of = |what: &str| rows.iter().filter(|row| row.what == what).collect::<Vec<_>>();
    let (failures, delays) = (of("stun_txn_fail_prob"), of("stun_mean_extra_delay_ms"));
    assert_eq!((failures.len(), delays.len()), (6, 6));
    for (failure, delay) in failures.into_iter().zip(delays) {
        assert_eq!(failure.parameter.to_bits(), delay.parameter.to_bits());
        let mut rng = ChaCha8Rng::seed_from_u64(8489);
        let (mut failed, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for _ in 0..SAMPLES {
            let (_, at, answered) = play(failure.parameter, &mut rng, began);
            let ms = at.as_secs_f64() * 1e3;
            if answered {
                sum += ms;
                squares += ms * ms;
            } else {
                failed += 1.0;
            }
        }
        let n = f64::from(SAMPLES);
        // Three standard errors; at least one failure more or less than none.
        let error = 3.0 * (failure.value * (1.0 - failure.value) / n).sqrt();
        assert!(
            (failed / n - failure.value).abs() <= error.max(1.0 / n),
            "loss {}: {failed} of {n} failed, not {}",
            failure.parameter,
            failure.value * n
        );
        let answered = n - failed;
        let mean = sum / answered;
        let error = 3.0 * ((squares / answered - mean * mean) / answered).sqrt();
        assert!(
            (mean - delay.value).abs() <= error,
            "loss {}: {mean} ms instead of {} ± {error}",
            delay.parameter,
            delay.value
        );
    }
}
