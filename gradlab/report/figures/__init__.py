"""The pictures of a report, one file a kind; `all_figures` draws them in their order, `style` is how they look.

May import the report's tables and findings; nothing else draws.
"""
