//! Aligned columns without borders. Colour does not count as width, so a table looks the same with and without it.

use crate::style::{Style, Tone};
use crate::text;

/// Space between two columns.
const GAP: &str = "  ";

/// Rows under headings.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug, Clone, Copy)]
struct Column {
    title: &'static str,
    right: bool,
}

/// One field of a table. Control characters never reach it.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A field with a meaning.
    pub(crate) fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: text::clean(text.as_ref()), tone }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

impl Table {
    /// A table with these headings; one that begins with `>` heads a column of numbers, aligned to the right.
    pub(crate) fn new(titles: &[&'static str]) -> Self {
        let column = |title: &&'static str| match title.strip_prefix('>') {
            Some(title) => Column { title, right: true },
            None => Column { title, right: false },
        };
        Self { columns: titles.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        assert_eq!(N, self.columns.len(), "a row has a cell for each column");
        self.rows.push(cells.into());
    }

    /// The table as text that ends with its last line, or `nothing` when it has no rows.
    pub(crate) fn render(&self, style: Style, nothing: &str) -> String {
        if self.rows.is_empty() {
            return style.paint(nothing, Tone::Dim);
        }
        let widths: Vec<usize> = (0..self.columns.len()).map(|at| self.width(at)).collect();
        let titles: Vec<Cell> = self.columns.iter().map(|column| Cell::toned(column.title, Tone::Dim)).collect();
        let rows = std::iter::once(&titles).chain(&self.rows);
        let lines: Vec<String> = rows.map(|row| self.line(row, &widths, style)).collect();
        lines.join("\n")
    }

    fn width(&self, at: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[at].text.chars().count());
        cells.max().unwrap_or(0).max(self.columns[at].title.chars().count())
    }

    fn line(&self, row: &[Cell], widths: &[usize], style: Style) -> String {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let space = " ".repeat(widths[at] - cell.text.chars().count());
            let text = style.paint(&cell.text, cell.tone);
            let last = at + 1 == row.len();
            match (self.columns[at].right, last) {
                (true, _) => line.extend([space.as_str(), &text]),
                (false, true) => line.push_str(&text),
                (false, false) => line.extend([text.as_str(), &space]),
            }
            if !last {
                line.push_str(GAP);
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// Names and values below each other: what one thing is.
pub(crate) fn facts(style: Style, facts: &[(&str, Cell)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): &(&str, Cell)| {
        format!("{}{GAP}{}", style.paint(&format!("{name:width$}"), Tone::Dim), style.paint(&value.text, value.tone))
    };
    facts.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_with_text() {
        let mut table = Table::new(&["NAME", ">CALLS", "NOTE"]);
        table.row(["a".into(), "1,000".into(), "".into()]);
        table.row(["longer".into(), "7".into(), "ünï".into()]);
        assert_eq!(table.render(Style::PLAIN, "-"), "NAME    CALLS  NOTE\na       1,000\nlonger      7  ünï");
    }

    #[test]
    fn an_empty_table_says_so() {
        assert_eq!(Table::new(&["A"]).render(Style::PLAIN, "no nodes"), "no nodes");
    }

    #[test]
    fn a_hostile_cell_cannot_move_the_cursor() {
        let mut table = Table::new(&["A"]);
        table.row(["x\u{1b}[2Jy\nz".into()]);
        assert_eq!(table.render(Style::PLAIN, ""), "A\nx�[2Jy�z");
    }

    #[test]
    fn facts_are_aligned() {
        assert_eq!(facts(Style::PLAIN, &[("id", "a".into()), ("state", "b".into())]), "id     a\nstate  b");
    }
}
