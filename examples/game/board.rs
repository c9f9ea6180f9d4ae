//! The rules of connect four, independent of the server.

use serde::Serialize;

pub(crate) const COLUMNS: usize = 7;
pub(crate) const ROWS: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Colour {
    Red,
    Yellow,
}

impl Colour {
    pub(crate) fn other(self) -> Colour {
        match self {
            Colour::Red => Colour::Yellow,
            Colour::Yellow => Colour::Red,
        }
    }
}

/// A cell of the board: row from the bottom, and column.
pub(crate) type Cell = [usize; 2];

#[derive(Debug, Default)]
pub(crate) struct Board {
    /// Row by row, the lowest first.
    cells: [[Option<Colour>; COLUMNS]; ROWS],
}

/// The result of dropping a disc.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    GoesOn,
    Four([Cell; 4]),
    Full,
}

impl Board {
    /// Drops a disc into a column. The error is a text for the player.
    pub(crate) fn drop(&mut self, column: usize, colour: Colour) -> Result<Dropped, &'static str> {
        if column >= COLUMNS {
            return Err("there is no such column");
        }
        let is_free = |row: &usize| self.cells[*row][column].is_none();
        let row = (0..ROWS).find(is_free).ok_or("this column is full")?;
        self.cells[row][column] = Some(colour);
        Ok(match self.four_through([row, column], colour) {
            Some(line) => Dropped::Four(line),
            None if self.cells[ROWS - 1].iter().all(Option::is_some) => Dropped::Full,
            None => Dropped::GoesOn,
        })
    }

    /// Finds four in a line that include `cell`.
    fn four_through(&self, [row, column]: Cell, colour: Colour) -> Option<[Cell; 4]> {
        for (up, right) in [(0, 1), (1, 0), (1, 1), (1, -1)] {
            for back in 0..4 {
                let at = |step: isize| {
                    let row = row.checked_add_signed(up * (step - back))?;
                    let column = column.checked_add_signed(right * (step - back))?;
                    let cell = *self.cells.get(row)?.get(column)?;
                    (cell == Some(colour)).then_some([row, column])
                };
                if let (Some(a), Some(b), Some(c), Some(d)) = (at(0), at(1), at(2), at(3)) {
                    return Some([a, b, c, d]);
                }
            }
        }
        None
    }

    /// Returns the board as text, the lowest row first: `r`, `y` and `.`.
    pub(crate) fn rows(&self) -> Vec<String> {
        let letter = |cell: &Option<Colour>| match cell {
            None => '.',
            Some(Colour::Red) => 'r',
            Some(Colour::Yellow) => 'y',
        };
        self.cells.iter().map(|row| row.iter().map(letter).collect()).collect()
    }
}
