//! Columnar batches: what a store writes at once and a spool keeps, with a versioned encoding.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::table::{ColumnKind, Row, Schema, Table};

const MAGIC: [u8; 4] = *b"FTHB";
/// The encoding written today. A change of any table or of [`Column`] needs a new one, and a reader for the old.
pub const ENCODING_VERSION: u8 = 1;

/// The values of one column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the column kinds")]
pub enum Column {
    Int(Vec<i64>),
    OptInt(Vec<Option<i64>>),
    Text(Vec<String>),
    OptText(Vec<Option<String>>),
    Dec(#[serde(with = "exact")] Vec<Decimal>),
    OptDec(#[serde(with = "exact_opt")] Vec<Option<Decimal>>),
    Flag(Vec<bool>),
}

impl Column {
    fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Int => Self::Int(Vec::new()),
            ColumnKind::OptInt => Self::OptInt(Vec::new()),
            ColumnKind::Text => Self::Text(Vec::new()),
            ColumnKind::OptText => Self::OptText(Vec::new()),
            ColumnKind::Dec => Self::Dec(Vec::new()),
            ColumnKind::OptDec => Self::OptDec(Vec::new()),
            ColumnKind::Flag => Self::Flag(Vec::new()),
        }
    }

    /// What the column holds.
    pub const fn kind(&self) -> ColumnKind {
        match self {
            Self::Int(_) => ColumnKind::Int,
            Self::OptInt(_) => ColumnKind::OptInt,
            Self::Text(_) => ColumnKind::Text,
            Self::OptText(_) => ColumnKind::OptText,
            Self::Dec(_) => ColumnKind::Dec,
            Self::OptDec(_) => ColumnKind::OptDec,
            Self::Flag(_) => ColumnKind::Flag,
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Int(values) => values.len(),
            Self::OptInt(values) => values.len(),
            Self::Text(values) => values.len(),
            Self::OptText(values) => values.len(),
            Self::Dec(values) => values.len(),
            Self::OptDec(values) => values.len(),
            Self::Flag(values) => values.len(),
        }
    }

    /// True when there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Roughly what the values take in memory.
    fn bytes(&self) -> u64 {
        (0..self.len()).map(|row| self.cell_bytes(row)).sum()
    }

    fn cell_bytes(&self, row: usize) -> u64 {
        let bytes = match self {
            Self::Int(_) => size_of::<i64>(),
            Self::OptInt(_) => size_of::<Option<i64>>(),
            Self::Text(values) => size_of::<String>() + values.get(row).map_or(0, String::len),
            Self::OptText(values) => {
                size_of::<Option<String>>() + values.get(row).and_then(Option::as_ref).map_or(0, String::len)
            }
            Self::Dec(_) => size_of::<Decimal>(),
            Self::OptDec(_) => size_of::<Option<Decimal>>(),
            Self::Flag(_) => 1,
        };
        bytes as u64
    }

    fn append(&mut self, other: Self) {
        match (self, other) {
            (Self::Int(values), Self::Int(more)) => values.extend(more),
            (Self::OptInt(values), Self::OptInt(more)) => values.extend(more),
            (Self::Text(values), Self::Text(more)) => values.extend(more),
            (Self::OptText(values), Self::OptText(more)) => values.extend(more),
            (Self::Dec(values), Self::Dec(more)) => values.extend(more),
            (Self::OptDec(values), Self::OptDec(more)) => values.extend(more),
            (Self::Flag(values), Self::Flag(more)) => values.extend(more),
            _ => debug_assert!(false, "columns of one table are of one kind"),
        }
    }

    fn select(&self, keep: &[usize]) -> Self {
        fn pick<T: Clone>(values: &[T], keep: &[usize]) -> Vec<T> {
            keep.iter().filter_map(|&at| values.get(at).cloned()).collect()
        }
        match self {
            Self::Int(values) => Self::Int(pick(values, keep)),
            Self::OptInt(values) => Self::OptInt(pick(values, keep)),
            Self::Text(values) => Self::Text(pick(values, keep)),
            Self::OptText(values) => Self::OptText(pick(values, keep)),
            Self::Dec(values) => Self::Dec(pick(values, keep)),
            Self::OptDec(values) => Self::OptDec(pick(values, keep)),
            Self::Flag(values) => Self::Flag(pick(values, keep)),
        }
    }
}

/// A value that knows its column.
pub trait Cell: Sized {
    /// The value of a row; `None` when the column is of another kind, or shorter.
    fn read(column: &Column, row: usize) -> Option<Self>;

    /// Appends the value; the column was made for its kind by the table's schema.
    fn push_to(self, column: &mut Column);
}

macro_rules! cell {
    ($($type:ty => $variant:ident),+ $(,)?) => {
        $(impl Cell for $type {
            fn read(column: &Column, row: usize) -> Option<Self> {
                let Column::$variant(values) = column else { return None };
                values.get(row).cloned()
            }

            fn push_to(self, column: &mut Column) {
                if let Column::$variant(values) = column {
                    values.push(self);
                } else {
                    debug_assert!(false, "a row's fields and its schema come from one declaration");
                }
            }
        })+
    };
}

