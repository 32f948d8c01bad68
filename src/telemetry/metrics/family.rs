//! The mechanism under the metrics: a family whose label combinations are all known, and all
//! resolved, before the first event.
//!
//! The client library looks a child up by hashing its label texts; here a child is an array index,
//! so counting is one atomic add, and no text can become a label at run time.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// Begins every metric's name.
pub const NAMESPACE: &str = "rename_worker";

/// The label values that only the running program knows, and that never change while it runs.
#[derive(Debug, Clone, Default)]
pub struct StaticLabels {
    pub version: String,
    pub revision: String,
    /// The ladder's steps by name, shortest first.
    pub ladder: Vec<String>,
}

/// A set of labels with a closed list of value combinations.
pub trait LabelSet: Copy {
    const NAMES: &'static [&'static str];

    /// Every combination that can occur, in an order [`LabelSet::row`] agrees with.
    fn rows(given: &StaticLabels) -> Vec<Vec<String>>;

    /// Which of the rows this one is.
    fn row(self) -> usize;
}

/// No labels: one child.
impl LabelSet for () {
    const NAMES: &'static [&'static str] = &[];

    fn rows(_: &StaticLabels) -> Vec<Vec<String>> {
        vec![vec![]]
    }

    fn row(self) -> usize {
        0
    }
}

/// What a family is made of.
pub trait MetricHandle: Clone {
    const KIND: &'static str;

    fn register(
        registry: &Registry,
        about: &MetricSpec,
        rows: &[Vec<String>],
    ) -> prometheus::Result<Vec<Self>>;
}

/// One metric as it is declared; `docs/metrics.md` is the list of these.
#[derive(Debug, Clone, Copy)]
pub struct MetricSpec {
    pub name: &'static str,
    pub kind: &'static str,
    pub help: &'static str,
    pub labels: &'static [&'static str],
    /// Upper bounds in seconds; empty unless it is a histogram.
    pub buckets: &'static [f64],
    /// Every combination of label values.
    pub rows: fn(&StaticLabels) -> Vec<Vec<String>>,
}

/// A metric with all its children.
pub struct MetricFamily<M, L> {
    children: Box<[M]>,
    labels: PhantomData<fn(L)>,
}

impl<M: MetricHandle, L: LabelSet> MetricFamily<M, L> {
    pub(super) fn register(
        registry: &Registry,
        about: &MetricSpec,
        given: &StaticLabels,
    ) -> prometheus::Result<Self> {
        let children = M::register(registry, about, &L::rows(given))?;
        Ok(Self {
            children: children.into(),
            labels: PhantomData,
        })
    }

    /// `None` only for a ladder step that was not given at the start: nothing to crash over.
    fn child(&self, labels: L) -> Option<&M> {
        let child = self.children.get(labels.row());
        debug_assert!(child.is_some(), "no such label combination");
        child
    }
}

impl<L: LabelSet> MetricFamily<IntCounter, L> {
    pub fn inc(&self, labels: L) {
        if let Some(counter) = self.child(labels) {
            counter.inc();
        }
    }

    pub fn inc_by(&self, labels: L, by: u64) {
        if let Some(counter) = self.child(labels) {
            counter.inc_by(by);
        }
    }

    pub fn get(&self, labels: L) -> u64 {
        self.child(labels).map_or(0, IntCounter::get)
    }

    /// All children together.
    pub fn total(&self) -> u64 {
        self.children.iter().map(IntCounter::get).sum()
    }
}

impl<L: LabelSet> MetricFamily<IntGauge, L> {
    pub fn set(&self, labels: L, value: i64) {
        if let Some(gauge) = self.child(labels) {
            gauge.set(value);
        }
    }

    pub fn get(&self, labels: L) -> i64 {
        self.child(labels).map_or(0, IntGauge::get)
    }
}

impl<L: LabelSet> MetricFamily<Histogram, L> {
    pub fn observe(&self, labels: L, took: Duration) {
        if let Some(histogram) = self.child(labels) {
            histogram.observe(took.as_secs_f64());
        }
    }
}

impl<M, L> fmt::Debug for MetricFamily<M, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricFamily")
            .field("children", &self.children.len())
            .finish_non_exhaustive()
    }
}

impl MetricHandle for IntCounter {
    const KIND: &'static str = "counter";

    fn register(
        registry: &Registry,
        about: &MetricSpec,
        rows: &[Vec<String>],
    ) -> prometheus::Result<Vec<Self>> {
        let family = IntCounterVec::new(opts(about), about.labels)?;
        registry.register(Box::new(family.clone()))?;
        rows.iter()
            .map(|row| family.get_metric_with_label_values(row))
            .collect()
    }
}

impl MetricHandle for IntGauge {
    const KIND: &'static str = "gauge";

    fn register(
        registry: &Registry,
        about: &MetricSpec,
        rows: &[Vec<String>],
    ) -> prometheus::Result<Vec<Self>> {
        let family = IntGaugeVec::new(opts(about), about.labels)?;
        registry.register(Box::new(family.clone()))?;
        rows.iter()
            .map(|row| family.get_metric_with_label_values(row))
            .collect()
    }
}

impl MetricHandle for Histogram {
    const KIND: &'static str = "histogram";

    fn register(
        registry: &Registry,
        about: &MetricSpec,
        rows: &[Vec<String>],
    ) -> prometheus::Result<Vec<Self>> {
        let opts = HistogramOpts::from(opts(about)).buckets(about.buckets.to_vec());
        let family = HistogramVec::new(opts, about.labels)?;
        registry.register(Box::new(family.clone()))?;
        rows.iter()
            .map(|row| family.get_metric_with_label_values(row))
            .collect()
    }
}

fn opts(about: &MetricSpec) -> Opts {
    Opts::new(about.name, about.help).namespace(NAMESPACE)
}

/// Declares metrics, each once: its doc comment is its help, its type says its kind and labels.
macro_rules! families {
    (
        $(#[$outer:meta])*
        pub struct $all:ident {
            $(
                $(#[doc = $help:literal])+
                pub $name:ident: $metric:ident<$labels:ty> $(, buckets: $buckets:ident)?;
            )+
        }
    ) => {
        $(#[$outer])*
        pub struct $all {
            $( $(#[doc = $help])+ pub $name: MetricFamily<$metric, $labels>, )+
        }

        impl $all {
            /// What there is, in the order of declaration.
            pub const CATALOGUE: &'static [MetricSpec] = &[
                $( families!(@about $name, $metric, $labels, [$($help),+], $($buckets)?), )+
            ];

            /// Every family, each of its series at zero.
            pub fn register(registry: &Registry, given: &StaticLabels) -> prometheus::Result<Self> {
                Ok(Self {
                    $( $name: MetricFamily::register(
                        registry,
                        &families!(@about $name, $metric, $labels, [$($help),+], $($buckets)?),
                        given,
                    )?, )+
                })
            }
        }
    };
    (@about $name:ident, $metric:ident, $labels:ty, [$($help:literal),+], $($buckets:ident)?) => {
        MetricSpec {
            name: stringify!($name),
            kind: <$metric as MetricHandle>::KIND,
            // Each line of a doc comment begins with a space, so they join as they are.
            help: concat!($($help),+).trim_ascii_start(),
            labels: <$labels as LabelSet>::NAMES,
            buckets: families!(@buckets $($buckets)?),
            rows: <$labels as LabelSet>::rows,
        }
    };
    (@buckets) => { &[] };
    (@buckets $buckets:ident) => { $buckets };
}
pub(super) use families;
