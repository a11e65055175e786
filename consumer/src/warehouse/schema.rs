//! The tables: one definition, from which the DDL, the calls that make them, the check of what is
//! there and the lake's external tables follow. Pure.
//!
//! Columns are those of the lake's files ([`crate::columns`]): names, types and what may be NULL.
//! Here is what only a warehouse has: partitions, clusters, the view.
use std::fmt::{self, Write as _};

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use records::topics;

use crate::columns::{Columns as _, Events, FunnelSteps, PRICE_DIGITS, SUM_DIGITS, Sessions};

/// The batch pipelines' name for the events, and what they had there.
pub const VIEW: &str = "clickstream_partitioned_clustered";
/// The same as a table made from the lake. The names of all that is made from the lake begin alike,
/// so that a dataset can hold it beside the warehouse.
pub const LAKE_TABLE: &str = "lake_clickstream_partitioned_clustered";
const VIEW_COLUMNS: [&str; 9] = [
    "event_time",
    "event_type",
    "product_id",
    "category_id",
    "category_code",
    "brand",
    "price",
    "user_id",
    "user_session",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub name: &'static str,
    /// Without its prefix.
    pub topic: &'static str,
    /// One partition for each UTC day of it.
    pub partition_by: &'static str,
    pub cluster_by: [&'static str; 4],
    pub columns: Vec<Column>,
    /// As rows are gathered.
    pub arrow: SchemaRef,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
    pub mode: Mode,
    /// Of a record.
    pub fields: Vec<Column>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Integer,
    /// NUMERIC(12, 2).
    Money,
    /// NUMERIC(18, 2), of money.
    Sum,
    /// One of other digits, in all and after the point.
    Numeric(i64, i64),
    Timestamp,
    Flag,
    Bytes,
    Record,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Nullable,
    Required,
    Repeated,
}

/// All tables, in the order of [`super::TOPICS`].
pub fn tables() -> [Table; 3] {
    [
        Table {
            name: "events",
            topic: topics::EVENTS,
            partition_by: "event_time",
            cluster_by: ["event_type", "category_code", "brand", "product_id"],
            columns: columns(&Events::schema()),
            arrow: Events::schema(),
        },
        Table {
            name: "funnel_steps",
            topic: topics::FUNNEL_STEPS,
            partition_by: "first_touch_time",
            cluster_by: ["stage", "category_code", "brand", "product_id"],
            columns: columns(&FunnelSteps::schema()),
            arrow: FunnelSteps::schema(),
        },
        Table {
            name: "sessions",
            topic: topics::SESSIONS,
            partition_by: "session_start",
            cluster_by: ["furthest_stage", "entry_category_code", "last_event_type", "user_id"],
            columns: columns(&Sessions::schema()),
            arrow: Sessions::schema(),
        },
    ]
}

fn columns(schema: &Schema) -> Vec<Column> {
    schema.fields().iter().map(|field| column(field)).collect()
}

fn column(field: &Field) -> Column {
    let mut mode = if field.is_nullable() { Mode::Nullable } else { Mode::Required };
    let mut data_type = field.data_type();
    if let DataType::List(item) = data_type {
        (mode, data_type) = (Mode::Repeated, item.data_type());
    }
    let (kind, fields) = match data_type {
        DataType::Int64 => (Kind::Integer, vec![]),
        DataType::Decimal64(SUM_DIGITS, _) => (Kind::Sum, vec![]),
        DataType::Decimal64(..) => (Kind::Money, vec![]),
        DataType::Timestamp(..) => (Kind::Timestamp, vec![]),
        DataType::Boolean => (Kind::Flag, vec![]),
        DataType::Binary => (Kind::Bytes, vec![]),
        DataType::Struct(fields) => (Kind::Record, fields.iter().map(|field| column(field)).collect()),
        _ => (Kind::Text, vec![]),
    };
    Column { name: field.name().clone(), kind, mode, fields }
}

impl Kind {
    /// As the REST API has it.
    pub const fn api_name(self) -> &'static str {
        match self {
            Self::Text => "STRING",
            Self::Integer => "INTEGER",
            Self::Money | Self::Sum | Self::Numeric(..) => "NUMERIC",
            Self::Timestamp => "TIMESTAMP",
            Self::Flag => "BOOLEAN",
            Self::Bytes => "BYTES",
            Self::Record => "RECORD",
        }
    }

    /// Of the REST API's name and digits (0: not given); a foreign one is taken for bytes, which no column
    /// of ours is.
    pub fn of_api(name: &str, precision: i64, scale: i64) -> Self {
        match name {
            "STRING" => Self::Text,
            "INTEGER" | "INT64" => Self::Integer,
            "NUMERIC" => match (precision, scale) {
                (0, _) => Self::Numeric(38, 9),
                digits if digits == Self::Money.digits() => Self::Money,
                digits if digits == Self::Sum.digits() => Self::Sum,
                (precision, scale) => Self::Numeric(precision, scale),
            },
            "TIMESTAMP" => Self::Timestamp,
            "BOOLEAN" | "BOOL" => Self::Flag,
            "RECORD" | "STRUCT" => Self::Record,
            _ => Self::Bytes,
        }
    }

    fn sql(self) -> String {
        let name = match self {
            Self::Text => "STRING",
            Self::Integer => "INT64",
            Self::Money | Self::Sum | Self::Numeric(..) => {
                let (precision, scale) = self.digits();
                return format!("NUMERIC({precision}, {scale})");
            }
            Self::Timestamp => "TIMESTAMP",
            Self::Flag => "BOOL",
            Self::Bytes => "BYTES",
            Self::Record => "STRUCT",
        };
        name.to_owned()
    }

    /// In all, and after the point.
    pub(super) fn digits(self) -> (i64, i64) {
        match self {
            Self::Money => (i64::from(PRICE_DIGITS), 2),
            Self::Sum => (i64::from(SUM_DIGITS), 2),
            Self::Numeric(precision, scale) => (precision, scale),
            _ => (0, 0),
        }
    }

    /// Whether values of a price are values of this. A sum that is beyond it becomes a dead letter.
    fn holds_money(self) -> bool {
        let ((precision, scale), (of_money, cents)) = (self.digits(), Self::Money.digits());
        scale >= cents && precision - scale >= of_money - cents
    }
}

