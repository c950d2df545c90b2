"""Comparisons: from finished run folders to tables, statistics, figures and a report."""
