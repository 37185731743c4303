//! InfluxDB's annotated CSV, as tables of one series each.
//! <https://docs.influxdata.com/influxdb/v2/reference/syntax/annotated-csv/>

use anyhow::{Context, Result, bail};

/// A column: its name, InfluxDB's type, and whether it belongs to the group key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) data_type: String,
    pub(crate) group: bool,
    default: String,
}

/// Rows of one group key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Table {
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// A column's place.
    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// What the first row has in a column.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        Some(self.rows.first()?[self.place(name)?].as_str())
    }
}

/// The annotations above a block, and then its header.
#[derive(Default)]
struct Block {
    types: Vec<String>,
    groups: Vec<String>,
    defaults: Vec<String>,
    columns: Vec<Column>,
}

/// Splits an answer into tables. An error that InfluxDB reports within the answer is an error here.
pub(crate) fn tables(csv: &str) -> Result<Vec<Table>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(csv.as_bytes());
    let mut tables: Vec<Table> = Vec::new();
    let mut block = Block::default();
    let mut current = None;
    for record in reader.records() {
        let record = record.context("not CSV")?;
        let cells: Vec<String> = record.iter().skip(1).map(str::to_owned).collect();
        match record.get(0).unwrap_or_default() {
            annotation if annotation.starts_with('#') => {
                if !block.columns.is_empty() {
                    block = Block::default();
                    current = None;
                }
                match annotation {
                    "#datatype" => block.types = cells,
                    "#group" => block.groups = cells,
                    "#default" => block.defaults = cells,
                    _ => {}
                }
            }
            _ if block.columns.is_empty() => block.columns = header(&block, &cells),
            _ => {
                let row = values(&block.columns, &cells);
                if let Some(place) = block.columns.iter().position(|column| column.name == "error") {
                    bail!("{}", row[place]);
                }
                let table = block.columns.iter().position(|column| column.name == "table");
                let number = table.map(|place| row[place].clone());
                if current.as_ref() != Some(&number) {
                    tables.push(Table { columns: block.columns.clone(), rows: Vec::new() });
                    current = Some(number);
                }
                tables.last_mut().context("a row without a table")?.rows.push(row);
            }
        }
    }
    Ok(tables)
}

fn header(block: &Block, names: &[String]) -> Vec<Column> {
    let annotation = |values: &[String], place: usize| values.get(place).cloned().unwrap_or_default();
    let column = |(place, name): (usize, &String)| Column {
        name: name.clone(),
        data_type: annotation(&block.types, place),
        group: annotation(&block.groups, place) == "true",
        default: annotation(&block.defaults, place),
    };
    names.iter().enumerate().map(column).collect()
}

fn values(columns: &[Column], cells: &[String]) -> Vec<String> {
    let value = |(place, column): (usize, &Column)| match cells.get(place) {
        Some(cell) if !cell.is_empty() => cell.clone(),
        _ => column.default.clone(),
    };
    columns.iter().enumerate().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_SERIES: &str = "\
#group,false,false,false,false,true\r
#datatype,string,long,dateTime:RFC3339,double,string\r
#default,mean,,,,\r
,result,table,_time,_value,axis\r
,,0,2026-11-22T20:00:00Z,1.5,\"a,b\"\r
,,0,2026-11-22T20:05:00Z,,\"a,b\"\r
,,1,2026-11-22T20:00:00Z,2,pitch\r
\r
";

    #[test]
    fn a_table_ends_where_its_number_changes() {
        let tables = tables(TWO_SERIES).unwrap();
        assert_eq!(tables.iter().map(|table| table.rows.len()).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(tables[0].first("axis"), Some("a,b"));
        assert_eq!(tables[0].first("result"), Some("mean"));
        assert!(tables[0].columns[4].group);
    }

    #[test]
    fn an_error_within_the_answer_is_an_error() {
        let answer =
            "#datatype,string,string\r\n#group,true,true\r\n#default,,\r\n,error,reference\r\n,too much,\r\n";
        assert_eq!(tables(answer).unwrap_err().to_string(), "too much");
    }

    #[test]
    fn an_empty_answer_has_no_tables() {
        assert_eq!(tables("\r\n").unwrap(), []);
    }
}
