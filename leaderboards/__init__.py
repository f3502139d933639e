"""Floor 4: rows, records, tables and the `onebit` command.

boards        which boards there are and how their tables look
record        one typed JSON file per row
bench         trains and scores the rows that are missing
table         tables derived from records
environment   what a record says about machine and code
commands      one file per verb of `onebit`
"""
