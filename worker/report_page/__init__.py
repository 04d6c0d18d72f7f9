"""`report.html`: the report as one page that needs nothing else, for a privacy officer first and
an engineer second.
"""

from worker.report_page.page import render

__all__ = ["render"]
