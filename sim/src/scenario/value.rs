//! The leaves of a scenario file: values that remember where they stand, and report what is wrong with them later, so
//! that one reading finds every mistake.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_spanned::Spanned;

use super::error::suggest;
use super::model::When;
use super::units::{self, Bad};

/// Something written as one TOML value.
pub(super) trait Value: Sized {
    /// "a duration".
    const WHAT: &'static str;
    /// How it is written.
    const EXAMPLE: &'static str;

    /// Reads a string.
    fn text(text: &str) -> Result<Self, Bad>;

    /// Reads a number.
    fn number(number: i64) -> Result<Self, Bad> {
        Err(Bad::new(
            format!("`{number}` is not {}", Self::WHAT),
            format!("write {} in quotes with its unit, for example {}", Self::WHAT, Self::EXAMPLE),
        ))
    }

    /// Reads true or false.
    fn truth(truth: bool) -> Result<Self, Bad> {
        Err(Bad::new(
            format!("`{truth}` is not {}", Self::WHAT),
            format!("write {}, for example {}", Self::WHAT, Self::EXAMPLE),
        ))
    }

    /// What an editor should know.
    fn schema() -> Schema {
        json_schema!({ "type": "string", "examples": [Self::EXAMPLE.trim_matches('"')] })
    }
}

/// A value, or why it is none, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Val<T> {
    pub(super) span: Range<usize>,
    pub(super) value: Result<T, Bad>,
}

struct Leaf<T>(Result<T, Bad>);

struct LeafVisitor<T>(PhantomData<T>);

impl<T: Value> Visitor<'_> for LeafVisitor<T> {
    type Value = Leaf<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} such as {}", T::WHAT, T::EXAMPLE)
    }

    fn visit_str<E>(self, text: &str) -> Result<Leaf<T>, E> {
        Ok(Leaf(T::text(text)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Leaf<T>, E> {
        Ok(Leaf(T::number(number)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Leaf<T>, E> {
        Ok(Leaf(Err(Bad::new(
            format!("`{number}` is not {}", T::WHAT),
            format!("write {} such as {}", T::WHAT, T::EXAMPLE),
        ))))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Leaf<T>, E> {
        Ok(Leaf(T::truth(truth)))
    }
}

impl<'de, T: Value> Deserialize<'de> for Leaf<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LeafVisitor(PhantomData))
    }
}

impl<'de, T: Value> Deserialize<'de> for Val<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let leaf = Spanned::<Leaf<T>>::deserialize(deserializer)?;
        Ok(Val { span: leaf.span(), value: leaf.into_inner().0 })
    }
}

impl<T: Value> JsonSchema for Val<T> {
    fn schema_name() -> Cow<'static, str> {
        T::WHAT.into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        T::schema()
    }
}

/// A word that stands for a table, or the table itself.
#[derive(Debug, Clone)]
pub(super) struct Sugar<T> {
    pub(super) span: Range<usize>,
    pub(super) value: Either<T>,
}

/// See [`Sugar`].
#[derive(Debug, Clone)]
pub(super) enum Either<T> {
    Word(String),
    Table(Box<T>),
}

struct EitherVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for EitherVisitor<T> {
    type Value = Either<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word or a table")
    }

    fn visit_str<E>(self, word: &str) -> Result<Either<T>, E> {
        Ok(Either::Word(word.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Either<T>, A::Error> {
        T::deserialize(de::value::MapAccessDeserializer::new(map)).map(|table| Either::Table(Box::new(table)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Either<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EitherVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Sugar<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let either = Spanned::<Either<T>>::deserialize(deserializer)?;
        Ok(Sugar { span: either.span(), value: either.into_inner() })
    }
}

/// Sections by name, in the order in which they stand.
#[derive(Debug, Clone)]
pub(super) struct Ordered<T>(pub(super) Vec<(Spanned<String>, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Ordered(Vec::new())
    }
}

struct OrderedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OrderedVisitor<T> {
    type Value = Ordered<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sections by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
        let mut sections = Vec::new();
        while let Some(section) = map.next_entry()? {
            sections.push(section);
        }
        sections.sort_by_key(|(name, _): &(Spanned<String>, T)| name.span().start);
        Ok(Ordered(sections))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OrderedVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Ordered<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("{} by name", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let section = generator.subschema_for::<T>();
        json_schema!({ "type": "object", "additionalProperties": section })
    }
}

/// A table that has presets.
pub(super) trait Presets {
    /// The words that stand for it.
    fn words() -> Vec<&'static str>;
}

impl<T: JsonSchema + Presets> JsonSchema for Sugar<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("{} or its preset", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "enum": T::words() }, table] })
    }
}

