//! `punchbag presets`.

use super::{Failure, PASSED, print};
use clap::ValueEnum;
use std::fmt::Write;

/// Print NAT, firewall and link presets, expanded, with their sources.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: punchbag presets linux")]
pub(super) struct Args {
    /// Only the preset of this name.
    name: Option<String>,
    /// Only this kind.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// How they are printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For a terminal.
    Text,
    /// A page with a table for each kind.
    Markdown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Nat,
    Firewall,
    Link,
}

pub(super) fn main(args: &Args) -> Result<u8, Failure> {
    let mut text = String::new();
    let mut names = Vec::new();
    let mut last = None;
    for (kind, name, about, expanded, source) in all() {
        names.push(name);
        if args.name.as_deref().is_some_and(|wanted| wanted != name)
            || args.kind.is_some_and(|wanted| wanted != kind)
        {
            continue;
        }
        let word = match kind {
            Kind::Nat => "nat",
            Kind::Firewall => "firewall",
            Kind::Link => "link",
        };
        match args.format {
            Format::Text => _ = write!(text, "{word} {name}: {about}\n  {expanded}\n  source: {source}\n\n"),
            Format::Markdown => {
                if last != Some(kind) {
                    last = Some(kind);
                    _ = write!(
                        text,
                        "\n## `{word} = …`\n\n| preset | what it is | expanded | source |\n|---|---|---|---|\n"
                    );
                }
                _ = writeln!(text, "| `{name}` | {about} | {expanded} | {source} |");
            }
        }
    }
    if text.is_empty() {
        return Err(format!("no such preset; there are: {}", names.join(", ")).into());
    }
    if args.format == Format::Markdown {
        text.insert_str(0, "# Presets\n\nThis page is printed by `punchbag presets --format markdown`.\n");
    }
    print::out(text.trim_end())?;
    Ok(PASSED)
}

fn all() -> Vec<(Kind, &'static str, &'static str, String, &'static str)> {
    let nats =
        nat::presets::NATS.iter().map(|p| (Kind::Nat, p.name, p.about, p.config.to_string(), p.source));
    let firewalls = nat::presets::FIREWALLS
        .iter()
        .map(|p| (Kind::Firewall, p.name, p.about, p.config.to_string(), p.source));
    let links = link::presets::LINKS.iter().map(|p| {
        let link = punchbag::scenario::words::link;
        let expanded = format!("down: {}; up: {}", link(&p.down), link(&p.up));
        (Kind::Link, p.name, p.about, expanded, p.source)
    });
    nats.chain(firewalls).chain(links).collect()
}
