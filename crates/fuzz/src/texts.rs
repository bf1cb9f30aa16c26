//! What comes as a file or as text.

pub(crate) mod upnp {
    use portmap::upnp::{description, http, soap};

    pub(crate) fn run(data: &[u8]) {
        let _ = http::Request::read(data);
        let _ = http::Response::read(data, true);
        if let Some(action) = soap::Action::decode(data) {
            assert_eq!(
                soap::Action::decode(action.to_request().as_bytes()).map(|again| again.name),
                Some(action.name)
            );
        }
        let _ = soap::Fault::decode(data);
        let _ = description::services(data);
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        let action =
            soap::Action::new("urn:schemas-upnp-org:service:WANIPConnection:1", "GetExternalIPAddress", &[]);
        let xml = b"<root><device><serviceList><service><serviceType>urn:x:1</serviceType><controlURL>/c</controlURL>\
                    </service></serviceList></device></root>";
        vec![
            action.to_request().into_bytes(),
            xml.to_vec(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
        ]
    }
}

pub(crate) mod scenario {
    use punchbag::scenario;

    pub(crate) fn run(data: &[u8]) {
        let Ok(text) = std::str::from_utf8(data) else { return };
        match scenario::parse("any", "any.toml", text) {
            Ok(scenario) => drop(punchbag::topology::Topology::new(&scenario)),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        vec![
            include_bytes!("../../../scenarios/mission/two-homes.toml").to_vec(),
            include_bytes!("../../../scenarios/firewall/rule-added.toml").to_vec(),
        ]
    }
}

pub(crate) mod log {
    pub(crate) fn run(data: &[u8]) {
        if let Ok((_, records)) = trace::read(data) {
            assert!(records.len() <= data.len());
        }
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        let (scenario, title) = ("mission/two-homes".to_owned(), "Two homes".to_owned());
        let (scenario_hash, version, world) = ("00".to_owned(), "0.1.0".to_owned(), "sim".to_owned());
        let format = trace::FORMAT;
        let header = trace::Header { format, scenario, title, scenario_hash, seed: 1, version, world };
        let mut out = Vec::new();
        trace::write_header(&mut out, &header).expect("memory");
        let record = trace::Record { t: 5, event: trace::Event::End { events: 1 } };
        trace::write_record(&mut out, &record).expect("memory");
        vec![out]
    }
}

pub(crate) mod link_trace {
    use link::trace::{DelayTrace, Trace};

    pub(crate) fn run(data: &[u8]) {
        let Ok(text) = std::str::from_utf8(data) else { return };
        let _ = Trace::parse("any", text);
        let _ = DelayTrace::parse("any", text);
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        vec![b"0\n1\n1\n5\n100\n".to_vec(), b"0 10\n1000 25.5\n".to_vec()]
    }
}

pub(crate) mod pem {
    use std::time::Duration;
    use tls::{ClientConfig, Identity, Pin};

    pub(crate) fn run(data: &[u8]) {
        let _ = Identity::from_pem(data, data);
        let _ = ClientConfig::with_authorities(data);
        if let Ok(text) = std::str::from_utf8(data)
            && let Ok(pin) = text.parse::<Pin>()
        {
            assert_eq!(pin.to_string().parse(), Ok(pin));
        }
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        let identity =
            Identity::self_signed([1; 32], &["relay.example"], Duration::ZERO, Duration::from_secs(1 << 30));
        let identity = identity.expect("a name and two dates");
        let (certificate, key) = identity.to_pem().expect("it was made here");
        vec![certificate.into(), key.into(), identity.pin().to_string().into()]
    }
}
