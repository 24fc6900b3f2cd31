"""The report of a case: when which classes and instruments were in view, as a page, as JSON and as CSV."""
