//! Descriptions of device and services (UPnP Device Architecture 1.1, §2).

use std::fmt::Write as _;

use super::{FIREWALL, IgdVersion, WAN_IP, WAN_PPP, escape, xml};

/// Path of the device description.
pub const ROOT: &str = "/rootDesc.xml";
/// Path of the control of the connection service.
pub const CONNECTION_CONTROL: &str = "/ctl/IPConn";
/// Path of the control of the IPv6 firewall.
pub const FIREWALL_CONTROL: &str = "/ctl/IP6FCtl";
/// Path of the description of the connection service.
pub const CONNECTION_SCPD: &str = "/WANIPCn.xml";
/// Path of the description of the IPv6 firewall.
pub const FIREWALL_SCPD: &str = "/WANIP6FC.xml";

/// A service of a device, as far as a client needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its type, with version.
    pub kind: String,
    /// Where it is controlled, as written: a path, or a whole URL.
    pub control: String,
}

/// Argument: name, whether the caller gives it, related state variable.
type Argument = (&'static str, bool, &'static str);

/// Actions of WANIPConnection with their arguments (WANIPConnection:2, §2.5); the last is not in version 1.
const CONNECTION: [(&str, &[Argument]); 8] = [
    (
        "GetConnectionTypeInfo",
        &[
            ("NewConnectionType", false, "ConnectionType"),
            ("NewPossibleConnectionTypes", false, "PossibleConnectionTypes"),
        ],
    ),
    (
        "GetStatusInfo",
        &[
            ("NewConnectionStatus", false, "ConnectionStatus"),
            ("NewLastConnectionError", false, "LastConnectionError"),
            ("NewUptime", false, "Uptime"),
        ],
    ),
    ("GetExternalIPAddress", &[("NewExternalIPAddress", false, "ExternalIPAddress")]),
    ("AddPortMapping", &[REMOTE, PORT, PROTOCOL, INNER, CLIENT, ENABLED, TEXT, LEASE]),
    ("DeletePortMapping", &[REMOTE, PORT, PROTOCOL]),
    (
        "GetSpecificPortMappingEntry",
        &[REMOTE, PORT, PROTOCOL, out(INNER), out(CLIENT), out(ENABLED), out(TEXT), out(LEASE)],
    ),
    (
        "GetGenericPortMappingEntry",
        &[
            ("NewPortMappingIndex", true, "PortMappingNumberOfEntries"),
            out(REMOTE),
            out(PORT),
            out(PROTOCOL),
            out(INNER),
            out(CLIENT),
            out(ENABLED),
            out(TEXT),
            out(LEASE),
        ],
    ),
    (
        "AddAnyPortMapping",
        &[
            REMOTE,
            PORT,
            PROTOCOL,
            INNER,
            CLIENT,
            ENABLED,
            TEXT,
            LEASE,
            ("NewReservedPort", false, "ExternalPort"),
        ],
    ),
];

/// Actions of WANIPv6FirewallControl (WANIPv6FirewallControl:1, §2.5).
const PINHOLES: [(&str, &[Argument]); 4] = [
    (
        "GetFirewallStatus",
        &[
            ("FirewallEnabled", false, "FirewallEnabled"),
            ("InboundPinholeAllowed", false, "InboundPinholeAllowed"),
        ],
    ),
    (
        "AddPinhole",
        &[
            ("RemoteHost", true, "A_ARG_TYPE_IPv6Address"),
            ("RemotePort", true, "A_ARG_TYPE_Port"),
            ("InternalClient", true, "A_ARG_TYPE_IPv6Address"),
            ("InternalPort", true, "A_ARG_TYPE_Port"),
            ("Protocol", true, "A_ARG_TYPE_Protocol"),
            ("LeaseTime", true, "A_ARG_TYPE_LeaseTime"),
            ("UniqueID", false, "A_ARG_TYPE_UniqueID"),
        ],
    ),
    (
        "UpdatePinhole",
        &[("UniqueID", true, "A_ARG_TYPE_UniqueID"), ("NewLeaseTime", true, "A_ARG_TYPE_LeaseTime")],
    ),
    ("DeletePinhole", &[("UniqueID", true, "A_ARG_TYPE_UniqueID")]),
];

const REMOTE: Argument = ("NewRemoteHost", true, "RemoteHost");
const PORT: Argument = ("NewExternalPort", true, "ExternalPort");
const PROTOCOL: Argument = ("NewProtocol", true, "PortMappingProtocol");
const INNER: Argument = ("NewInternalPort", true, "InternalPort");
const CLIENT: Argument = ("NewInternalClient", true, "InternalClient");
const ENABLED: Argument = ("NewEnabled", true, "PortMappingEnabled");
const TEXT: Argument = ("NewPortMappingDescription", true, "PortMappingDescription");
const LEASE: Argument = ("NewLeaseDuration", true, "PortMappingLeaseDuration");

const fn out((name, _, variable): Argument) -> Argument {
    (name, false, variable)
}