/// One value for both directions of a cable, or one for each.
#[derive(Debug, Clone)]
pub(super) struct Both<T> {
    pub(super) down: Option<Val<T>>,
    pub(super) up: Option<Val<T>>,
}

/// How [`Both`] is written as a table.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, bound = "T: Value")]
struct Each<T> {
    down: Option<Val<T>>,
    up: Option<Val<T>>,
}

enum OneOrEach<T> {
    One(Leaf<T>),
    Each(Each<T>),
}

struct OneOrEachVisitor<T>(PhantomData<T>);

impl<'de, T: Value> Visitor<'de> for OneOrEachVisitor<T> {
    type Value = OneOrEach<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} such as {e}, or {{ down = {e}, up = {e} }}", T::WHAT, e = T::EXAMPLE)
    }

    fn visit_str<E>(self, text: &str) -> Result<OneOrEach<T>, E> {
        Ok(OneOrEach::One(Leaf(T::text(text))))
    }

    fn visit_i64<E>(self, number: i64) -> Result<OneOrEach<T>, E> {
        Ok(OneOrEach::One(Leaf(T::number(number))))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<OneOrEach<T>, E> {
        Ok(OneOrEach::One(Leaf(T::truth(truth))))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OneOrEach<T>, A::Error> {
        Each::deserialize(de::value::MapAccessDeserializer::new(map)).map(OneOrEach::Each)
    }
}

impl<'de, T: Value> Deserialize<'de> for OneOrEach<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrEachVisitor(PhantomData))
    }
}

impl<'de, T: Value + Clone> Deserialize<'de> for Both<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let both = Spanned::<OneOrEach<T>>::deserialize(deserializer)?;
        let span = both.span();
        Ok(match both.into_inner() {
            OneOrEach::One(Leaf(value)) => {
                let value = Val { span, value };
                Both { down: Some(value.clone()), up: Some(value) }
            }
            OneOrEach::Each(Each { down, up }) => Both { down, up },
        })
    }
}

impl<T: Value> JsonSchema for Both<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("{} for both directions or each", T::WHAT).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            T::schema(),
            { "type": "object", "additionalProperties": false, "properties": { "down": T::schema(), "up": T::schema() } },
        ] })
    }
}

