//! The lives of one node or device: what each birth has told, and from when on.

use std::sync::Arc;

use super::table::MetricTable;

/// How many births and deaths of one node or device are remembered, the last included.
const KEPT: usize = 4;

/// What a message's metrics are looked up in.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub table: Option<Arc<MetricTable>>,
    /// There was a birth, but no room for it.
    pub is_too_many: bool,
}

/// The last lives of a node or a device, the current one last.
#[derive(Debug, Default)]
pub(super) struct History(Vec<(i64, Life)>);

/// What a node or a device is between a birth and the next change.
#[derive(Clone, Debug, Default)]
pub(super) enum Life {
    #[default]
    Dead,
    Born {
        bd_seq: Option<u64>,
        table: Arc<MetricTable>,
    },
    /// Born, but there was no room to remember what it told.
    TooMany,
}

impl History {
    /// The life that lasts.
    pub(super) fn now(&self) -> &Life {
        self.0.last().map_or(&Life::Dead, |(_, life)| life)
    }

    /// The life at the time of this stamp.
    pub(super) fn then(&self, stamp: i64) -> &Life {
        self.0.iter().rev().find(|(since, _)| *since <= stamp).map_or(&Life::Dead, |(_, life)| life)
    }

    /// Another life begins. Returns how many metrics more, or less, are remembered.
    pub(super) fn change(&mut self, stamp: i64, life: Life) -> isize {
        if matches!((self.now(), &life), (Life::Dead, Life::Dead)) {
            return 0;
        }
        let before = self.weight();
        if self.0.len() == KEPT {
            self.0.remove(0);
        }
        self.0.push((stamp, life));
        self.weight() as isize - before as isize
    }

    /// What was told by the last birth that told the same.
    pub(super) fn same(&self, table: &MetricTable) -> Option<Arc<MetricTable>> {
        let tables = self.0.iter().rev().filter_map(|(_, life)| life.table());
        tables.into_iter().find(|old| ***old == *table).cloned()
    }

    /// How many metrics it remembers.
    pub(super) fn weight(&self) -> usize {
        let mut tables: Vec<&Arc<MetricTable>> = self.0.iter().filter_map(|(_, life)| life.table()).collect();
        tables.dedup_by(|one, other| Arc::ptr_eq(one, other));
        tables.iter().map(|table| table.weight()).sum()
    }
}

impl Life {
    pub(super) fn is_dead(&self) -> bool {
        matches!(self, Self::Dead)
    }

    pub(super) fn table(&self) -> Option<&Arc<MetricTable>> {
        match self {
            Self::Born { table, .. } => Some(table),
            Self::Dead | Self::TooMany => None,
        }
    }

    pub(super) fn known(&self) -> Known {
        Known { table: self.table().cloned(), is_too_many: matches!(self, Self::TooMany) }
    }
}