impl Mode {
    /// As the REST API has it.
    pub const fn api_name(self) -> &'static str {
        match self {
            Self::Nullable => "NULLABLE",
            Self::Required => "REQUIRED",
            Self::Repeated => "REPEATED",
        }
    }
}

impl Mode {
    pub fn of_api(name: &str) -> Self {
        match name {
            "REQUIRED" => Self::Required,
            "REPEATED" => Self::Repeated,
            _ => Self::Nullable,
        }
    }
}

/// As DDL has it: `price NUMERIC(12, 2) NOT NULL`.
impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut item = self.kind.sql();
        if self.kind == Kind::Record {
            let fields: Vec<_> = self.fields.iter().map(ToString::to_string).collect();
            item = format!("STRUCT<{}>", fields.join(", "));
        }
        match self.mode {
            Mode::Nullable => write!(f, "{} {item}", self.name),
            Mode::Required => write!(f, "{} {item} NOT NULL", self.name),
            Mode::Repeated => write!(f, "{} ARRAY<{item}>", self.name),
        }
    }
}

impl Table {
    /// `CREATE TABLE`; `dataset` is `PROJECT.DATASET`.
    pub fn ddl(&self, dataset: &str) -> String {
        let columns: Vec<_> = self.columns.iter().map(|column| format!("  {column}")).collect();
        format!(
            "CREATE TABLE IF NOT EXISTS `{dataset}.{}` (\n{}\n)\nPARTITION BY DATE({})\nCLUSTER BY {};\n",
            self.name,
            columns.join(",\n"),
            self.partition_by,
            self.cluster_by.join(", ")
        )
    }
}

