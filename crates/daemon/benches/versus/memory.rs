//! What an idle client costs a relay in memory.

use crate::coturn::{Server, Way};
use crate::relay::Relay;

/// Clients that do nothing.
const CLIENTS: u32 = 2000;
/// A page of memory on every machine that this was tried on; `/proc` counts in pages.
const PAGE: u64 = 4096;

/// Resident memory of a process, in bytes (proc_pid_statm(5)).
fn resident(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    Some(text.split_whitespace().nth(1)?.parse::<u64>().ok()? * PAGE)
}

/// What each of many costs a process, in bytes.
fn each<T>(pid: u32, client: impl Fn(u32) -> T) -> Option<f64> {
    // What a first one needs is not what each needs.
    let mut clients: Vec<T> = (0..50).map(&client).collect();
    let before = resident(pid)?;
    clients.extend((50..50 + CLIENTS).map(client));
    let after = resident(pid)?;
    Some(after.saturating_sub(before) as f64 / f64::from(CLIENTS))
}

/// Measures ours and, if it runs, coturn. Ours is on a thread of this process; its clients are bare sockets, whose memory is
/// the kernel's.
pub(crate) fn report(turn: Option<&Server>) {
    let relay = Relay::start();
    let Some(ours) = each(std::process::id(), |number| relay.client(number)) else {
        println!("NOT MEASURED: memory of an idle client: there is no /proc here");
        return;
    };
    println!("memory of an idle client, ours: {ours:.0} bytes ({CLIENTS} of them)");
    let theirs = turn.and_then(|turn| {
        each(turn.pid(), |_| {
            let mut way = Way::new(turn, true);
            way.allocate();
            way
        })
    });
    if let Some(theirs) = theirs {
        println!("memory of an idle client, coturn by TCP: {theirs:.0} bytes");
        println!("ours / coturn = {:.2}", ours / theirs);
    }
}
