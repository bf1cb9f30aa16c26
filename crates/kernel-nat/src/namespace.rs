//! A network namespace with two devices and a set of rules.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use crate::conntrack::Conntrack;
use crate::ends::{Devices, Ends};
use crate::{Error, Site};

/// A network namespace. It lives as long as this or one of its devices.
#[derive(Debug)]
pub(crate) struct Namespace {
    handle: File,
}

/// What a namespace is talked to by.
pub(crate) struct Reach {
    pub(crate) devices: Devices,
    pub(crate) conntrack: Conntrack,
}

/// Whether this process may make network namespaces as it is.
pub fn allowed() -> bool {
    thread::scope(|scope| scope.spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok()).join().unwrap_or(false))
}

/// Becomes root of a user namespace of its own, which may make network namespaces without being root outside. To be
/// called before the process has a second thread.
///
/// # Errors
/// Where user namespaces are not allowed, or the process has more than one thread.
pub fn enter_user_namespace() -> Result<(), Error> {
    let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| Error::NoRights(error.into()))?;
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|error| Error::Io { what: format!("writing /proc/self/{file}"), error })
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("0 {user} 1"))?;
    write("gid_map", format!("0 {group} 1"))
}

impl Namespace {
    /// A new one for a router at this site. The thread that makes it does nothing else: namespaces belong to threads.
    pub(crate) fn new(
        site: &Site,
        rules: &str,
        tcp_pickup: bool,
        ends: Ends,
    ) -> Result<(Namespace, Reach), Error> {
        thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).map_err(|error| Error::NoRights(error.into()))?;
                build(site, rules, tcp_pickup, ends)
            });
            made.join().unwrap_or_else(|_| Err(Error::NoRights(io::Error::other("the thread panicked"))))
        })
    }

    /// Gives `nft` more to read.
    pub(crate) fn nft(&self, text: &str) -> Result<(), Error> {
        self.feed("nft", &["-f", "-"], text)
    }

    /// Gives `ip` more to do.
    pub(crate) fn ip(&self, text: &str) -> Result<(), Error> {
        self.feed("ip", &["-batch", "-"], text)
    }

    fn feed(&self, command: &'static str, arguments: &[&str], text: &str) -> Result<(), Error> {
        thread::scope(|scope| {
            let done = scope.spawn(|| {
                setns(&self.handle, CloneFlags::CLONE_NEWNET)
                    .map_err(|error| Error::NoRights(error.into()))?;
                feed(command, arguments, text)
            });
            done.join().unwrap_or_else(|_| Err(Error::NoRights(io::Error::other("the thread panicked"))))
        })
    }
}

fn build(site: &Site, rules: &str, tcp_pickup: bool, ends: Ends) -> Result<(Namespace, Reach), Error> {
    let what = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| Error::Io { what, error }
    };
    no_ipv6()?;
    let mut devices = Devices::new(ends)?;
    let mut links =
        String::from("link set lo up\nlink set lan up\nlink set wan up\naddress add 192.0.0.8/32 dev lan\n");
    links.push_str(&way_out(&devices));
    for ip in &site.external {
        links.push_str(&format!("address add {ip}/32 dev wan\n"));
    }
    for (network, prefix) in &site.inside {
        links.push_str(&format!("route add {network}/{prefix} dev lan{}\n", devices.gateway()));
    }
    feed("ip", &["-batch", "-"], &links)?;
    feed("nft", &["-f", "-"], rules)?;
    for (name, value) in SYSCTLS {
        sysctl(name, value, true)?;
    }
    sysctl("net/netfilter/nf_conntrack_tcp_loose", if tcp_pickup { "1" } else { "0" }, true)?;
    for (name, value) in OPTIONAL_SYSCTLS {
        sysctl(name, value, false)?;
    }
    let handle = File::open("/proc/thread-self/ns/net").map_err(what("opening the network namespace"))?;
    let conntrack = Conntrack::new().map_err(what("opening a netlink socket"))?;
    devices.ready().map_err(what("waiting for the devices"))?;
    Ok((Namespace { handle }, Reach { devices, conntrack }))
}

/// Keeps the kernel from sending anything of its own by IPv6 on devices made hereafter.
pub(crate) fn no_ipv6() -> Result<(), Error> {
    sysctl("net/ipv6/conf/default/disable_ipv6", "1", false)
}

/// What the command `ip` does for the route to everybody outside, which goes when `wan` loses its last address.
pub(crate) fn way_out(devices: &Devices) -> String {
    format!("{}route replace default dev wan{}\n", devices.neighbours(), devices.gateway())
}

/// Documentation/networking/ip-sysctl and nf_conntrack-sysctl. The timers are as long as may be: time is the caller's.
const SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/lan/rp_filter", "0"),
    ("net/ipv4/conf/wan/rp_filter", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/lan/send_redirects", "0"),
    ("net/ipv4/conf/wan/send_redirects", "0"),
    ("net/ipv4/icmp_echo_ignore_all", "1"),
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/netfilter/nf_conntrack_tcp_be_liberal", "1"),
    ("net/netfilter/nf_conntrack_udp_timeout", "1000000"),
    ("net/netfilter/nf_conntrack_udp_timeout_stream", "1000000"),
    ("net/netfilter/nf_conntrack_icmp_timeout", "1000000"),
    ("net/netfilter/nf_conntrack_tcp_timeout_close", "1000000"),
    ("net/netfilter/nf_conntrack_tcp_timeout_close_wait", "1000000"),
    ("net/netfilter/nf_conntrack_tcp_timeout_established", "1000000"),
    ("net/netfilter/nf_conntrack_tcp_timeout_fin_wait", "1000000"),
    ("net/netfilter/nf_conntrack_tcp_timeout_last_ack", "1000000"),
    ("net/netfilter/nf_conntrack_tcp_timeout_max_retrans", "1000000"),
    ("net/netfilter/nf_conntrack_tcp_timeout_syn_recv", "1000000"),
    ("net/netfilter/nf_conntrack_tcp_timeout_syn_sent", "1000000"),
    ("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1000000"),
    ("net/netfilter/nf_conntrack_tcp_timeout_unacknowledged", "1000000"),
];

/// What not every kernel has in every namespace.
const OPTIONAL_SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/icmp_msgs_per_sec", "1000000"),
    ("net/ipv4/icmp_msgs_burst", "1000000"),
    ("net/netfilter/nf_conntrack_tcp_ignore_invalid_rst", "1"),
    ("net/bridge/bridge-nf-call-iptables", "0"),
];

fn sysctl(name: &str, value: &str, must: bool) -> Result<(), Error> {
    match fs::write(format!("/proc/sys/{name}"), value) {
        Err(error) if must => Err(Error::Io { what: format!("setting {name}"), error }),
        _ => Ok(()),
    }
}

/// Runs a command in the namespace of this thread.
pub(crate) fn feed(command: &'static str, arguments: &[&str], input: &str) -> Result<(), Error> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Error::NoTool(command),
        _ => Error::Io { what: format!("running {command}"), error },
    };
    let mut child = Command::new(command)
        .args(arguments)
        // The tools of the administrator are not on everybody's path.
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        Ok(())
    } else {
        Err(Error::Command { command, output: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
    }
}
