//! The description of a figure.

/// The description of one figure of `/stats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// The name in `/stats`, which is also the field in [`Snapshot`](crate::Snapshot).
    pub name: &'static str,
    /// Whether the figure is a gauge or a counter.
    pub kind: FigureKind,
    /// A sentence or two of Markdown on what the figure means.
    pub help: &'static str,
}

/// The kind of a [`Figure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FigureKind {
    /// A current value.
    Gauge,
    /// A count since the start of the server.
    Counter,
}

pub(super) const fn figure(name: &'static str, kind: FigureKind, help: &'static str) -> Figure {
    Figure { name, kind, help }
}
