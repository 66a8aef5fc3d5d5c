//! How much of the system the daemon could reach if somebody took it over, as `systemd-analyze security` counts it.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::tools::{Tools, output};

const UNIT: &str = "sedged.service";
/// Most that is accepted, in tenths: the reasons for what stays open are in the unit.
const EXPOSURE_TENTHS_MAX: u32 = 20;

/// Looks at the unit as it is in the root file system; answers the figure. Above the limit the image is not made.
pub(super) fn check(tools: &Tools, tree: &Path) -> Result<String> {
    let mut command = tools.command("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager"]).arg(format!("--root={}", tree.display())).arg(UNIT);
    let text = output(&mut command).context("count what the daemon could reach")?;
    let tenths = exposure_tenths(&text).with_context(|| format!("systemd-analyze says no exposure of {UNIT}: {text}"))?;
    let shown = format!("{}.{}", tenths / 10, tenths % 10);
    ensure!(
        tenths <= EXPOSURE_TENTHS_MAX,
        "{UNIT} is exposed to {shown}, above {}.{}:\n{text}",
        EXPOSURE_TENTHS_MAX / 10,
        EXPOSURE_TENTHS_MAX % 10
    );
    Ok(format!("exposure {shown}"))
}

/// The figure of the last line, in tenths.
fn exposure_tenths(text: &str) -> Option<u32> {
    let rest = text.split_once("Overall exposure level for")?.1;
    let number = rest.split_once(": ")?.1.split_ascii_whitespace().next()?;
    let (whole, tenths) = number.split_once('.')?;
    Some(whole.parse::<u32>().ok()? * 10 + tenths.parse::<u32>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_read() {
        let line = |figure| format!("✓ User=/DynamicUser=   Service runs\n\n→ Overall exposure level for sedged.service: {figure} OK 🙂\n");
        assert_eq!(
            [exposure_tenths(&line("1.6")), exposure_tenths(&line("10.0")), exposure_tenths("nothing")],
            [Some(16), Some(100), None]
        );
    }
}