/// The query of the view [`VIEW`]; `from` is the events' table or external table.
pub fn view_query(from: &str) -> String {
    format!("SELECT {} FROM `{from}`", VIEW_COLUMNS.join(", "))
}

/// The whole of a dataset, as DDL.
pub fn ddl(dataset: &str) -> String {
    let mut ddl: String = tables().iter().map(|table| table.ddl(dataset) + "\n").collect();
    let _ =
        writeln!(ddl, "CREATE OR REPLACE VIEW `{dataset}.{VIEW}` AS\n{};", view_query(&format!("{dataset}.events")));
    ddl
}

/// External tables over a lake at `uri` (`gs://bucket/prefix`), and `made`, the partitioned, clustered
/// table of the batch pipelines, from the events' one.
pub fn lake_ddl(dataset: &str, uri: &str, made: &str) -> String {
    let mut ddl = String::new();
    for table in tables() {
        let Table { name, topic, .. } = table;
        let _ = write!(
            ddl,
            "CREATE OR REPLACE EXTERNAL TABLE `{dataset}.lake_{name}`\nWITH PARTITION COLUMNS (dt DATE)\nOPTIONS (\n  \
             format = 'PARQUET',\n  uris = ['{uri}/{topic}/*'],\n  hive_partition_uri_prefix = '{uri}/{topic}',\n  \
             enable_list_inference = TRUE\n);\n\n"
        );
    }
    let [events, ..] = tables();
    if made == LAKE_TABLE {
        let _ = writeln!(
            ddl,
            "-- The table {VIEW} of the batch pipelines. In a dataset of `clickstream warehouse init` a view\n-- has that \
             name; in another one, --table {VIEW} gives it to this table."
        );
    }
    let _ = write!(
        ddl,
        "CREATE OR REPLACE TABLE `{dataset}.{made}`\nPARTITION BY DATE({})\nCLUSTER BY {}\nAS\n{};\n",
        events.partition_by,
        events.cluster_by.join(", "),
        view_query(&format!("{dataset}.lake_events"))
    );
    ddl
}

/// How a table that is there differs from what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    Missing(Column),
    /// Of another type or mode.
    Other {
        is: Column,
        should: Column,
    },
    /// It must be given, and is not known here.
    Demanded(Column),
    /// It is none, but a view or the like.
    NoTable {
        is: String,
    },
    Partitions {
        is: String,
        should: String,
    },
    /// Rows, or all of it, are taken away after a while. `table` is its full name.
    Expires {
        table: String,
        option: &'static str,
        is: String,
    },
    Clusters {
        is: String,
        should: String,
    },
    /// What has the view's name.
    View {
        is: String,
        should: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(column) => write!(f, "+ {column}"),
            Self::Other { is, should } => write!(f, "- {is}\n+ {should}"),
            Self::Demanded(column) => write!(f, "- {column}"),
            Self::Partitions { is, should } => {
                write!(f, "- {}\n+ PARTITION BY {should}", or_none("PARTITION BY", is))
            }
            Self::NoTable { is } => write!(f, "- {is}\n+ TABLE"),
            Self::Expires { table, option, is } => write!(
                f,
                "- OPTIONS ({option} = {is}): what is older is deleted\n+ ALTER TABLE `{table}` SET OPTIONS ({option} = NULL)"
            ),
            Self::View { is, should } => write!(f, "- {is}\n+ {should}"),
            Self::Clusters { is, should } => write!(f, "- {}\n+ CLUSTER BY {should}", or_none("CLUSTER BY", is)),
        }
    }
}

fn or_none(what: &str, is: &str) -> String {
    if is.is_empty() { format!("(no {what})") } else { format!("{what} {is}") }
}

