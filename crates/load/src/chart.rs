//! Plots as inline SVG: no script, so that they show wherever a page is shown.

/// The plot in its own units; the page scales it.
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 28.0;

/// A plot: lines, or bars stacked upon each other, over one axis.
pub(crate) struct Chart {
    pub(crate) title: String,
    /// What a reader should know before believing the lines.
    pub(crate) note: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) marks: Marks,
    /// The part of the x axis that was measured; the rest is shaded.
    pub(crate) measured: Option<(f64, f64)>,
    /// What is shown when a reader points at a part of the x axis.
    pub(crate) hints: Vec<Hint>,
}

pub(crate) enum Marks {
    Lines(Vec<Line>),
    /// Each as wide as an interval of the x axis.
    Bars {
        width: f64,
        layers: Vec<Layer>,
    },
}

/// Points joined where they follow each other; `None` is a gap.
pub(crate) struct Line {
    pub(crate) label: String,
    /// A colour of the page's style sheet.
    pub(crate) colour: &'static str,
    pub(crate) points: Vec<Option<(f64, f64)>>,
}

/// One kind of thing, counted in each interval.
pub(crate) struct Layer {
    pub(crate) label: String,
    pub(crate) colour: &'static str,
    pub(crate) counts: Vec<u64>,
}

pub(crate) struct Hint {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) text: String,
}

pub(crate) struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    /// Where there is a line across the plot, and what is written at its end.
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to a round number not below `high`.
    pub(crate) fn linear(high: f64, write: impl Fn(f64) -> String) -> Axis {
        let high = if high > 0.0 { high } else { 1.0 };
        let rough = high / 4.0;
        let decade = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * decade)
            .find(|step| *step >= rough)
            .unwrap_or(10.0 * decade);
        let steps = (high / step).ceil().max(1.0) as usize;
        let ticks = (0..=steps).map(|at| (at as f64 * step, write(at as f64 * step))).collect();
        Axis { low: 0.0, high: steps as f64 * step, logarithmic: false, ticks }
    }

    /// As [`linear`](Axis::linear), but it ends where the data ends: for time.
    pub(crate) fn until(high: f64, write: impl Fn(f64) -> String) -> Axis {
        let mut axis = Axis::linear(high, write);
        axis.ticks.retain(|(at, _)| *at <= high);
        axis.high = if high > 0.0 { high } else { 1.0 };
        axis
    }

    /// Each power of ten has the same room.
    pub(crate) fn logarithmic(low: f64, high: f64, write: impl Fn(f64) -> String) -> Axis {
        let low = low.max(1e-9).log10().floor();
        let high = high.max(1e-9).log10().ceil().max(low + 1.0);
        let ticks = (low as i32..=high as i32).map(|power| {
            let at = 10f64.powi(power);
            (at, write(at))
        });
        let ticks = ticks.collect();
        Axis { low: 10f64.powf(low), high: 10f64.powf(high), logarithmic: true, ticks }
    }

    /// Shares from 0 to nearly 1, each further nine with the same room; a point is `nines(share)`.
    pub(crate) fn nines(high: f64) -> Axis {
        let marks = [(0.0, "0"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %")];
        let more = [(0.9999, "99.99 %"), (0.99999, "99.999 %"), (0.999_999, "99.9999 %")];
        let ticks = marks
            .into_iter()
            .chain(more)
            .map(|(share, label)| (nines(share), label.to_owned()))
            .filter(|(at, _)| *at <= high + 0.01)
            .collect();
        Axis { low: 0.0, high: high.max(0.5), logarithmic: false, ticks }
    }

    /// Where a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let place = if self.logarithmic {
            (value.max(1e-12) / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        place.clamp(0.0, 1.0)
    }
}

/// How many nines a share has: 1 for 90 %, 2 for 99 %.
pub(crate) fn nines(share: f64) -> f64 {
    -(1.0 - share).max(1e-9).log10()
}

impl Chart {
    /// The plot with its title, legend and note, as one figure of the page.
    pub(crate) fn figure(&self) -> String {
        let mut html = format!("<figure><h2>{}</h2><p class=legend>", escape(&self.title));
        let legend: Vec<(&str, &str)> = match &self.marks {
            Marks::Lines(lines) => {
                lines.iter().map(|line| (line.label.as_str(), line.colour)).collect()
            }
            Marks::Bars { layers, .. } => {
                layers.iter().map(|layer| (layer.label.as_str(), layer.colour)).collect()
            }
        };
        for (label, colour) in legend {
            html += &format!("<span><i class=\"{colour}\"></i>{}</span>", escape(label));
        }
        html += &format!("</p>{}", self.svg());
        html += &format!("<figcaption>{}</figcaption></figure>\n", escape(&self.note));
        html
    }

    fn svg(&self) -> String {
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img aria-label=\"{}\">",
            escape(&self.title)
        );
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for (at, label) in &self.y.ticks {
            let y = self.y(*at);
            svg += &format!(
                "<path class=grid d=\"M{LEFT} {y:.1}H{right}\"/><text x={:.1} y={:.1} \
                     text-anchor=end>{}</text>",
                LEFT - 6.0,
                y + 4.0,
                escape(label)
            );
        }
        for (at, label) in &self.x.ticks {
            let x = self.x(*at);
            svg += &format!(
                "<path class=grid d=\"M{x:.1} {TOP}V{bottom}\"/><text x={x:.1} y={:.1} \
                     text-anchor=middle>{}</text>",
                bottom + 17.0,
                escape(label)
            );
        }
        if let Some((from, to)) = self.measured {
            for (from, to) in [(self.x.low, from), (to, self.x.high)] {
                self.rect(&mut svg, "outside", (from, to), (TOP, bottom));
            }
        }
        match &self.marks {
            Marks::Lines(lines) => lines.iter().for_each(|line| self.line(&mut svg, line)),
            Marks::Bars { width, layers } => self.bars(&mut svg, *width, layers),
        }
        for hint in &self.hints {
            let (x, width) = self.span(hint.from, hint.to);
            svg += &format!(
                "<rect class=hint x={x:.1} y={TOP} width={width:.1} height={:.1}><title>{}\
                     </title></rect>",
                bottom - TOP,
                escape(&hint.text)
            );
        }
        svg + "</svg>"
    }

    fn line(&self, svg: &mut String, line: &Line) {
        let mut path = String::new();
        let mut pen_down = false;
        for (at, point) in line.points.iter().enumerate() {
            let Some((x, y)) = point else {
                pen_down = false;
                continue;
            };
            let (x, y) = (self.x(*x), self.y(*y));
            let is_alone = !pen_down && line.points.get(at + 1).is_none_or(Option::is_none);
            path += &format!("{}{x:.1} {y:.1}", if pen_down { 'L' } else { 'M' });
            if is_alone {
                // A line to itself, which round ends make a dot.
                path.push_str("h0");
            }
            pen_down = true;
        }
        *svg += &format!("<path class=\"line {}\" d=\"{path}\"/>", line.colour);
    }

    fn bars(&self, svg: &mut String, width: f64, layers: &[Layer]) {
        let intervals = layers.iter().map(|layer| layer.counts.len()).max().unwrap_or_default();
        for at in 0..intervals {
            let mut below = 0;
            let from = at as f64 * width;
            for layer in layers {
                let count = layer.counts.get(at).copied().unwrap_or_default();
                if count > 0 {
                    let (low, high) = (self.y(below as f64), self.y((below + count) as f64));
                    // Even one among thousands is seen.
                    let high = high.min(low - 1.0);
                    let class = format!("bar {}", layer.colour);
                    self.rect(svg, &class, (from, from + width), (high, low));
                    below += count;
                }
            }
        }
    }

    fn rect(
        &self,
        svg: &mut String,
        class: &str,
        (from, to): (f64, f64),
        (top, bottom): (f64, f64),
    ) {
        let (x, width) = self.span(from, to);
        let height = bottom - top;
        *svg += &format!(
            "<rect class=\"{class}\" x={x:.1} y={top:.1} width={width:.1} height={height:.1} />"
        );
    }

    fn span(&self, from: f64, to: f64) -> (f64, f64) {
        let (from, to) = (self.x(from), self.x(to));
        (from, (to - from).max(0.0))
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }
}

