"""Reports for people: one offline HTML page of one or several ``report.json``."""

from edgemamba.report.html import render, write_html

__all__ = ["render", "write_html"]
