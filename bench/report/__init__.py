"""Result files as tables, plots and HTML."""
