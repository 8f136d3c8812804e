"""The command line: one module per verb. A verb parses, calls the library and prints; nothing is computed here.

Verb modules import only typer and the standard library at their top, so that ``--help`` and listings start at once.
"""