/// Takes null out of a schema: a key of TOML is there or not.
pub(super) fn forget_null(schema: &mut Schema) {
    let null = serde_json::json!("null");
    if let Some(types) = schema.get_mut("type").and_then(|types| types.as_array_mut()) {
        types.retain(|known| *known != null);
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(words) = schema.get_mut("enum").and_then(|words| words.as_array_mut()) {
        words.retain(|word| !word.is_null());
    }
    let Some(choices) = schema.get_mut("anyOf").and_then(|choices| choices.as_array_mut()) else { return };
    choices.retain(|choice| choice.get("type") != Some(&null));
    if let [serde_json::Value::Object(only)] = choices.as_slice() {
        let only = only.clone();
        schema.remove("anyOf");
        for (key, value) in only {
            schema.insert(key, value);
        }
    }
}

// ---- kinds of values ------------------------------------------------------------------------

/// Any text.
impl Value for String {
    const WHAT: &'static str = "text";
    const EXAMPLE: &'static str = "\"two homes\"";

    fn text(text: &str) -> Result<Self, Bad> {
        Ok(text.to_owned())
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl Value for bool {
    const WHAT: &'static str = "true or false";
    const EXAMPLE: &'static str = "true";

    fn text(text: &str) -> Result<Self, Bad> {
        Err(Bad::new(format!("`{text}` is not true or false"), "write true or false, without quotes"))
    }

    fn truth(truth: bool) -> Result<Self, Bad> {
        Ok(truth)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

/// A plain number of things.
impl Value for u64 {
    const WHAT: &'static str = "a number";
    const EXAMPLE: &'static str = "3";

    fn text(text: &str) -> Result<Self, Bad> {
        Err(Bad::new(format!("`{text}` is not a number"), "write a number without quotes, for example 3"))
    }

    fn number(number: i64) -> Result<Self, Bad> {
        u64::try_from(number)
            .map_err(|_| Bad::new(format!("`{number}` is negative"), "write a number from 0"))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "integer", "minimum": 0 })
    }
}

impl Value for Duration {
    const WHAT: &'static str = "a duration";
    const EXAMPLE: &'static str = "\"20ms\"";

    fn text(text: &str) -> Result<Self, Bad> {
        units::parse_duration(text)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": r"^\d+(\.\d+)? ?(ns|us|ms|s|min|h)$", "examples": ["20ms"] })
    }
}

impl Value for When {
    const WHAT: &'static str = "a time";
    const EXAMPLE: &'static str = "\"15s\" or \"5s..20s\"";

    fn text(text: &str) -> Result<Self, Bad> {
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        let (from, to) = (units::parse_duration(from)?, units::parse_duration(to)?);
        if from > to {
            return Err(Bad::new(format!("`{text}` ends before it begins"), "write the earlier time first"));
        }
        Ok(When { from, to })
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^\d+(\.\d+)? ?(ns|us|ms|s|min|h)( ?\.\. ?\d+(\.\d+)? ?(ns|us|ms|s|min|h))?$",
            "examples": ["15s", "5s..20s"],
        })
    }
}

impl Value for IpAddr {
    const WHAT: &'static str = "an IP address";
    const EXAMPLE: &'static str = "\"192.168.1.2\"";

    fn text(text: &str) -> Result<Self, Bad> {
        text.parse().map_err(|_| {
            Bad::new(
                format!("`{text}` is not an IP address"),
                "write one such as \"192.168.1.2\" or \"fd00::2\"",
            )
        })
    }
}

/// Bits per second; `None` = unlimited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate(pub(super) Option<u64>);

impl Value for Rate {
    const WHAT: &'static str = "a rate";
    const EXAMPLE: &'static str = "\"100Mbit/s\"";

    fn text(text: &str) -> Result<Self, Bad> {
        units::parse_rate(text).map(Rate)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": r"^(unlimited|\d+(\.\d+)? ?[kMG]?bit/s)$", "examples": ["100Mbit/s"] })
    }
}

/// Bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(pub(super) u64);

impl Value for Size {
    const WHAT: &'static str = "a size";
    const EXAMPLE: &'static str = "\"64KiB\"";

    fn text(text: &str) -> Result<Self, Bad> {
        units::parse_size(text).map(Size)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": r"^\d+(\.\d+)? ?(B|[kMG]B|[KMG]iB)$", "examples": ["64KiB"] })
    }
}

/// Bytes of a queue; `None` = unlimited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queue(pub(super) Option<u64>);

impl Value for Queue {
    const WHAT: &'static str = "a size of a queue";
    const EXAMPLE: &'static str = "\"64KiB\"";

    fn text(text: &str) -> Result<Self, Bad> {
        if text == "unlimited" {
            Ok(Queue(None))
        } else {
            units::parse_size(text).map(|bytes| Queue(Some(bytes)))
        }
    }
}

/// Parts per billion.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ratio(pub(super) u32);

impl Value for Ratio {
    const WHAT: &'static str = "a share";
    const EXAMPLE: &'static str = "\"0.1%\"";

    fn text(text: &str) -> Result<Self, Bad> {
        units::parse_ratio(text).map(Ratio)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": r"^\d+(\.\d+)? ?%$", "examples": ["0.1%"] })
    }
}

/// A network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefix(pub(super) (IpAddr, u8));

impl Value for Prefix {
    const WHAT: &'static str = "a network";
    const EXAMPLE: &'static str = "\"192.168.1.0/24\"";

    fn text(text: &str) -> Result<Self, Bad> {
        units::parse_prefix(text).map(Prefix)
    }
}

/// One of a fixed set of words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word<T>(pub(super) T);

/// A type whose values are words.
pub(super) trait Words: Copy + 'static {
    /// "a mapping behaviour".
    const WHAT: &'static str;
    /// The first word, in quotes.
    const EXAMPLE: &'static str;
    /// Every value with its word.
    fn all() -> Vec<(&'static str, Self)>;
    /// The value of a word; overridden by types that know more words than they write.
    fn find(word: &str) -> Option<Self> {
        Self::all().into_iter().find(|(known, _)| *known == word).map(|(_, value)| value)
    }
}

impl<T: Words> Value for Word<T> {
    const WHAT: &'static str = T::WHAT;
    const EXAMPLE: &'static str = T::EXAMPLE;

    fn text(text: &str) -> Result<Self, Bad> {
        T::find(text).map(Word).ok_or_else(|| {
            let known = T::all();
            let help = suggest(text, known.iter().map(|(word, _)| *word));
            Bad::new(format!("`{text}` is not {}", T::WHAT), help)
        })
    }

    fn schema() -> Schema {
        let words: Vec<&str> = T::all().into_iter().map(|(word, _)| word).collect();
        json_schema!({ "enum": words })
    }
}

/// Words for an enum that has `ALL`, `as_str` and `FromStr`.
macro_rules! words {
    ($type:ty, $what:literal, $example:literal) => {
        impl Words for $type {
            const WHAT: &'static str = $what;
            const EXAMPLE: &'static str = concat!("\"", $example, "\"");

            fn all() -> Vec<(&'static str, Self)> {
                <$type>::ALL.iter().map(|value| (value.as_str(), *value)).collect()
            }

            fn find(word: &str) -> Option<Self> {
                word.parse().ok()
            }
        }
    };
}

words!(nat::Mapping, "a mapping behaviour", "endpoint-independent");
words!(nat::Filtering, "a filtering behaviour", "address-and-port-dependent");
words!(nat::PortAllocation, "a port allocation", "preserving");
words!(nat::Hairpin, "a hairpin behaviour", "external-source");
words!(nat::Collision, "a collision behaviour", "next-free");
words!(nat::Pooling, "an address pooling", "paired");
words!(nat::Unsolicited, "an answer to unsolicited packets", "drop");
words!(nat::Exhausted, "an answer when exhausted", "drop");
words!(nat::WhenFull, "a behaviour when full", "refuse-new");
words!(nat::Fragments, "a fragment behaviour", "any-order");

words!(nat::LinuxRule, "a translation rule of Linux", "masquerade");
words!(nat::InputPolicy, "an input policy", "drop");
words!(nat::ForwardPolicy, "a forward policy", "drop");

/// Which packets start the time of a conversation anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refresh {
    pub(super) outbound: bool,
    pub(super) inbound: bool,
}

