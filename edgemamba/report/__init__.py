"""Reports for people: one offline HTML page of one or several ``report.json``."""

from edgemamba.report.html import write_html

__all__ = ["write_html"]
