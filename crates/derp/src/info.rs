//! The JSON that both ends exchange in boxes when a connection starts.

use serde_json::{Map, Value, json};

use crate::frame::PROTOCOL_VERSION;

/// What a client says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// Protocol version it speaks; 0 if it did not say.
    pub version: u64,
    /// Whether it answers pings of the server.
    pub can_ack_pings: bool,
    /// Whether it only measures.
    pub is_prober: bool,
    /// Name of the program.
    pub app_name: String,
    /// The secret that the relays of a region share; empty from a plain client.
    pub mesh_key: String,
}

/// A token bucket on what one client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Sustained rate, in bytes of frame payload a second.
    pub bytes_per_second: u64,
    /// Size of the bucket, in bytes.
    pub burst: u64,
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// Protocol version it speaks; 0 if it did not say.
    pub version: u64,
    /// How much it lets a client send; beyond it, packets wait in the TCP connection.
    pub rate_limit: Option<RateLimit>,
}

/// Fields of a JSON object by name. Implementations spell names in snake_case, camelCase and PascalCase
/// (Go's decoder ignores case, ts_derp writes snake_case), so case and underscores do not count here.
struct Fields(Map<String, Value>);

impl Fields {
    fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok().map(Self)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        let same = |key: &str| {
            let letters = key.bytes().filter(|b| *b != b'_');
            letters.map(|b| b.to_ascii_lowercase()).eq(name.bytes())
        };
        self.0.iter().find(|(key, _)| same(key)).map(|(_, v)| v)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name).and_then(Value::as_u64)
    }

    fn text(&self, name: &str) -> String {
        self.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn flag(&self, name: &str) -> bool {
        self.get(name).and_then(Value::as_bool).unwrap_or(false)
    }
}

impl ClientInfo {
    /// Reads an object, ignoring fields that are unknown or of another type. `None` if it is no JSON object.
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        let fields = Fields::parse(json)?;
        Some(Self {
            version: fields.number("version").unwrap_or(0),
            can_ack_pings: fields.flag("canackpings"),
            is_prober: fields.flag("isprober"),
            app_name: fields.text("appname"),
            mesh_key: fields.text("meshkey"),
        })
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut object = json!({
            "version": self.version,
            "CanAckPings": self.can_ack_pings,
            "IsProber": self.is_prober,
            "AppName": self.app_name,
        });
        if !self.mesh_key.is_empty() {
            object["meshKey"] = self.mesh_key.as_str().into();
        }
        object.to_string().into_bytes()
    }
}

impl ServerInfo {
    /// What this crate's server says.
    pub(crate) fn ours(rate_limit: Option<RateLimit>) -> Self {
        Self { version: PROTOCOL_VERSION, rate_limit }
    }

    /// As [`ClientInfo::parse`].
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        let fields = Fields::parse(json)?;
        let rate_limit =
            fields.number("tokenbucketbytespersecond").filter(|rate| *rate > 0).map(|bytes_per_second| {
                RateLimit { bytes_per_second, burst: fields.number("tokenbucketbytesburst").unwrap_or(0) }
            });
        Some(Self { version: fields.number("version").unwrap_or(0), rate_limit })
    }

    pub(crate) fn to_json(self) -> Vec<u8> {
        let mut object = json!({ "version": self.version });
        if let Some(limit) = self.rate_limit {
            object["TokenBucketBytesPerSecond"] = limit.bytes_per_second.into();
            object["TokenBucketBytesBurst"] = limit.burst.into();
        }
        object.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn client_info_is_read_in_every_spelling() {
        let want = ClientInfo {
            version: 2,
            can_ack_pings: true,
            is_prober: true,
            app_name: "x".into(),
            ..ClientInfo::default()
        };
        for json in [
            r#"{"version":2,"CanAckPings":true,"IsProber":true,"AppName":"x"}"#,
            r#"{"version":2,"can_ack_pings":true,"is_prober":true,"app_name":"x","mesh_key":null}"#,
            r#"{"Version":2,"canAckPings":true,"isProber":true,"appName":"x","meshKey":null}"#,
        ] {
            assert_eq!(ClientInfo::parse(json.as_bytes()), Some(want.clone()), "{json}");
        }
        assert_eq!(ClientInfo::parse(&want.to_json()), Some(want.clone()));
        let meshed = ClientInfo { mesh_key: "secret".into(), ..want };
        assert_eq!(ClientInfo::parse(&meshed.to_json()), Some(meshed));
    }

    #[test]
    fn fields_of_another_type_count_as_absent() {
        let got = ClientInfo::parse(br#"{"version":"two","is_prober":1,"app_name":[]}"#);
        assert_eq!(got, Some(ClientInfo::default()));
        assert_eq!(ClientInfo::parse(b"[]"), None);
        assert_eq!(ClientInfo::parse(b""), None);
    }

    #[test]
    fn a_rate_limit_survives_the_trip() {
        let limit = RateLimit { bytes_per_second: 1000, burst: 70_000 };
        for rate_limit in [None, Some(limit)] {
            let info = ServerInfo { version: 2, rate_limit };
            assert_eq!(ServerInfo::parse(&info.to_json()), Some(info));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_json_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}\":,0-9a-z]{0,80}") {
            let _ = (ClientInfo::parse(&bytes), ServerInfo::parse(&bytes));
            let _ = (ClientInfo::parse(text.as_bytes()), ServerInfo::parse(text.as_bytes()));
        }
    }
}
