"""The study in its database: opening it, its one driver's lock, write-through, kept models.

The database is the truth; this room alone knows how it is stored and where its things are.
"""
