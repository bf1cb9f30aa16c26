//! `punchbag status` and `punchbag ping`.

use super::control::{Answer, Client, PeerReport, Report, Request, Way};
use super::{Failure, PingArgs, StatusArgs, host};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use std::time::Duration;

/// Between two pings, as `tailscale ping`.
const BETWEEN: Duration = Duration::from_secs(1);

pub(super) fn status(args: &StatusArgs) -> Result<u8, Failure> {
    let state = host::state_path(args.state.clone(), "peer")?;
    host::block_on(async {
        let mut client = Client::connect(&state).await?;
        let report = match client.ask(&Request::Status).await? {
            Answer::Status(report) => report,
            Answer::Error(error) => return Err(error.into()),
            other => return Err(format!("unexpected answer: {other:?}").into()),
        };
        host::print(&if args.json { serde_json::to_string_pretty(&report)? } else { table(&report) })?;
        Ok(0)
    })?
}

fn table(report: &Report) -> String {
    let tunnel = report.tunnel.map_or_else(|| "no address yet".into(), |address| address.to_string());
    let server = if report.coordinated { "connected" } else { "not connected" };
    let relay = match (&report.home_relay, report.home_relay_connected) {
        (Some(name), true) => format!("{name}, connected"),
        (Some(name), false) => format!("{name}, not connected"),
        (None, _) => "none".into(),
    };
    let nat = match (report.udp_blocked, report.mapping_varies) {
        (true, _) => "UDP does not get out",
        (false, Some(true)) => "mapping varies by destination",
        (false, Some(false)) => "same mapping for all destinations",
        (false, None) => "not known yet",
    };
    let head =
        format!("{} ({tunnel})\ncoordination server: {server}; home relay: {relay}; NAT: {nat}", report.name);
    if report.peers.is_empty() {
        return format!("{head}\nno other peers yet");
    }
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["peer", "address", "path", "RTT", "sent", "received", "handshake"]);
    for peer in &report.peers {
        table.add_row(row(peer));
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{head}\n{table}")
}

fn row(peer: &PeerReport) -> [String; 7] {
    let path = match (peer.way.path.as_deref(), peer.online) {
        (Some(path), _) => format!("{path} {}", place(&peer.way)),
        (None, true) => "idle".into(),
        (None, false) => "offline".into(),
    };
    let ago = peer.handshake_seconds_ago.map_or_else(|| "-".into(), |seconds| format!("{seconds} s ago"));
    [
        peer.name.clone(),
        peer.tunnel.to_string(),
        path,
        peer.rtt_us.map_or_else(|| "-".into(), millis),
        peer.sent_bytes.to_string(),
        peer.received_bytes.to_string(),
        ago,
    ]
}

/// Where a path leads.
fn place(way: &Way) -> String {
    match (&way.address, &way.relay) {
        (Some(address), _) => address.to_string(),
        (None, Some(relay)) => relay.clone(),
        (None, None) => String::new(),
    }
}

/// Whole milliseconds, or tenths below ten.
fn millis(us: u64) -> String {
    match us {
        0..10_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        _ => format!("{} ms", us / 1000),
    }
}

pub(super) fn ping(args: &PingArgs) -> Result<u8, Failure> {
    let state = host::state_path(args.state.clone(), "peer")?;
    host::block_on(async {
        let mut client = Client::connect(&state).await?;
        let mut answered = false;
        for i in 0..args.count {
            if i > 0 {
                tokio::time::sleep(BETWEEN).await;
            }
            match client.ask(&Request::Ping { peer: args.peer.clone() }).await? {
                Answer::Pong(pong) => {
                    answered = true;
                    let direct = pong.way.path.as_deref().is_some_and(|path| path != "relay");
                    let way = match (place(&pong.way), direct) {
                        (place, true) if place.is_empty() => "a direct path".into(),
                        (place, true) => place,
                        (place, false) => format!("relay {place}").trim_end().to_owned(),
                    };
                    let (peer, tunnel, rtt) = (&pong.peer, pong.tunnel, millis(pong.rtt_us));
                    host::print(&format!("pong from {peer} ({tunnel}) via {way} in {rtt}"))?;
                    if direct && !args.all {
                        break;
                    }
                }
                Answer::Silent => host::print(&format!("no answer from {}", args.peer))?,
                Answer::Error(error) => return Err(error.into()),
                Answer::Status(_) => return Err("unexpected answer".into()),
            }
        }
        Ok(u8::from(!answered))
    })?
}
