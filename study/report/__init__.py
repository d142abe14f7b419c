"""The report of a study: one page that can be mailed, made from the database alone."""
