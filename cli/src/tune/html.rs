//! The page of `--report`: one file, no script, nothing fetched.
//!
//! Promises: every text that came from outside is escaped; numbers on the page are those of the
//! table.

mod svg;

use std::fmt::Write;

use self::svg::{Dot, Plot, Scale};
use super::report::{Row, Table};
use crate::output::caches_line;

const STYLE: &str = "\
:root{--ink:#1b1f24;--dim:#68707a;--line:#d5dae0;--back:#fff;--pick:#0b6bcb;--default:#d9822b;--panel:#f6f8fa}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--dim:#9aa4af;--line:#3a424c;--back:#14181d;\
--pick:#5aa9f5;--default:#eba45c;--panel:#1c2229}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);margin:2rem auto;\
max-width:1080px;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .4rem}
p{margin:.3rem 0;max-width:75ch}.dim{color:var(--dim)}
.tiles{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.2rem 0}
.tile{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:.6rem 1rem;min-width:8rem}
.tile b{display:block;font-size:1.35rem}
svg{display:block;width:100%;height:auto;background:var(--panel);border:1px solid var(--line);border-radius:8px}
svg text{font:12px system-ui,sans-serif;fill:var(--ink)}svg .dim{fill:var(--dim)}
.grid{stroke:var(--line)}.roof{stroke:var(--dim);stroke-width:1.5;fill:none}
.pick{fill:var(--pick)}.default{fill:var(--default)}.link{stroke:var(--dim);stroke-opacity:.5}
.tried{fill:var(--pick);fill-opacity:.45}
.key i{display:inline-block;width:.8em;height:.8em;border-radius:50%;margin:0 .35em 0 1em}
.key .p{background:var(--pick)}.key .d{background:var(--default)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.25rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child,th:nth-child(2),td:nth-child(2){text-align:left}
details{margin:.4rem 0}summary{cursor:pointer}code{display:block;white-space:pre-wrap;background:var(--panel);\
border:1px solid var(--line);border-radius:6px;padding:.5rem;font-size:12.5px}
";

/// The page.
pub fn page(table: &Table, machine: &str) -> String {
    let mut page = String::new();
    let parts = [
        head(table, machine),
        section(
            "Gain of each layer",
            "Time of the default schedule over time of the pick, both measured in turns.",
            &gains(&table.rows),
        ),
        section(
            "Roofline",
            "Operations a second against operations for each byte of input, weights and output. \
             The lines are what this machine reaches: multiply-adds in registers, and reads from main \
             memory and from the second-level cache, where small layers live.",
            &roofline(table),
        ),
        section(
            "Candidates",
            "Every schedule that was timed: the time the cost model predicts against the time \
             measured, both relative to the layer's default schedule.",
            &candidates(&table.rows),
        ),
        "<h2>Layers</h2>\n".to_string(),
        listing(&table.rows),
        schedules(&table.rows),
        "</body></html>\n".to_string(),
    ];
    page.extend(parts);
    page
}

fn head(table: &Table, machine: &str) -> String {
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>convgen tune</title>\n<style>{STYLE}</style></head><body>\n<h1>convgen tune</h1>\n\
         <p class=\"dim\">{}</p>\n<p class=\"dim\">{}</p>\n<div class=\"tiles\">",
        escaped(machine),
        caches_line(table.caches)
    );
    let total = |field: fn(&Row) -> f64| table.rows.iter().map(field).sum::<f64>();
    let mut tile = |value: String, what: &str| {
        // Writing to a string never fails.
        let _ = write!(text, "<div class=\"tile\"><b>{value}</b>{what}</div>");
    };
    tile(table.rows.len().to_string(), "layers");
    tile(format!("{:.3}\u{d7}", table.gain()), "mean gain (geometric)");
    tile(format!("{:.2} ms", total(|row| row.default_ms)), "all layers, default");
    tile(format!("{:.2} ms", total(|row| row.ms)), "all layers, pick");
    tile(format!("{}", table.rows.iter().map(|row| row.tried).sum::<u64>()), "candidates timed");
    if let Some(rank) = table.rank_correlation() {
        tile(format!("{rank:.2}"), "rank correlation (median)");
    }
    text + "</div>\n"
}

fn section(title: &str, about: &str, plot: &str) -> String {
    format!(
        "<h2>{title}</h2>\n<p>{about}</p>\n<p class=\"key dim\"><i class=\"d\"></i>default<i \
         class=\"p\"></i>pick</p>\n{plot}\n"
    )
}

/// One bar a layer, the best first.
fn gains(rows: &[Row]) -> String {
    let mut sorted: Vec<&Row> = rows.iter().collect();
    sorted.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    let bars: Vec<(String, f64, String)> = sorted
        .iter()
        .map(|row| {
            let about = format!("{}: {:.3} ms to {:.3} ms", row.short, row.default_ms, row.ms);
            (row.name.clone(), row.gain, about)
        })
        .collect();
    svg::bars(&bars)
}