cell! {
    i64 => Int,
    Option<i64> => OptInt,
    String => Text,
    Option<String> => OptText,
    Decimal => Dec,
    Option<Decimal> => OptDec,
    bool => Flag,
}

/// Rows of one table, by column.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    table: Table,
    /// The fencing epoch of the writer that made it; a store of several writers refuses a lower one.
    pub epoch: u64,
    /// Grows by one with every batch of an epoch.
    pub seq: u64,
    columns: Vec<Column>,
}

impl Batch {
    /// An empty batch.
    pub fn new(table: Table) -> Self {
        let columns = table.schema().columns.iter().map(|spec| Column::new(spec.kind)).collect();
        Self { table, epoch: 0, seq: 0, columns }
    }

    /// Appends a row; its type names the table, so a row of another one does not compile into this batch's columns.
    ///
    /// # Errors
    /// Gives the row back when it belongs to another table.
    pub fn push<R: Row>(&mut self, row: R) -> Result<(), R> {
        if R::TABLE != self.table {
            return Err(row);
        }
        row.append(&mut self.columns);
        Ok(())
    }

    /// Appends the rows of another batch of the same table.
    ///
    /// # Errors
    /// Gives the other batch back when it belongs to another table.
    pub fn append(&mut self, other: Self) -> Result<(), Self> {
        if other.table != self.table {
            return Err(other);
        }
        for (column, more) in self.columns.iter_mut().zip(other.columns) {
            column.append(more);
        }
        Ok(())
    }

    /// A batch of rows of one table.
    pub fn of<R: Row>(rows: impl IntoIterator<Item = R>) -> Self {
        let mut batch = Self::new(R::TABLE);
        for row in rows {
            row.append(&mut batch.columns);
        }
        batch
    }

    /// A batch of whole columns, in the order of the schema.
    ///
    /// # Errors
    /// When they are not the table's, or not of one length.
    pub fn from_columns(table: Table, columns: Vec<Column>) -> Result<Self, BatchError> {
        let specs = table.schema().columns;
        let rows = columns.first().map_or(0, Column::len);
        let fits = specs.len() == columns.len()
            && specs
                .iter()
                .zip(&columns)
                .all(|(spec, column)| spec.kind == column.kind() && column.len() == rows);
        fits.then_some(Self { table, epoch: 0, seq: 0, columns }).ok_or(BatchError::Shape(table))
    }

    /// The table.
    pub const fn table(&self) -> Table {
        self.table
    }

    /// The table's schema.
    pub const fn schema(&self) -> &'static Schema {
        self.table.schema()
    }

    /// The columns, in the order of the schema.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, Column::len)
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Roughly the bytes that the rows take in memory. The sum over parts is that of the whole.
    pub fn bytes(&self) -> u64 {
        self.columns.iter().map(Column::bytes).sum()
    }

    /// The part of [`Batch::bytes`] that one row has.
    pub fn row_bytes(&self, row: usize) -> u64 {
        self.columns.iter().map(|column| column.cell_bytes(row)).sum()
    }

    /// A batch of the rows at these positions, in this order.
    pub fn select(&self, rows: &[usize]) -> Self {
        let columns = self.columns.iter().map(|column| column.select(rows)).collect();
        Self { columns, ..*self }
    }

    /// The batch as bytes: magic, version, then the body.
    ///
    /// # Errors
    /// When the body cannot be serialized.
    pub fn encode(&self) -> Result<Vec<u8>, BatchError> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(ENCODING_VERSION);
        let wire =
            WireRef { table: self.schema().name, epoch: self.epoch, seq: self.seq, columns: &self.columns };
        postcard::to_extend(&wire, bytes).map_err(BatchError::Body)
    }

    /// Reads what [`Batch::encode`] wrote.
    ///
    /// # Errors
    /// For anything else, a newer version and a table that does not exist included.
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(BatchError::NotABatch)?;
        let (&version, body) = rest.split_first().ok_or(BatchError::NotABatch)?;
        if version != ENCODING_VERSION {
            return Err(BatchError::Version(version));
        }
        let wire: Wire = postcard::from_bytes(body).map_err(BatchError::Body)?;
        let table = Table::by_name(&wire.table).ok_or(BatchError::UnknownTable(wire.table))?;
        Ok(Self { epoch: wire.epoch, seq: wire.seq, ..Self::from_columns(table, wire.columns)? })
    }
}

/// Why bytes are not a batch.
#[derive(Debug, Error)]
pub enum BatchError {
    /// The magic is missing.
    #[error("not an encoded batch")]
    NotABatch,
    /// Written by a version that this program does not read.
    #[error("batch encoding version {0} is not known")]
    Version(u8),
    /// The body is damaged.
    #[error("damaged batch: {0}")]
    Body(postcard::Error),
    /// The table does not exist.
    #[error("unknown table {0}")]
    UnknownTable(String),
    /// Columns do not match the table.
    #[error("columns do not match table {0:?}")]
    Shape(Table),
}

