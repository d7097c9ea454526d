//! Plain-text tables for the terminal.

/// A table whose columns are as wide as their widest cell; numbers stand on the right, words on the left.
#[derive(Debug, Clone, Default)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these column heads.
    pub fn new<S: Into<String>>(head: impl IntoIterator<Item = S>) -> Table {
        Table { head: head.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty, surplus ones are left out.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) -> &mut Table {
        let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        cells.resize(self.head.len(), String::new());
        self.rows.push(cells);
        self
    }

    /// The columns' heads.
    pub fn head(&self) -> &[String] {
        &self.head
    }

    /// The rows, each as long as the head.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    fn width(&self, column: usize) -> usize {
        let lines = std::iter::once(&self.head).chain(&self.rows);
        lines.map(|line| line[column].chars().count()).max().unwrap_or(0)
    }

    /// Whether every cell that is not empty or a dash is a number, with or without a unit.
    pub fn is_numeric(&self, column: usize) -> bool {
        let mut cells =
            self.rows.iter().map(|row| row[column].as_str()).filter(|cell| !matches!(*cell, "" | "-")).peekable();
        cells.peek().is_some()
            && cells.all(|cell| cell.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_digit()))
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns: Vec<(usize, bool)> = (0..self.head.len()).map(|i| (self.width(i), self.is_numeric(i))).collect();
        let rule: Vec<String> = columns.iter().map(|(width, _)| "-".repeat(*width)).collect();
        for line in [&self.head, &rule].into_iter().chain(&self.rows) {
            let cells = line.iter().zip(&columns).map(|(cell, (width, right))| match right {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            });
            let text = cells.collect::<Vec<_>>().join("  ");
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_left_and_numbers_right() {
        let mut table = Table::new(["question", "accuracy", "n"]);
        table.row(["left of", "9.5 %", "1000"]).row(["größer", "97.0 %", "5"]).row(["none"]);
        let expected = "\
question  accuracy     n
--------  --------  ----
left of      9.5 %  1000
größer      97.0 %     5
none
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn a_table_without_rows_has_its_head() {
        assert_eq!(Table::new(["a", "bc"]).to_string(), "a  bc\n-  --\n");
        assert_eq!(Table::default().to_string(), "\n\n");
    }
}
