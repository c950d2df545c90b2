"""Comparisons of methods: plan the runs, execute them, analyse the results, write the report."""