impl Difference {
    /// Whether adding columns makes it go, those of a record among them.
    pub fn is_additive(&self) -> bool {
        match self {
            Self::Missing(_) => true,
            Self::Other { is, should } => {
                are_alike(should, is) && differences(&should.fields, &is.fields).iter().all(Self::is_additive)
            }
            _ => false,
        }
    }

    /// Of the columns, or that there are none.
    pub const fn is_of_columns(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Other { .. } | Self::Demanded(_) | Self::NoTable { .. })
    }

    /// Whether rows can be written all the same.
    pub const fn is_harmless(&self) -> bool {
        matches!(self, Self::Partitions { .. } | Self::Clusters { .. })
    }
}

/// What mends a table that rows cannot be written to.
pub fn remedy(differences: &[Difference]) -> String {
    let (of_columns, others): (Vec<_>, Vec<_>) = differences.iter().partition(|difference| difference.is_of_columns());
    let mut remedies = Vec::new();
    if !of_columns.is_empty() && of_columns.iter().all(|difference| difference.is_additive()) {
        remedies.push("Add what is missing: clickstream warehouse init --add-columns");
    } else if !of_columns.is_empty() {
        remedies.push("Name another dataset, or copy the table to one of the right schema");
    }
    if others.iter().any(|difference| matches!(difference, Difference::Expires { .. })) {
        remedies.push("Let it keep its rows: run the statement that stands there");
    }
    remedies.join(". ")
}

/// Columns that are there beyond ours are fine if they may be NULL; ours may be NULL where they
/// should not (a column that was added later cannot be otherwise).
pub fn differences(should: &[Column], is: &[Column]) -> Vec<Difference> {
    let mut differences = Vec::new();
    for column in should {
        match is.iter().find(|other| other.name.eq_ignore_ascii_case(&column.name)) {
            None => differences.push(Difference::Missing(column.clone())),
            Some(other) if !fits(column, other) => {
                differences.push(Difference::Other { is: other.clone(), should: column.clone() });
            }
            Some(_) => {}
        }
    }
    let known = |other: &Column| should.iter().any(|column| column.name.eq_ignore_ascii_case(&other.name));
    differences.extend(
        is.iter().filter(|other| other.mode == Mode::Required && !known(other)).cloned().map(Difference::Demanded),
    );
    differences
}

fn fits(should: &Column, is: &Column) -> bool {
    are_alike(should, is) && differences(&should.fields, &is.fields).is_empty()
}

