"""The database: sessions, tables, advisory locks."""
