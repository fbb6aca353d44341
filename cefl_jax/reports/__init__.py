"""What sets of finished runs say: read, grouped over seeds, tabulated, drawn, and shown as a page.

`read_runs` -> `by_section` -> tables, curves -> formats, charts, page. Only `files` writes.
"""
