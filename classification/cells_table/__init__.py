"""The table of trained 1-bit cells.

table     the file, and :class:`CellsTable` that reads it without torch
plan      which cells it holds
training  how each of them is trained
quick     a cell network that trains several times faster on one CPU thread; the same network
kernels   what it is made of
"""

from onebit.classification.cells_table.table import CellsTable as CellsTable
