//! Actions and their results as SOAP (UPnP Device Architecture 1.1, §3).

use std::fmt::Write as _;

use super::{escape, xml};

/// An action with its arguments, or a result with its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Type of the service, with version.
    pub service: String,
    /// Name of the action.
    pub name: String,
    /// Arguments in their order.
    pub arguments: Vec<(String, String)>,
}

/// An error (§3.2.2).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} {text}")]
pub struct Fault {
    /// Its number.
    pub code: u16,
    /// In words.
    pub text: String,
}

/// Errors that the services define, and the texts that they give them.
const FAULTS: [(u16, &str); 16] = [
    (401, "Invalid Action"),
    (402, "Invalid Args"),
    (501, "Action Failed"),
    (606, "Action not authorized"),
    (701, "PinholeSpaceExhausted"),
    (703, "InboundPinholeNotAllowed"),
    (704, "NoSuchEntry"),
    (705, "ProtocolNotSupported"),
    (713, "SpecifiedArrayIndexInvalid"),
    (714, "NoSuchEntryInArray"),
    (715, "WildCardNotPermittedInSrcIP"),
    (716, "WildCardNotPermittedInExtPort"),
    (718, "ConflictInMappingEntry"),
    (725, "OnlyPermanentLeasesSupported"),
    (728, "NoPortMapsAvailable"),
    (732, "WildCardNotPermittedInIntPort"),
];

impl Fault {
    /// The fault of that number, with the services' own text.
    pub fn of(code: u16) -> Fault {
        let text = FAULTS.iter().find(|(known, _)| *known == code).map_or("Error", |(_, text)| text);
        Fault { code, text: text.to_owned() }
    }
}

const OPEN: &str = "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
                    s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>";
const CLOSE: &str = "</s:Body></s:Envelope>\r\n";
/// Longest argument that is kept, in bytes.
const MAX_ARGUMENT: usize = 1024;
/// Most arguments.
const MAX_ARGUMENTS: usize = 32;

impl Action {
    /// An action of a service.
    pub fn new(service: impl Into<String>, name: &str, arguments: &[(&str, String)]) -> Action {
        let arguments = arguments.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        Action { service: service.into(), name: name.to_owned(), arguments }
    }

    /// The value of an argument.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.arguments.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value of the SOAPACTION field (§3.2.1), quotes included.
    pub fn header(&self) -> String {
        format!("\"{}#{}\"", self.service, self.name)
    }

    /// The body of a request.
    pub fn to_request(&self) -> String {
        self.envelope(&self.name)
    }

    /// The body of the answer, with `arguments` as results.
    pub fn to_response(&self) -> String {
        self.envelope(&format!("{}Response", self.name))
    }

    fn envelope(&self, element: &str) -> String {
        let mut out = format!("{OPEN}<u:{element} xmlns:u=\"{}\">", escape(&self.service));
        for (name, value) in &self.arguments {
            let _ = write!(out, "<{name}>{}</{name}>", escape(value));
        }
        let _ = write!(out, "</u:{element}>{CLOSE}");
        out
    }

    /// Reads the body of a request, or of an answer that is no fault (its name then ends in "Response"). `None` if it is
    /// no SOAP, or has more than any of these services asks for.
    pub fn decode(body: &[u8]) -> Option<Action> {
        let text = std::str::from_utf8(body).ok()?;
        let document = xml(text)?;
        let element = content(&document)?;
        let mut arguments = Vec::new();
        for child in element.children().filter(roxmltree::Node::is_element) {
            let value = child.text().unwrap_or_default().trim();
            if arguments.len() == MAX_ARGUMENTS || value.len() > MAX_ARGUMENT {
                return None;
            }
            arguments.push((child.tag_name().name().to_owned(), value.to_owned()));
        }
        let tag = element.tag_name();
        Some(Action { service: tag.namespace()?.to_owned(), name: tag.name().to_owned(), arguments })
    }
}

/// The element inside of the body.
fn content<'a>(document: &'a roxmltree::Document<'_>) -> Option<roxmltree::Node<'a, 'a>> {
    let envelope = document.root_element();
    let body = envelope.children().find(|node| node.tag_name().name() == "Body")?;
    (envelope.tag_name().name() == "Envelope").then(|| body.first_element_child()).flatten()
}

impl Fault {
    /// The body of the answer, which goes with status 500.
    pub fn to_body(&self) -> String {
        format!(
            "{OPEN}<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>\
             <UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>{}</errorCode>\
             <errorDescription>{}</errorDescription></UPnPError></detail></s:Fault>{CLOSE}",
            self.code,
            escape(&self.text)
        )
    }

    /// Reads the body of an answer with status 500. `None` if it says nothing that can be read.
    pub fn decode(body: &[u8]) -> Option<Fault> {
        let text = std::str::from_utf8(body).ok()?;
        let document = xml(text)?;
        let fault = content(&document).filter(|node| node.tag_name().name() == "Fault")?;
        let find = |name: &str| {
            let found = fault.descendants().find(|node| node.tag_name().name() == name)?;
            Some(found.text().unwrap_or_default().trim().to_owned())
        };
        let text = find("errorDescription").unwrap_or_default().chars().take(80).collect();
        Some(Fault { code: find("errorCode")?.parse().ok()?, text })
    }
}
