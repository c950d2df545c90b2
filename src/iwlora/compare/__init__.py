"""Comparisons of methods: plan the runs, execute them, analyze the results, write the report."""