/// Whether a version of the connection service has an action.
pub(crate) fn has_action(version: IgdVersion, name: &str) -> bool {
    actions(version).iter().any(|(action, _)| *action == name)
}

fn actions(version: IgdVersion) -> &'static [(&'static str, &'static [Argument])] {
    match version {
        IgdVersion::V1 => &CONNECTION[..7],
        IgdVersion::V2 => &CONNECTION,
    }
}

/// The device description of a gateway. `uuid` is its identity; pinholes exist in version 2 only.
pub fn device(version: IgdVersion, uuid: &str) -> String {
    let (n, uuid) = (version.number(), escape(uuid));
    let service = |kind: &str, id: &str, control: &str, scpd: &str| {
        format!(
            "<service><serviceType>{kind}</serviceType><serviceId>urn:upnp-org:serviceId:{id}</serviceId>\
             <controlURL>{control}</controlURL><eventSubURL>/evt/{id}</eventSubURL><SCPDURL>{scpd}</SCPDURL></service>"
        )
    };
    let named = |kind: &str, number: u8| {
        format!(
            "<deviceType>urn:schemas-upnp-org:device:{kind}:{n}</deviceType><friendlyName>{kind}</friendlyName>\
             <manufacturer>Punchbag</manufacturer><modelName>Punchbag gateway</modelName>\
             <UDN>uuid:{uuid}{number}</UDN>"
        )
    };
    let mut services = service(&version.connection(), "WANIPConn1", CONNECTION_CONTROL, CONNECTION_SCPD);
    if version == IgdVersion::V2 {
        services += &service(FIREWALL, "WANIPv6Firewall1", FIREWALL_CONTROL, FIREWALL_SCPD);
    }
    format!(
        "<?xml version=\"1.0\"?>\r\n<root xmlns=\"urn:schemas-upnp-org:device-1-0\"><specVersion><major>1</major>\
         <minor>1</minor></specVersion><device>{}<deviceList><device>{}<deviceList><device>{}<serviceList>{services}\
         </serviceList></device></deviceList></device></deviceList></device></root>\r\n",
        named("InternetGatewayDevice", 0),
        named("WANDevice", 1),
        named("WANConnectionDevice", 2),
    )
}

/// The description of the connection service.
pub fn connection(version: IgdVersion) -> String {
    scpd(actions(version))
}

/// The description of the IPv6 firewall.
pub fn firewall() -> String {
    scpd(&PINHOLES)
}

fn scpd(actions: &[(&str, &[Argument])]) -> String {
    let mut out = String::from(
        "<?xml version=\"1.0\"?>\r\n<scpd xmlns=\"urn:schemas-upnp-org:service-1-0\"><specVersion><major>1</major>\
         <minor>1</minor></specVersion><actionList>",
    );
    let mut variables: Vec<&str> = Vec::new();
    for (name, arguments) in actions {
        let _ = write!(out, "<action><name>{name}</name><argumentList>");
        for (name, given, variable) in *arguments {
            let direction = if *given { "in" } else { "out" };
            let _ = write!(
                out,
                "<argument><name>{name}</name><direction>{direction}</direction>\
                 <relatedStateVariable>{variable}</relatedStateVariable></argument>"
            );
            if !variables.contains(variable) {
                variables.push(variable);
            }
        }
        out.push_str("</argumentList></action>");
    }
    out.push_str("</actionList><serviceStateTable>");
    for variable in variables {
        let kind = match variable {
            "ExternalPort"
            | "InternalPort"
            | "PortMappingNumberOfEntries"
            | "A_ARG_TYPE_Port"
            | "A_ARG_TYPE_Protocol"
            | "A_ARG_TYPE_UniqueID" => "ui2",
            "PortMappingLeaseDuration" | "Uptime" | "A_ARG_TYPE_LeaseTime" => "ui4",
            "PortMappingEnabled" | "FirewallEnabled" | "InboundPinholeAllowed" => "boolean",
            _ => "string",
        };
        let _ = write!(
            out,
            "<stateVariable sendEvents=\"no\"><name>{variable}</name><dataType>{kind}</dataType></stateVariable>"
        );
    }
    out.push_str("</serviceStateTable></scpd>\r\n");
    out
}

/// Finds the services by which ports are mapped or pinholes opened in a device description, in its order.
pub fn services(document: &[u8]) -> Vec<Service> {
    let Some(document) = std::str::from_utf8(document).ok().and_then(xml) else { return Vec::new() };
    let text = |node: roxmltree::Node<'_, '_>, name: &str| {
        let child = node.children().find(|child| child.tag_name().name() == name)?;
        Some(child.text()?.trim().to_owned())
    };
    let services = document.descendants().filter(|node| node.tag_name().name() == "service");
    services
        .filter_map(|node| {
            Some(Service { kind: text(node, "serviceType")?, control: text(node, "controlURL")? })
        })
        .filter(|service| [WAN_IP, WAN_PPP, FIREWALL].iter().any(|kind| service.kind.starts_with(kind)))
        .collect()
}