/// Text as it may stand in HTML, between tags and within quotes.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // What a terminal or a browser might obey.
            c if c.is_control() && c != '\n' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn axes_have_round_numbers() {
        let plain = |value: f64| value.to_string();
        assert_eq!(labels(&Axis::linear(93.0, plain)), ["0", "25", "50", "75", "100"]);
        assert_eq!(labels(&Axis::linear(0.0, plain)).len(), 5, "nothing has an axis too");
        assert_eq!(labels(&Axis::until(7.0, plain)), ["0", "2", "4", "6"]);
        assert_eq!(labels(&Axis::logarithmic(0.3, 40.0, plain)), ["0.1", "1", "10", "100"]);
        assert_eq!(labels(&Axis::nines(2.5)), ["0", "50 %", "90 %", "99 %"]);
    }

    #[test]
    fn a_line_stays_in_the_plot_and_stops_at_gaps() {
        let chart = Chart {
            title: "a < b".into(),
            note: String::new(),
            x: Axis::until(10.0, |at| at.to_string()),
            y: Axis::linear(1.0, |at| at.to_string()),
            marks: Marks::Lines(vec![Line {
                label: "x".into(),
                colour: "c1",
                points: vec![Some((0.0, 0.0)), Some((5.0, 99.0)), None, Some((10.0, 1.0))],
            }]),
            measured: Some((2.0, 8.0)),
            hints: Vec::new(),
        };
        let html = chart.figure();
        assert!(html.contains("d=\"M52.0 222.0L281.0 10.0M510.0 10.0h0\""), "{html}");
        assert!(html.contains("a &lt; b") && !html.contains("a < b"));
    }

    #[test]
    fn nothing_gets_out_of_its_quotes() {
        assert_eq!(
            escape("<a href='x'>\"&\u{1b}"),
            "&lt;a href=&#39;x&#39;&gt;&quot;&amp;\u{fffd}"
        );
    }
}
