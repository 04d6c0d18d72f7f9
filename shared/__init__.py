"""What both doors know and hold: settings, errors, tables, schemas, storage, queue. Imports
nothing else of ours.
"""