impl Words for Refresh {
    const WHAT: &'static str = "a refresh behaviour";
    const EXAMPLE: &'static str = "\"both\"";

    fn all() -> Vec<(&'static str, Self)> {
        vec![
            ("both", Refresh { outbound: true, inbound: true }),
            ("outbound", Refresh { outbound: true, inbound: false }),
            ("inbound", Refresh { outbound: false, inbound: true }),
            ("none", Refresh { outbound: false, inbound: false }),
        ]
    }
}

/// Whether a firewall passes UDP at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Udp {
    Open,
    Blocked,
}

impl Words for Udp {
    const WHAT: &'static str = "a policy for UDP";
    const EXAMPLE: &'static str = "\"blocked\"";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("open", Udp::Open), ("blocked", Udp::Blocked)]
    }
}

/// What is left after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Kept,
    Lost,
}

impl Words for State {
    const WHAT: &'static str = "a state after a restart";
    const EXAMPLE: &'static str = "\"kept\"";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("kept", State::Kept), ("lost", State::Lost)]
    }
}

/// How far a clock jumps, and whether back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Jump {
    pub(super) by: Duration,
    pub(super) back: bool,
}

impl Value for Jump {
    const WHAT: &'static str = "a jump of a clock";
    const EXAMPLE: &'static str = "\"+1h\" or \"-1h\"";

