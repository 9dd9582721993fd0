"""Who talked to whom, as a table, a picture and rules."""
