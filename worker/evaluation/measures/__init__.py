"""The measures, one file each. Each offers `measure(case)`, which yields what it found or why it
found nothing.
"""