#[derive(Serialize)]
struct WireRef<'a> {
    table: &'a str,
    epoch: u64,
    seq: u64,
    columns: &'a [Column],
}

#[derive(Deserialize)]
struct Wire {
    table: String,
    epoch: u64,
    seq: u64,
    columns: Vec<Column>,
}

mod exact {
    use rust_decimal::Decimal;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(values: &[Decimal], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(Decimal::serialize))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Decimal>, D::Error> {
        let raw = Vec::<[u8; 16]>::deserialize(deserializer)?;
        Ok(raw.into_iter().map(Decimal::deserialize).collect())
    }
}

mod exact_opt {
    use rust_decimal::Decimal;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        values: &[Option<Decimal>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| value.as_ref().map(Decimal::serialize)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Option<Decimal>>, D::Error> {
        let raw = Vec::<Option<[u8; 16]>>::deserialize(deserializer)?;
        Ok(raw.into_iter().map(|value| value.map(Decimal::deserialize)).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::table::{CollectorStateRow, FundingRow};

    fn funding(instrument_id: i64, rate: Option<i64>) -> FundingRow {
        FundingRow {
            instrument_id,
            event_us: 7,
            mark_price: Decimal::new(instrument_id, 8),
            index_price: None,
            funding_rate: rate.map(|rate| Decimal::new(rate, 8)),
            next_funding_ms: rate,
        }
    }

    proptest! {
        #[test]
        fn encoding_round_trips(rows in proptest::collection::vec((any::<i64>(), any::<Option<i64>>()), 0..50), seq in any::<u64>()) {
            let mut batch = Batch::of(rows.into_iter().map(|(id, rate)| funding(id, rate)));
            batch.seq = seq;
            let bytes = batch.encode().unwrap();
            prop_assert_eq!(Batch::decode(&bytes).unwrap(), batch);
        }

        #[test]
        fn damage_is_an_error_not_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Batch::decode(&bytes);
            let mut framed = MAGIC.to_vec();
            framed.push(ENCODING_VERSION);
            framed.append(&mut bytes);
            let _ = Batch::decode(&framed);
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let mut bytes = Batch::of([funding(1, None)]).encode().unwrap();
        bytes[4] = 99;
        assert!(matches!(Batch::decode(&bytes), Err(BatchError::Version(99))));
    }

    #[test]
    fn rows_are_read_back_as_they_were_put_in() {
        let rows = vec![funding(1, None), funding(2, Some(3))];
        assert_eq!(FundingRow::all(&Batch::of(rows.clone())), rows);
        assert_eq!(CollectorStateRow::all(&Batch::of(rows)), []);
    }

    #[test]
    fn columns_of_another_table_are_no_batch() {
        let columns = Batch::of([funding(1, None)]).columns().to_vec();
        assert!(Batch::from_columns(Table::Trades, columns.clone()).is_err());
        let mut uneven = columns.clone();
        uneven[0] = Column::Int(vec![1, 2]);
        assert!(Batch::from_columns(Table::FundingRates, uneven).is_err());
        assert_eq!(Batch::from_columns(Table::FundingRates, columns).unwrap(), Batch::of([funding(1, None)]));
    }

    #[test]
    fn rows_are_selected_in_order() {
        let batch = Batch::of((0..5).map(|id| funding(id, None)));
        assert_eq!(batch.select(&[4, 1]).columns()[0], Column::Int(vec![4, 1]));
    }

    #[test]
    fn batches_of_one_table_are_joined_in_order() {
        let mut first = Batch::of([funding(1, None)]);
        first.append(Batch::of([funding(2, Some(3))])).unwrap();
        assert_eq!(first, Batch::of([funding(1, None), funding(2, Some(3))]));
        assert!(first.append(Batch::new(Table::Trades)).is_err());
    }

    #[test]
    fn a_row_of_another_table_is_given_back() {
        let state = CollectorStateRow {
            instrument_id: 1,
            timeframe: "1m".into(),
            last_timestamp_ms: 0,
            last_updated_us: 0,
            is_realtime: true,
        };
        let mut batch = Batch::of([funding(1, None)]);
        assert_eq!(batch.push(state.clone()), Err(state));
        assert_eq!(batch.len(), 1);
    }

    #[test]
    fn every_key_and_policy_names_a_column() {
        for table in Table::ALL {
            let schema = table.schema();
            let has = |name: &str| schema.columns.iter().any(|column| column.name == name);
            assert!(schema.key.iter().all(|name| has(name)), "{}", schema.name);
            assert!(schema.age.is_none_or(|(name, _)| has(name)), "{}", schema.name);
            match schema.conflict {
                crate::table::Conflict::Newest(name) | crate::table::Conflict::Versioned(name) => {
                    assert!(has(name))
                }
                crate::table::Conflict::KeepFirst => {}
            }
        }
    }
}
