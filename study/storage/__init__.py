"""The study in its database: opened, locked by its one driver, written through, with kept models.

The database is the truth; only this room knows how it is stored and where its files are.
"""
