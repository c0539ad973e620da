"""Results as one HTML page that needs no other file. Imports no Keras.

    from k3seq import report

    rows = [["jax", 0.25], ["torch", 0.5]]
    report.write("page.html", report.page("Title", report.section("Times", report.table(["backend", "seconds"], rows))))

`page`, `section`, `table`, `fold`, `text`, `log` and `picture` (a matplotlib figure) are the parts of a page.
"""

from k3seq.report.parts import Cell, fold, log, page, picture, section, table, text, write

__all__ = ["Cell", "fold", "log", "page", "picture", "section", "table", "text", "write"]