    fn text(text: &str) -> Result<Self, Bad> {
        let back = text.starts_with('-');
        let Some(by) = text.strip_prefix(['+', '-']) else {
            return Err(Bad::new(format!("`{text}` does not say which way"), "write \"+1h\" or \"-1h\""));
        };
        Ok(Jump { by: units::parse_duration(by)?, back })
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": r"^[+-]\d+(\.\d+)? ?(ns|us|ms|s|min|h)$", "examples": ["-1h"] })
    }
}

impl Words for trace::FlowKind {
    const WHAT: &'static str = "a kind of traffic";
    const EXAMPLE: &'static str = "\"ping\"";

    fn all() -> Vec<(&'static str, Self)> {
        use trace::FlowKind::{Bulk, Ping, Voice};
        vec![("ping", Ping), ("voice", Voice), ("bulk", Bulk)]
    }
}

/// The path of a pair; `None` for one that stays unconnected.
impl Words for Option<trace::Path> {
    const WHAT: &'static str = "a path";
    const EXAMPLE: &'static str = "\"direct\"";

    fn all() -> Vec<(&'static str, Self)> {
        use trace::Path::{Direct, Lan, Relay};
        let paths = [Direct, Lan, Relay].into_iter().map(|path| (path.as_str(), Some(path)));
        paths.chain([("none", None)]).collect()
    }
}

/// Ports "1024-65535" or one port "443".
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports(pub(super) nat::PortRange);

impl Value for Ports {
    const WHAT: &'static str = "a range of ports";
    const EXAMPLE: &'static str = "\"1024-65535\"";

    fn text(text: &str) -> Result<Self, Bad> {
        let help = "write a port or a range, for example \"443\" or \"1024-65535\"";
        let malformed = || Bad::new(format!("`{text}` is not a range of ports"), help);
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let low: u16 = low.trim().parse().map_err(|_| malformed())?;
        let high: u16 = high.trim().parse().map_err(|_| malformed())?;
        if low == 0 || low > high {
            return Err(Bad::new(format!("`{text}` holds no ports"), help));
        }
        Ok(Ports(nat::PortRange { low, high }))
    }
}

/// How many mappings a machine may have: a number, or "unlimited".
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota(pub(super) usize);

impl Value for Quota {
    const WHAT: &'static str = "a number of mappings, or \"unlimited\"";
    const EXAMPLE: &'static str = "64";

    fn text(text: &str) -> Result<Self, Bad> {
        match text {
            "unlimited" => Ok(Quota(usize::MAX)),
            _ => Err(Bad::new(format!("`{text}` is not a number of mappings"), "write 64, or \"unlimited\"")),
        }
    }

    fn number(value: i64) -> Result<Self, Bad> {
        match usize::try_from(value) {
            Ok(quota @ 1..=65_536) => Ok(Quota(quota)),
            _ => Err(Bad::new(
                format!("a machine cannot have {value} mappings"),
                "write 1 to 65536, or \"unlimited\"",
            )),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 65_536 }, { "enum": ["unlimited"] }] })
    }
}

/// How often something happens: "20/s".
#[derive(Debug, Clone, Copy)]
pub(super) struct PerSecond(pub(super) u32);

impl Value for PerSecond {
    const WHAT: &'static str = "a number in a second";
    const EXAMPLE: &'static str = "\"20/s\"";

    fn text(text: &str) -> Result<Self, Bad> {
        let malformed =
            || Bad::new(format!("`{text}` is not a number in a second"), "write for example \"20/s\"");
        let count = text.strip_suffix("/s").ok_or_else(malformed)?;
        let count: u32 = count.trim().parse().map_err(|_| malformed())?;
        if count > 1_000_000 {
            return Err(Bad::new(
                format!("`{text}` is more than any router makes"),
                "write at most \"1000000/s\"",
            ));
        }
        Ok(PerSecond(count))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": r"^\d+ ?/s$", "examples": ["20/s"] })
    }
}