/// Whatever their fields are.
fn are_alike(should: &Column, is: &Column) -> bool {
    let mode = is.mode == should.mode || (should.mode == Mode::Required && is.mode == Mode::Nullable);
    let holds = should.kind.api_name() != "NUMERIC" || is.kind.holds_money();
    mode && holds && is.kind.api_name() == should.kind.api_name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_as_ddl() {
        let [events, steps, sessions] = tables();
        let ddl = events.ddl("shop.clicks");
        assert!(
            ddl.starts_with("CREATE TABLE IF NOT EXISTS `shop.clicks.events` (\n  event_time TIMESTAMP NOT NULL,\n")
        );
        assert!(ddl.contains("\n  brand STRING,\n  price NUMERIC(12, 2) NOT NULL,\n"), "{ddl}");
        assert!(
            ddl.ends_with(
                ")\nPARTITION BY DATE(event_time)\nCLUSTER BY event_type, category_code, brand, product_id;\n"
            )
        );
        assert!(steps.ddl("d").contains("after_view BOOL NOT NULL"));
        let list = "left_in_cart ARRAY<STRUCT<product_id INT64 NOT NULL, category_code STRING, brand STRING, value \
                    NUMERIC(12, 2) NOT NULL>>";
        assert!(sessions.ddl("d").contains(list), "{}", sessions.ddl("d"));
        assert!(sessions.ddl("d").contains("revenue NUMERIC(18, 2) NOT NULL"), "{}", sessions.ddl("d"));
        for table in tables() {
            for column in table.cluster_by.iter().chain([&table.partition_by]) {
                assert!(table.columns.iter().any(|known| known.name == **column), "{}.{column}", table.name);
            }
        }
        for column in VIEW_COLUMNS {
            assert!(events.columns.iter().any(|known| known.name == column), "{column}");
        }
    }

    #[test]
    fn what_is_made_from_the_lake_has_names_of_its_own() {
        let names = |ddl: &str| -> Vec<String> {
            let named = ddl.split("CREATE ").skip(1).filter_map(|statement| statement.split('`').nth(1));
            named.map(str::to_owned).collect()
        };
        let (warehouse, lake) = (ddl("p.d"), lake_ddl("p.d", "gs://b/l", LAKE_TABLE));
        assert_eq!((names(&warehouse).len(), names(&lake).len()), (4, 4));
        assert!(names(&lake).iter().all(|name| !names(&warehouse).contains(name)), "{lake}");
        assert!(lake.contains("--table clickstream_partitioned_clustered"), "{lake}");
        let as_before = lake_ddl("p.d", "gs://b/l", VIEW);
        assert_eq!(names(&as_before).last().map(String::as_str), Some("p.d.clickstream_partitioned_clustered"));
        assert!(!as_before.contains("--table"), "{as_before}");
    }

    #[test]
    fn drift() {
        let column = |name: &str, kind, mode| Column { name: name.into(), kind, mode, fields: vec![] };
        let (id, brand) = (column("id", Kind::Integer, Mode::Required), column("brand", Kind::Text, Mode::Nullable));
        let should = [id.clone(), brand.clone()];
        let told = |is: &[Column]| {
            let differences = differences(&should, is);
            differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(told(&should), "");
        assert_eq!(
            told(&[brand.clone(), column("ID", Kind::Integer, Mode::Nullable)]),
            "",
            "order and laxness are fine"
        );
        assert_eq!(told(std::slice::from_ref(&id)), "+ brand STRING");
        assert_eq!(
            told(&[id.clone(), column("brand", Kind::Integer, Mode::Nullable)]),
            "- brand INT64\n+ brand STRING"
        );
        assert_eq!(
            told(&[id.clone(), column("brand", Kind::Text, Mode::Required)]),
            "- brand STRING NOT NULL\n+ brand STRING"
        );
        let more = |mode| [id.clone(), brand.clone(), column("more", Kind::Text, mode)];
        assert_eq!(told(&more(Mode::Nullable)), "");
        assert_eq!(told(&more(Mode::Required)), "- more STRING NOT NULL");
        assert!(differences(&should, &[id]).iter().all(Difference::is_additive));
    }

    #[test]
    fn digits() {
        let column = |kind| Column { name: "price".into(), kind, mode: Mode::Required, fields: vec![] };
        for (should, precision, scale, told) in [
            (Kind::Money, 12, 2, ""),
            (Kind::Money, 0, 0, ""),
            (Kind::Money, 14, 4, ""),
            (Kind::Money, 5, 2, "- price NUMERIC(5, 2) NOT NULL\n+ price NUMERIC(12, 2) NOT NULL"),
            (Kind::Money, 12, 0, "- price NUMERIC(12, 0) NOT NULL\n+ price NUMERIC(12, 2) NOT NULL"),
            (Kind::Money, 12, 4, "- price NUMERIC(12, 4) NOT NULL\n+ price NUMERIC(12, 2) NOT NULL"),
            (Kind::Sum, 18, 2, ""),
            (Kind::Sum, 12, 2, ""),
            (Kind::Sum, 10, 2, "- price NUMERIC(10, 2) NOT NULL\n+ price NUMERIC(18, 2) NOT NULL"),
        ] {
            let is = column(Kind::of_api("NUMERIC", precision, scale));
            let found = differences(&[column(should)], &[is]);
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found.join("\n"), told, "{should:?}: {precision}, {scale}");
        }
    }
}