fn roofline(table: &Table) -> String {
    let rows: Vec<&Row> = table.rows.iter().filter(|row| row.ms > 0.0).collect();
    let peaks = table.peaks;
    let lowest = |row: &Row| row.gflops * row.ms / row.default_ms.max(row.ms);
    let x = Scale::around(rows.iter().map(|row| row.intensity));
    let y = Scale::around(rows.iter().map(|row| lowest(row)).chain([peaks.gflops]));
    let mut plot = Plot::new(x, y, "operations a byte", "GFLOP/s");
    for (name, gb_s) in [("main memory", peaks.memory_gb_s), ("L2", peaks.l2_gb_s)] {
        plot.roof(gb_s, peaks.gflops, &format!("{name}, {gb_s:.0} GB/s"));
    }
    plot.level(peaks.gflops, &format!("{:.0} GFLOP/s", peaks.gflops));
    for row in rows {
        let before = row.gflops * row.ms / row.default_ms;
        let about = format!("{} ({}): {:.1} GFLOP/s", row.name, row.short, row.gflops);
        plot.link((row.intensity, before), (row.intensity, row.gflops));
        plot.dot(Dot { x: row.intensity, y: before, class: "default", about: about.clone() });
        plot.dot(Dot { x: row.intensity, y: row.gflops, class: "pick", about });
    }
    plot.finish()
}

fn candidates(rows: &[Row]) -> String {
    let relative = |row: &Row| {
        let first = row.points.first().map_or((1.0, 1.0), |p| (p.predicted_ms, p.ms));
        row.points
            .iter()
            .enumerate()
            .map(|(i, p)| {
                let about = format!("{}: {:.3} ms, {}", row.name, p.ms, p.schedule);
                let picked = p.schedule == row.schedule;
                let class = match (i, picked) {
                    (0, false) => "default",
                    (_, true) => "pick",
                    (_, false) => "tried",
                };
                Dot { x: p.predicted_ms / first.0, y: p.ms / first.1, class, about }
            })
            .collect::<Vec<Dot>>()
    };
    let mut dots: Vec<Dot> = rows.iter().flat_map(relative).collect();
    // What matters is drawn last, on top.
    dots.sort_by_key(|dot| dot.class != "tried");
    let x = Scale::around(dots.iter().map(|dot| dot.x));
    let y = Scale::around(dots.iter().map(|dot| dot.y));
    let mut plot = Plot::new(x, y, "predicted time / default", "measured time / default");
    plot.diagonal();
    dots.into_iter().for_each(|dot| plot.dot(dot));
    plot.finish()
}

fn listing(rows: &[Row]) -> String {
    let mut text = String::from(
        "<div class=\"scroll\"><table><tr><th>name</th><th>problem</th><th>default ms</th><th>pick \
         ms</th><th>gain</th><th>GFLOP/s</th><th>tried</th><th>refused</th><th>rank</th><th>s</th>\
         </tr>\n",
    );
    for row in rows {
        let rank = row.rank_correlation.map_or(String::new(), |rank| format!("{rank:.2}"));
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td>{}</td><td>{:.3}</td><td>{:.3}</td><td>{:.2}</td><td>{:.1}</td>\
             <td>{}</td><td>{}</td><td>{rank}</td><td>{:.1}</td></tr>",
            escaped(&row.name),
            escaped(&row.short),
            row.default_ms,
            row.ms,
            row.gain,
            row.gflops,
            row.tried,
            row.refused,
            row.seconds
        );
    }
    text + "</table></div>\n"
}

fn schedules(rows: &[Row]) -> String {
    let mut text = String::from("<h2>Schedules</h2>\n<p>As <em>--schedule</em> reads them.</p>\n");
    for row in rows {
        let _ = writeln!(
            text,
            "<details><summary>{}</summary><p class=\"dim\">{}, {}</p><code>{}</code></details>",
            escaped(&row.name),
            escaped(&row.problem),
            escaped(row.algorithm),
            escaped(&row.schedule)
        );
    }
    text
}

/// Text as HTML writes it, in elements and in attributes.
fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '&' => "&amp;".to_string(),
        '<' => "&lt;".to_string(),
        '>' => "&gt;".to_string(),
        '"' => "&quot;".to_string(),
        '\'' => "&#39;".to_string(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::report::Peaks;
    use convgen::timing::CacheState;

    #[test]
    fn a_page_escapes_names_and_fetches_nothing() {
        let peaks = Peaks { gflops: 100.0, memory_gb_s: 10.0, l2_gb_s: 50.0 };
        let mut table = Table::new(peaks, CacheState::Cold);
        let descriptor = "conv1d ic8 oc8 iw64 kw3 \"<script>\"".parse().unwrap();
        table.push(Row::empty(&descriptor));
        let page = page(&table, "a & b");
        assert!(page.contains("&lt;script&gt;") && page.contains("a &amp; b"));
        assert!(page.contains("cold caches"), "{page}");
        assert!(!page.contains("<script") && !page.contains("http"), "{page}");
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }
}
